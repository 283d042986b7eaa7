"""The fleet's status: document, table and what needs attention."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.host_view import operating_system
from ansible_collections.agentfleet.vm.plugins.module_utils.status import compose, problems, read_host
from ansible_collections.agentfleet.vm.plugins.module_utils.status_table import table

OLD, NEW = "agent-111111111111", "agent-222222222222"


def server(name, weight=0, ready=True):
    state, check = ("up", "L7OK 200") if ready else ("down", "L4CON Connection refused")
    return {"name": name, "weight": weight, "ready": ready, "state": state, "check": check, "sessions": 0}


def edge(*servers, **changes):
    traffic = {each["name"]: each for each in servers}
    seen = {"os": "Debian 13", "disk_free_percent": 70, "slots": None, "traffic": traffic, "release": NEW}
    return {**seen, "certificate_days": 364, "problems": [], **changes}


def agent(blue=(OLD, "running"), green=(NEW, "running"), **changes):
    slots = {
        name: {"release": release, "state": state} for name, (release, state) in (("blue", blue), ("green", green))
    }
    seen = {"os": "Debian 12", "disk_free_percent": 50, "slots": slots, "traffic": None, "release": None}
    return {**seen, "certificate_days": None, "problems": [], **changes}


def fleet(edge1, agent1=None, agent2=None):
    results = {"edge1": (["edge"], edge1), "agent1": (["agents"], agent1), "agent2": (["agents"], agent2)}
    return [read_host(name, groups, result) for name, (groups, result) in results.items() if result is not None]


def canary(new=5, ready=True):
    return edge(
        server("agent1-blue-1", 100 - new),
        server("agent1-green-1", new),
        server("agent2-blue-1", 100 - new, ready),
        server("agent2-green-1", new),
    )


def test_the_document_has_every_key_and_null_for_what_is_not_known():
    document = compose("lab", fleet(canary(0), agent(), agent()), made_at=0)
    assert list(document) == [
        "fleet",
        "state",
        "made_at",
        "made_from",
        "release",
        "traffic",
        "figures",
        "hosts",
        "lease",
        "rollout",
        "history",
        "certificate_days",
        "certificate",
        "last_backup_hours",
        "backups",
        "alerts",
    ]
    assert (document["state"], document["made_at"], document["made_from"]) == ("up", "1970-01-01T00:00:00Z", "hosts")
    assert document["figures"] is document["alerts"] is document["hosts"][1]["drift"] is None
    assert document["fleet"] == "lab"
    assert document["release"] == NEW, "what the edge noted"
    assert document["traffic"] == {OLD: 1.0}
    assert document["certificate_days"] == 364
    assert document["lease"] is document["rollout"] is document["last_backup_hours"] is document["backups"] is None
    assert document["hosts"][0] == {
        "name": "edge1",
        "groups": ["edge"],
        "reachable": True,
        "os": "Debian 13",
        "slots": None,
        "disk_free_percent": 70,
        "drift": None,
        "attention": [],
    }
    nobody = {"requests": None, "error_rate": None, "p95_seconds": None}
    running = {"state": "running", "instances": 1, "answering": 1, **nobody}
    assert document["hosts"][1]["slots"] == {
        "blue": {"release": OLD, "weight": 100, "share": 0.5, **running},
        "green": {"release": NEW, "weight": 0, "share": 0.0, **running},
    }


def test_shares_are_those_of_releases_over_all_hosts():
    assert compose("lab", fleet(canary(5), agent(), agent()))["traffic"] == {OLD: 0.95, NEW: 0.05}


def test_servers_that_are_down_answer_nothing():
    hosts = fleet(canary(50, ready=False), agent(), agent())
    assert compose("lab", hosts)["traffic"] == {OLD: 0.3333, NEW: 0.6667}
    assert compose("lab", hosts)["hosts"][2]["slots"]["blue"]["state"] == "unhealthy"
    assert problems(hosts) == {
        "agent2": "agent2-blue-1 should answer and is down (L4CON Connection refused)",
    }


def test_several_instances_of_a_slot_are_one_weight():
    hosts = fleet(edge(server("agent1-green-1", 60), server("agent1-green-2", 40)), agent())
    assert compose("lab", hosts)["hosts"][1]["slots"]["green"]["weight"] == 100


def test_before_the_first_deploy_there_is_no_release_and_no_traffic():
    empty = agent(blue=(None, "empty"), green=(None, "empty"))
    hosts = fleet(edge(server("agent1-blue-1", ready=False), release=None), empty)
    document = compose("lab", hosts)
    assert (document["release"], document["traffic"]) == (None, {})
    assert problems(hosts) == {}
    assert table("lab", hosts)[0] == "fleet lab   release none yet   no traffic"


def test_a_release_that_nobody_noted_is_the_only_one_that_answers():
    hosts = fleet(edge(server("agent1-blue-1", 100), release=None), agent())
    assert compose("lab", hosts)["release"] == OLD


def test_an_edge_that_cannot_tell_makes_traffic_unknown():
    mend = "HAProxy cannot be reached at s; start it with: systemctl restart haproxy"
    hosts = fleet(edge(traffic=None, problems=[mend]), agent())
    document = compose("lab", hosts)
    assert document["traffic"] is None
    assert document["hosts"][1]["slots"]["blue"]["weight"] is None
    assert problems(hosts) == {"edge1": mend}
    assert "traffic not known" in table("lab", hosts)[0]


@pytest.mark.parametrize(
    ("result", "reachable", "words"),
    [
        ({"unreachable": True, "msg": "no route\nmore"}, False, "cannot be reached (no route); try: ansible agent1 -m"),
        (
            {
                "unreachable": True,
                "msg": 'Task failed: Data could not be sent to remote host "10.0.0.1". Make sure this host can be'
                " reached over ssh: ssh: connect to host 10.0.0.1 port 22: No route to host",
            },
            False,
            "cannot be reached (ssh: connect to host 10.0.0.1 port 22: No route to host); try",
        ),
        ({"failed": True, "msg": "broken\ntraceback"}, True, "could not be observed: broken"),
        ({"skipped": True}, True, "it was not looked at"),
    ],
)
def test_a_host_that_says_nothing_is_a_line_all_the_same(result, reachable, words):
    hosts = fleet(canary(0), result, agent())
    document = compose("lab", hosts)
    known = document["hosts"][1]
    assert known["reachable"] is reachable
    assert known["os"] is known["slots"] is known["disk_free_percent"] is None
    [told] = [line for line in known["attention"] if words in line]
    assert "\n" not in told
    # One host down is a row, not an error; one that is there and fails is one.
    assert ("agent1" in problems(hosts)) is reachable
    assert any(words in row for row in table("lab", hosts)) is not reachable
    line = next(line for line in table("lab", hosts) if line.startswith("agent1"))
    assert ("unreachable" in line) is not reachable
    # Its instances answer as far as HAProxy sees; whose they are is not known.
    assert document["traffic"] == {OLD: 0.5, "unknown": 0.5}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certificate_days": 6}, "its certificate ends in 6 days"),
        ({"certificate_days": 7}, None),
        ({"certificate": {"days": 60, "issuer": "R11", "problem": "A cannot be reached"}}, "no new certificate: A"),
        ({"certificate": {"days": 60, "issuer": "R11", "problem": "", "since": None}}, None),
        ({"disk_free_percent": 9}, "9 % of a disk is free"),
        ({"disk_free_percent": 10}, None),
    ],
)
def test_what_runs_out_needs_attention(changes, words):
    found = problems(fleet(edge(**changes)))
    assert words in found["edge1"] if words else found == {}


def test_the_certificate_that_ends_first_is_the_documents():
    def shown(days, issuer):
        return edge(certificate_days=days, certificate={"days": days, "issuer": issuer, "problem": "", "since": None})

    results = {"edge1": shown(80, "R11"), "edge2": shown(10, "R10")}
    hosts = [read_host(name, ["edge"], result) for name, result in results.items()]
    document = compose("lab", hosts)
    assert (document["certificate_days"], document["certificate"]["issuer"]) == (10, "R10")
    assert [line.rpartition("  ")[2] for line in table("lab", hosts)[3:]] == ["80 days (R11)", "10 days (R10)"]


def test_the_table_is_what_people_read():
    assert table("lab", fleet(canary(5), agent(), agent(blue=(OLD, "failed")))) == [
        f"fleet lab   release {NEW}   traffic 95 % {OLD}, 5 % {NEW}",
        "",
        "host    groups  os         slot   release             state    traffic  disk free  certificate",
        "edge1   edge    Debian 13                                               70 %       364 days",
        f"agent1  agents  Debian 12  blue   {OLD}  running  47.5 %   50 %",
        f"                           green  {NEW}  running  2.5 %",
        f"agent2  agents  Debian 12  blue   {OLD}  failed   47.5 %   50 %",
        f"                           green  {NEW}  running  2.5 %",
    ]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('NAME="Debian GNU/Linux"\nVERSION_ID="13"\nID=debian\n', "Debian 13"),
        ("NAME=Arch\n", "Arch"),
        ("", "unknown"),
    ],
)
def test_operating_systems_by_name_and_version(text, name):
    assert operating_system(text) == name


def test_server_whose_check_is_under_way_still_serves():
    """HAProxy tells no code while it checks; the server gets users all the same."""
    checking = {**server("agent1-blue-1", 100), "ready": False, "check": "L7OK 0"}
    hosts = fleet(edge(checking), agent())
    assert compose("lab", hosts)["traffic"] == {OLD: 1.0}
    assert problems(hosts) == {}


def figures(**slots):
    everything = {"requests": 300, "error_rate": 0.01, "p95_seconds": 0.12}
    return {"seconds": 300, **everything, "slots": slots}


def test_figures_are_those_of_the_slot_that_users_reached():
    blue = {"requests": 290, "error_rate": 0.0, "p95_seconds": 0.1}
    hosts = fleet(canary(5) | {"figures": figures(**{"agent1-blue": blue})}, agent(), agent())
    document = compose("lab", hosts)
    assert document["figures"] == {"seconds": 300, "requests": 300, "error_rate": 0.01, "p95_seconds": 0.12}
    slots = document["hosts"][1]["slots"]
    assert {name: slots["blue"][name] for name in blue} == blue
    assert slots["green"]["requests"] is None
    lines = table("lab", hosts)
    assert lines[1] == "users  300 requests in 5 min, 1 % failed, p95 120 ms"
    [row] = [line.split() for line in lines if line.startswith("agent1")]
    assert row[-5:] == ["%", "100", "ms", "50", "%"]


@pytest.mark.parametrize(
    ("seen", "state"),
    [
        (canary(5), "up"),
        (canary(5, ready=False), "degraded"),
        (canary(5) | {"figures": {**figures(), "error_rate": 0.05}}, "degraded"),
        (canary(5) | {"figures": {**figures(), "error_rate": 1.0, "requests": 19}}, "up"),
        (canary(5) | {"maintenance": True}, "maintenance"),
        (edge(server("agent1-blue-1", 100, ready=False)), "down"),
        (edge(server("agent1-blue-1", 0)), "down"),
        (edge(traffic=None), None),
    ],
)
def test_a_word_for_what_users_have_of_it(seen, state):
    assert compose("lab", fleet(seen, agent(), agent()))["state"] == state


def test_of_a_silent_host_the_director_knows_the_release():
    placed = {"agent1-blue": OLD, "agent1-green": NEW}
    hosts = fleet(canary(0) | {"placed": placed}, {"unreachable": True, "msg": "away"}, agent())
    assert compose("lab", hosts)["traffic"] == {OLD: 1.0}


def test_without_the_edge_a_status_says_too_little_to_be_one():
    hosts = fleet({"unreachable": True, "msg": "away"}, agent(), agent())
    assert list(problems(hosts)) == ["edge1"]
    assert compose("lab", hosts)["state"] is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"drift": []}, None),
        ({"drift": ["blue: its variables or credentials were changed by hand"]}, "changed by hand"),
        ({"drift": [], "blue": (OLD, "running"), "green": (OLD, "running")}, f"it lacks the current release {NEW}"),
        ({"drift": [], "host_generation": 8}, "lease 8 wrote here, and the edge knows of 7 at most"),
        ({"drift": [], "host_generation": 7}, None),
        ({"drift": None}, None),
    ],
)
def test_what_is_not_as_it_was_left(changes, words):
    hosts = fleet(canary(0) | {"generation": 7}, agent(**changes), agent())
    found = compose("lab", hosts)["hosts"][1]["drift"]
    assert (words in found[0]) if words else not found
    assert any(line.startswith("  agent1: drift: ") for line in table("lab", hosts)) is bool(words)
    assert problems(hosts) == {}


def test_alerts_are_lines():
    alert = {"severity": "page", "name": "InstanceDown", "host": "agent1", "since": "", "summary": "It is away."}
    hosts = fleet(canary(0) | {"alerts": [alert]}, agent(), agent())
    assert compose("lab", hosts)["alerts"] == [alert]
    assert "alert  page  InstanceDown  agent1  It is away." in table("lab", hosts)
