"""The director on one edge: who may change the traffic, how a rollout goes, and what it is after a crash."""

import json
import time

import pytest
from slots import BASE


@pytest.fixture
def slots(blue, green):
    return blue, green


def ask(host, do, **request):
    """A request as a playbook sends it."""
    text = json.dumps(request).replace("'", "'\\''")
    return json.loads(host.check_output(f"echo '{text}' | agentfleet-director request {do}"))


def lease(host, holder="test"):
    reply = ask(host, "lease", holder=holder, work="test")
    assert reply["ok"], reply
    return reply["generation"]


def rollout(host, slots, bake=0.0, **more):
    blue, green = slots
    servers = ask(host, "status", backend="agent")["backends"]["agent"]["servers"]
    weights = {name: 0 for name in servers}
    return {
        "id": f"t{time.time()}",
        "backend": "agent",
        "kind": "deploy",
        "release": "2",
        "previous": "1",
        "strategy": "blue_green",
        "stages": [{"label": "100 %", "weights": {**weights, green: 100}}],
        "before": {**weights, blue: 100},
        "slots": {blue.removesuffix("-1"): "1", green.removesuffix("-1"): "2"},
        "bake_seconds": bake,
        "probe_path": "/who",
        **more,
    }


def until_over(host):
    for _ in range(100):
        work = ask(host, "events", backend="agent", since=0, wait=0)["rollout"]
        if work["over"]:
            return work
        time.sleep(0.2)
    raise AssertionError(work)


@pytest.fixture
def blue_serves(host, slots):
    """Both slots can take traffic, and nobody has the lease."""
    ask(host, "release", generation=ask(host, "status")["lease"]["generation"])
    for _ in range(50):
        servers = ask(host, "status", backend="agent")["backends"]["agent"]["servers"]
        if all(servers[name]["ready"] for name in slots):
            return
        time.sleep(0.2)
    raise AssertionError(servers)


def who(host, *headers):
    options = " ".join(f"-H '{header}'" for header in headers)
    return host.check_output(f"curl -s {options} {BASE}/who")


def test_a_rollout_moves_the_traffic_and_is_remembered(host, slots, blue_serves):
    generation = lease(host)
    assert ask(host, "submit", generation=generation, rollout=rollout(host, slots))["ok"]
    assert until_over(host)["phase"] == "promoted"
    assert who(host) == slots[1]
    seen = ask(host, "status", backend="agent")["backends"]["agent"]
    assert (seen["current"]["release"], seen["history"][-1]["outcome"]) == ("2", "promoted")
    assert "deploy   promoted  2" in host.check_output("agentfleet-director history")
    ask(host, "release", generation=generation)
    # And back, by the edge alone.
    host.run_expect([0], "agentfleet-director rollback --release 1 agent")
    assert who(host) == slots[0]


def test_nobody_changes_anything_without_the_lease(host, slots, blue_serves):
    late = lease(host, "late")
    assert "late has the lease" in ask(host, "lease", holder="other", work="test")["error"]
    ask(host, "release", generation=late)
    now = lease(host, "other")
    for do, more in (
        ("submit", {"rollout": rollout(host, slots)}),
        ("overwrite", {"backend": "agent", "slots": []}),
        ("record", {"record": {}}),
        ("renew", {}),
    ):
        assert "no longer the fleet's" in ask(host, do, generation=late, **more)["error"]
    assert who(host) == slots[0]
    ask(host, "release", generation=now)


def test_a_rollout_goes_on_after_the_director_was_killed(host, slots, blue_serves):
    generation = lease(host)
    assert ask(host, "submit", generation=generation, rollout=rollout(host, slots, bake=4))["ok"]
    host.run_expect([0], "systemctl kill --signal=KILL agentfleet-director")
    host.run_expect([0], "for i in $(seq 50); do agentfleet-director status && break; sleep 0.2; done")
    work = until_over(host)
    assert work["phase"] == "promoted"
    assert work["verdicts"][-1]["kind"] == "pass"
    assert who(host) == slots[1]


def test_a_new_slot_that_dies_is_left_again(host, slots, blue_serves):
    generation = lease(host)
    assert ask(host, "submit", generation=generation, rollout=rollout(host, slots, bake=60))["ok"]
    for _ in range(50):
        if who(host) == slots[1]:
            break
    host.run_expect([0], f"systemctl stop {slots[1]}")
    work = until_over(host)
    assert (work["phase"], "does not answer its health check" in work["reason"]) == ("reverted", True)
    assert who(host) == slots[0]


def test_only_the_edges_key_names_a_server(host, slots, blue_serves):
    key = host.check_output("cat /etc/haproxy/agentfleet-route-key")
    name = f"X-Agentfleet-Server: {slots[1]}"
    assert who(host, name, f"X-Agentfleet-Key: {key}") == slots[1]
    assert who(host, name) == slots[0]
    assert who(host, name, "X-Agentfleet-Key: guess") == slots[0]
    assert host.file("/etc/haproxy/agentfleet-route-key").mode == 0o600


def test_the_unit_is_hardened_and_its_socket_roots_alone(host):
    shown = host.check_output("systemd-analyze security agentfleet-director.service --no-pager | tail -1")
    assert float(shown.split(":")[1].split()[0]) <= 2.0
    assert host.file("/run/agentfleet/director.sock").mode == 0o600
    assert "no director" not in host.check_output("agentfleet-director status")
