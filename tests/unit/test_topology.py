import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.topology import Address, judge_topology

GROUPS = {
    "all": ["edge1", "agent1", "data1"],
    "ungrouped": [],
    "edge": ["edge1"],
    "agents": ["agent1"],
    "postgres": ["data1"],
    "redis": ["data1"],
}
ADDRESSES = {
    "edge1": Address("10.0.0.11", 22, "10.0.0.11"),
    "agent1": Address("10.0.0.21", 22, "10.0.0.21"),
    "data1": Address("10.0.0.31", 22, "10.0.0.31"),
}


def judge(groups=(), addresses=(), given=()):
    found = judge_topology({**GROUPS, **dict(groups)}, {**ADDRESSES, **dict(addresses)}, given, "inventories/fleet")
    return [(finding.host, finding.text) for finding in found]


def test_a_whole_fleet_is_fine():
    assert judge() == []


def test_one_machine_may_be_everything():
    one = {group: ["vm1"] for group in GROUPS if group != "ungrouped"}
    assert judge_topology(one, {"vm1": Address("10.0.0.1", 22, "10.0.0.1")}, (), "inventories/single") == []


@pytest.mark.parametrize("group", ["edge", "agents"])
def test_a_fleet_needs_an_edge_and_agents(group):
    [(host, text)] = judge({group: [], "redis": ["edge1", "agent1", "data1"]})
    assert (host, f"group '{group}' has no host" in text) == ("", True)


@pytest.mark.parametrize(("group", "variable"), [("postgres", "agent_database"), ("redis", "agent_redis")])
def test_data_is_kept_by_a_group_or_by_a_server_named(group, variable):
    groups = {group: []}
    [(_, text)] = judge(groups)
    assert f"'{variable}_url' is not set" in text
    assert judge(groups, given={f"{variable}_url"}) == judge(groups, given={f"{variable}_host"}) == []


def test_a_misspelt_group_is_named():
    found = judge({"agents": [], "agent": ["agent1"]})
    assert ("", "group 'agents' has no host to answer them (is 'agent' misspelt?)") in found
    assert ("agent1", "is in none of the groups edge, postgres, redis, agents, monitoring, backup") in found


def test_a_host_in_no_group_is_named():
    assert judge({"all": [*GROUPS["all"], "stray"]}) == [
        ("stray", "is in none of the groups edge, postgres, redis, agents, monitoring, backup")
    ]


def duplicates(**addresses):
    found = judge_topology(GROUPS, {**ADDRESSES, **addresses}, (), "inventories/fleet")
    return [(finding.host, finding.text, finding.mend) for finding in found]


def test_an_address_belongs_to_one_host():
    assert duplicates(data1=Address("10.0.0.21", 22, "10.9.0.31")) == [
        (
            "data1",
            "has the same address as agent1: 10.0.0.21",
            "Give it its own ansible_host in inventories/fleet",
        )
    ]
    [(host, text, mend)] = duplicates(data1=Address("10.0.0.31", 22, "10.0.0.21"))
    assert (host, text) == ("data1", "has the same address inside the fleet as agent1: 10.0.0.21")
    assert "fleet_address" in mend


def test_each_host_with_an_address_of_another_is_told():
    same = Address("10.0.0.11", 22, "10.0.0.11")
    assert [host for host, _, _ in duplicates(agent1=same, data1=same)] == ["agent1", "data1"]


def test_hosts_behind_one_address_may_differ_by_port():
    assert duplicates(data1=Address("10.0.0.21", 2222, "10.0.0.31")) == []
