from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding, from_dict, lines_by_host

HOSTS = ["edge1", "agent1", "agent2"]


def test_what_several_hosts_share_is_printed_once_under_the_first_of_them():
    findings = [Finding("port taken", "Stop it", host) for host in ("agent2", "agent1")]
    assert lines_by_host(findings, HOSTS) == {"agent1": ["agent1, agent2: port taken. Stop it"]}


def test_what_is_one_hosts_is_printed_under_that_host():
    findings = [Finding("no Python", "Install it", "agent2"), Finding("no disk", "Make room", "edge1")]
    assert lines_by_host(findings, HOSTS) == {
        "agent2": ["agent2: no Python. Install it"],
        "edge1": ["edge1: no disk. Make room"],
    }


def test_what_is_the_fleets_or_a_host_outside_the_play_is_printed_under_the_first():
    findings = [Finding("no edge", "Add one"), Finding("no group", "Add it", "stray")]
    assert lines_by_host(findings, HOSTS) == {"edge1": ["fleet: no edge. Add one", "stray: no group. Add it"]}


def test_four_hosts_are_listed():
    hosts = [f"agent{number}" for number in range(1, 5)]
    lines = lines_by_host([Finding("wrong", "Mend", host) for host in hosts], hosts)
    assert lines == {"agent1": ["agent1, agent2, agent3, agent4: wrong. Mend"]}


def test_many_hosts_are_counted_not_listed():
    hosts = [f"agent{number}" for number in range(1, 8)]
    lines = lines_by_host([Finding("wrong", "Mend", host) for host in hosts], hosts)
    assert lines == {"agent1": ["agent1 and 6 more hosts: wrong. Mend"]}


def test_a_finding_survives_the_way_through_a_task_result():
    finding = Finding("wrong", "Mend", "agent1")
    assert from_dict(finding.to_dict()) == finding
