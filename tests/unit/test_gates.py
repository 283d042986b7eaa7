"""Conditions of a rollout: what Prometheus is asked, and what is not asked because nothing limits it."""

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.gates import prometheus_address
from ansible_collections.agentfleet.vm.plugins.module_utils.director.rollout import Condition
from ansible_collections.agentfleet.vm.plugins.module_utils.gates import conditions, gate_problem

SERVERS = ["agent2-green-1", "agent1-green-1"]
GATES = {
    **{"name": "shop", "memory_max": "1G", "cpu_quota": "200%", "memory": 0.8, "cpu": 0.7},
    **{"first_token": 0.0, "conditions": []},
}
OF_SLOTS = '{job="agent",service="shop",instance=~"agent1-green-1|agent2-green-1"}'


def asked(servers=SERVERS, **different):
    found = [Condition(**condition) for condition in conditions(servers, {**GATES, **different})]
    return {condition.name: (condition.query, condition.limit) for condition in found}


def test_memory_and_processor_are_shares_of_the_units_limits():
    assert asked() == {
        "memory": (f"process_resident_memory_bytes{OF_SLOTS} / 1073741824", 0.8),
        "cpu": (f"rate(process_cpu_seconds_total{OF_SLOTS}[30s]) / 2", 0.7),
    }


@pytest.mark.parametrize(
    ("maximum", "divisor"),
    [
        ("512M", "536870912"),
        ("4096K", "4194304"),
        ("1000000", "1000000"),
        (1000000, "1000000"),
        ("1.5G", "1610612736"),
    ],
)
def test_a_size_is_read_as_systemd_reads_it(maximum, divisor):
    assert asked(memory_max=maximum)["memory"][0].endswith(f" / {divisor}")


def test_a_part_of_the_hosts_memory_is_that_of_each_host():
    query = asked(memory_max="37.5%")["memory"][0]
    assert query.endswith(' / on (host) group_left () (0.375 * node_memory_MemTotal_bytes{job="node"})')


def test_half_a_processor_is_one():
    assert asked(cpu_quota="50%")["cpu"][0].endswith("[30s]) / 0.5")


@pytest.mark.parametrize(
    ("different", "left"),
    [({"memory_max": "infinity"}, {"cpu"}), ({"cpu_quota": ""}, {"memory"}), ({"cpu_quota": "infinity"}, {"memory"})],
)
def test_what_has_no_limit_has_no_condition(different, left):
    assert set(asked(**different)) == left
    assert gate_problem({**GATES, **different}) == ""


def test_the_first_token_is_asked_for_where_it_has_a_limit():
    query, limit = asked(first_token=1.5)["first token seconds"]
    assert query == f"histogram_quantile(0.95, sum by (le) (rate(agent_first_token_seconds_bucket{OF_SLOTS}[5m])))"
    assert limit == 1.5


def test_a_users_own_query_asks_of_the_new_slots():
    own = [
        {"name": "errors", "query": 'sum(rate(x{instance=~"$instances"}[1m])) / sum(rate(y[1m]))', "limit": "0.5"},
        {"name": "load", "query": "max(node_load1)", "limit": 8},
    ]
    found = asked(conditions=own)
    assert found["errors"] == ('sum(rate(x{instance=~"agent1-green-1|agent2-green-1"}[1m])) / sum(rate(y[1m]))', 0.5)
    assert found["load"] == ("max(node_load1)", 8.0)
    assert list(found) == ["memory", "cpu", "errors", "load"]


def test_a_dot_of_a_hosts_name_is_no_other_letter():
    assert 'instance=~"a[.]example-blue-1"' in asked(["a.example-blue-1"])["memory"][0]


@pytest.mark.parametrize(
    ("different", "told"),
    [
        ({"memory_max": "much"}, "agent_memory_max: 'much' is no size"),
        ({"memory_max": "1 G"}, "agent_memory_max: '1 G' is no size"),
        ({"cpu_quota": "2"}, "agent_cpu_quota: '2' is no percentage"),
        ({"conditions": [{"name": "cpu", "query": "x", "limit": 1}]}, "agent_gate_conditions: the name 'cpu' is taken"),
    ],
)
def test_what_cannot_be_a_gate_is_told(different, told):
    assert gate_problem({**GATES, **different}).startswith(told)


def test_nothing_is_wrong_with_the_defaults():
    assert gate_problem(GATES) == ""


def test_the_first_monitoring_host_is_asked():
    hostvars = {"ops1": {"ansible_host": "10.0.0.41", "prometheus_port": 9091}, "ops2": {"ansible_host": "fd77::42"}}
    assert prometheus_address(["ops1", "ops2"], hostvars) == "http://10.0.0.41:9091"
    assert prometheus_address(["ops2"], hostvars) == "http://[fd77::42]:9090"
    assert prometheus_address([], hostvars) == ""
