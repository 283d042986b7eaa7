"""The routine: what it makes of what it sees, when a part is due, and the report of all hosts."""

import http.server
import json
import threading

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.routine import command, judge
from ansible_collections.agentfleet.vm.plugins.module_utils.routine.judge import NOTICE, OK, PROBLEM, UNKNOWN
from ansible_collections.agentfleet.vm.plugins.module_utils.routine.report import report

NOW = 1_800_000_000.0
DAY = 86400


@pytest.mark.parametrize(
    ("finding", "level", "words"),
    [
        (judge.disks([{"path": "/", "used": 79, "inodes": 3}]), OK, "79 % of the space on /"),
        (judge.disks([{"path": "/", "used": 80, "inodes": None}]), NOTICE, "80 %"),
        (
            judge.disks([{"path": "/", "used": 9, "inodes": 95}, {"path": "/var", "used": 90, "inodes": 1}]),
            PROBLEM,
            "files on /",
        ),
        (judge.disks([]), UNKNOWN, "no file system"),
        (judge.memory(9), PROBLEM, "9 % is free"),
        (judge.memory(10), OK, "10 %"),
        (judge.units(["a.service", "b.service"]), PROBLEM, "a.service, b.service"),
        (judge.units([]), OK, "none"),
        (judge.clock(False), PROBLEM, "not set"),
        (judge.clock(None), OK, "container"),
        (judge.drift("agent", ["blue is damaged"]), NOTICE, "blue is damaged"),
        (judge.certificate("agent", 6), PROBLEM, "6 days"),
        (judge.certificate("agent", 20), NOTICE, "20 days"),
        (judge.certificate("agent", 21), OK, "21 days"),
        (judge.certificate("agent", None), UNKNOWN, "none"),
        (judge.backups(["the drill failed"], ""), PROBLEM, "the drill failed"),
        (judge.backups([], ""), OK, "none yet"),
        (judge.verified(1, ["a", "b is damaged"]), PROBLEM, "b is damaged"),
        (judge.verified(0, ["all held"]), OK, "all held"),
        (judge.analyze("success", NOW - 2 * DAY, NOW), OK, "2 days ago"),
        (judge.analyze("success", NOW - 9 * DAY, NOW), NOTICE, "9 days ago"),
        (judge.analyze("exit-code", NOW, NOW), PROBLEM, "exit-code"),
        (judge.analyze("success", None, NOW), NOTICE, "has not run"),
    ],
)
def test_each_check_has_a_limit_and_says_what_it_saw(finding, level, words):
    assert finding.level == level
    assert words in finding.text
    assert finding.mend or level in (OK, UNKNOWN) or finding.check == "backups"


def test_an_instance_that_is_ill_is_named():
    well = {"name": "blue-1", "state": "active", "health": "ok"}
    ill = {"name": "blue-2", "state": "active", "health": "503: no"}
    stopped = {"name": "green-1", "state": "inactive", "health": None}
    assert judge.instances("agent", [well, stopped]).text == "1 running"
    found = judge.instances("agent", [well, ill])
    assert (found.level, found.text) == (PROBLEM, "blue-2: 503: no")


LOG = """\
10:00:00 UTC LOG:  duration: 1500.5 ms  statement: SELECT * FROM t WHERE name = 'Ana''s' AND id = 7
10:01:00 UTC LOG:  duration: 2500.0 ms  statement: SELECT * FROM t WHERE name = 'Bob' AND id = 8
10:02:00 UTC LOG:  duration: 1100.0 ms  execute <unnamed>: UPDATE t SET n = $1
10:02:00 UTC LOG:  checkpoint complete
"""


def test_slow_queries_are_summed_without_what_users_wrote():
    first, second = judge.slow(judge.slow_statements(LOG.splitlines()))
    assert first.text == "2 times, 4.0 s together, 2.5 s at most: SELECT * FROM t WHERE name = ? AND id = ?"
    assert "UPDATE t SET n = $1" in second.text.replace("$?", "$1")
    assert judge.slow({})[0].level == OK


APT = """\
Inst openssl [3.0.1] (3.0.2 Debian-Security:12/stable-security [amd64])
Inst tzdata [2026a] (2026b Debian:12.14/stable [all])
Conf openssl (3.0.2 Debian-Security:12/stable-security [amd64])
"""


@pytest.mark.parametrize(
    ("said", "reboot", "levels"),
    [
        ("", False, [OK]),
        (APT, False, [PROBLEM]),
        (APT.splitlines()[1], False, [NOTICE]),
        ("", True, [OK, NOTICE]),
    ],
)
def test_an_update_for_security_is_a_problem(said, reboot, levels):
    assert [one.level for one in judge.updates(said, reboot)] == levels


def test_updates_are_counted_and_those_for_security_named():
    assert judge.updates(APT, False)[0].text == "2 packages, of which 1 for security: openssl"


@pytest.mark.parametrize(
    ("projected", "before", "level"), [("3.1", "2.0", NOTICE), ("3.0", "2.0", OK), ("0.9", "0.1", OK), (None, "1", OK)]
)
def test_a_month_that_becomes_much_dearer_is_told(projected, before, level):
    now = {"spent_usd": "1.5", "projected_usd": projected}
    assert judge.costs("agent", now, {"spent_usd": before, "projected_usd": before}).level == level


LOCK = "idna==3.7 \\\n    --hash=sha256:00\nhttpx[http2]==0.27.0 ; python_version > '3'\n# comment==1\n"


def test_a_lock_names_packages_and_versions():
    assert judge.pinned(LOCK) == [("idna", "3.7"), ("httpx", "0.27.0")]


ASKED = []


class Advisories(http.server.BaseHTTPRequestHandler):
    """Answers as OSV does."""

    def do_POST(self):
        queries = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["queries"]
        ASKED.append((self.path, queries))
        bad = [{"vulns": [{"id": "GHSA-1"}]} if one["package"]["name"] == "idna" else {} for one in queries]
        body = json.dumps({"results": bad}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def source():
    server = http.server.HTTPServer(("127.0.0.1", 0), Advisories)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_known_holes_are_told_by_package(source):
    packages = judge.pinned(LOCK)
    found = judge.holes("agent", packages, command.advisories(source, packages))
    assert (found.level, found.text) == (PROBLEM, "known holes: idna 3.7 (GHSA-1)")
    path, queries = ASKED[-1]
    assert path == "/v1/querybatch"
    assert queries[1] == {"package": {"name": "httpx", "ecosystem": "PyPI"}, "version": "0.27.0"}
    assert judge.holes("agent", packages, [{}, {}]).level == OK


def release(tmp_path, monkeypatch):
    directory = tmp_path / "slots/blue/release"
    directory.mkdir(parents=True)
    (directory / "requirements.txt").write_text(LOCK)
    monkeypatch.setattr(command, "service_of", lambda wanted: command.Service(wanted["service"], tmp_path))


@pytest.mark.parametrize(("source", "words"), [("http://127.0.0.1:9", "cannot be reached"), ("", "nobody is asked")])
def test_without_its_source_it_says_so(tmp_path, monkeypatch, source, words):
    release(tmp_path, monkeypatch)
    [found] = command.look_at_dependencies({"service": "agent", "advisories": source})
    assert (found.level, words in found.text) == (UNKNOWN, True)


@pytest.mark.parametrize(
    ("ages", "wanted"),
    [
        ({}, ["daily", "weekly", "monthly"]),
        ({"daily": 1, "weekly": 6, "monthly": 29}, ["daily"]),
        ({"daily": 1, "weekly": 7, "monthly": 29}, ["daily", "weekly"]),
        ({"daily": 0, "weekly": 1, "monthly": 30}, ["daily", "monthly"]),
    ],
)
def test_a_part_is_due_when_its_time_is_over(ages, wanted):
    known = {name: {"at": NOW - days * DAY} for name, days in ages.items()}
    assert command.due(known, NOW) == wanted


def test_what_cannot_be_looked_at_is_a_finding_and_keeps_no_other_away(monkeypatch):
    def look_at_nothing(_wanted):
        raise OSError("gone")

    checks = {"daily": (("", look_at_nothing), ("edge", lambda wanted: [judge.certificate(wanted["service"], 5)]))}
    monkeypatch.setattr(command, "CHECKS", checks)
    services = [{"service": name, "parts": ["edge"]} for name in ("agent", "shop")]
    found = command.carry_out("daily", services)["findings"]
    assert [(one["check"], one["level"]) for one in found] == [
        ("nothing", UNKNOWN),
        ("agent: certificate", PROBLEM),
        ("shop: certificate", PROBLEM),
    ]


def found(level, check="disk", text="95 % of the space on / is taken"):
    return {"check": check, "level": level, "text": text, "mend": "df -h"}


def test_figures_are_what_prometheus_reads():
    drift = found(NOTICE, "agent: drift", 'blue: "a" \\ b')
    known = {"daily": {"at": NOW, "findings": [found(PROBLEM), found(OK), drift]}}
    lines = command.figures(known).splitlines()
    assert 'agentfleet_routine_timestamp_seconds{routine="daily"} 1800000000' in lines
    assert 'agentfleet_routine_findings{routine="daily",level="problem"} 1' in lines
    assert 'agentfleet_routine_drift{what="blue: \\"a\\" \\\\ b"} 1' in lines
    clean = command.figures({"daily": {"at": NOW, "findings": [found(OK, "agent: drift")]}})
    assert 'agentfleet_routine_drift{what=""} 0' in clean.splitlines()


def test_the_report_has_the_worst_first_and_a_host_that_is_away_as_a_row():
    daily = {"at": NOW, "findings": [found(OK), found(NOTICE, "updates", "2 packages"), found(PROBLEM)]}
    results = {
        "edge1": {"routines": {"daily": {"at": NOW, "findings": [found(OK)]}}},
        "agent1": {"routines": {"daily": daily}},
        "data1": {"unreachable": True, "msg": "no route\nmore"},
    }
    told = report(results, "daily")
    assert told["lines"] == [
        "host    part   when (UTC)           came to",
        "edge1   daily  2027-01-15 08:00:00  1 ok",
        "agent1  daily  2027-01-15 08:00:00  1 problem, 1 notice, 1 ok",
        "data1                               not asked: no route",
        "",
        "problem  agent1: disk: 95 % of the space on / is taken; df -h",
        "notice   agent1: updates: 2 packages; df -h",
    ]
    assert told["problems"] == {"agent1": "the routine found: disk"}
    assert told["document"]["data1"] is None
    assert "has not run yet" in report(results)["lines"][2]
