"""Lines of the journal and of the edge's log: what is read from them, their order and their form."""

import json
import subprocess

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.log_table import log_table
from ansible_collections.agentfleet.vm.plugins.module_utils import log_lines
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, LogError
from ansible_collections.agentfleet.vm.plugins.modules import log_lines as module

NOW = 1_800_000_000.0
ACCESS = {
    "time": "2027-01-15T08:00:00+00:00",
    "request_id": "0f8fad5bd9cb469f",
    "client": "203.0.113.9",
    "method": "POST",
    "path": "/api/chat",
    "status": 502,
    "seconds": 0.3456,
    "upstream_status": "502",
}


WANTED = {"name": "agent", "what": "lines", "level": "", "component": "", "host": ""}


def journal(message, unit="agent@blue-1.service", **rest):
    return {"MESSAGE": message, "_SYSTEMD_UNIT": unit, "__REALTIME_TIMESTAMP": "1800000000123456", **rest}


@pytest.mark.parametrize(
    ("since", "expected"),
    [
        ("90s", NOW - 90),
        ("15m", NOW - 900),
        ("2 h", NOW - 7200),
        ("1d", NOW - 86400),
        ("2027-01-15 08:00", NOW),
        ("2027-01-15T09:00:00+01:00", NOW),
    ],
)
def test_since_is_a_span_or_a_moment(since, expected):
    assert log_lines.moment(since, NOW) == expected


@pytest.mark.parametrize("since", ["yesterday", "15", "m", "-5m", ""])
def test_another_since_is_refused_with_what_to_write(since):
    with pytest.raises(LogError, match="write 90s, 15m, 2h, 1d"):
        log_lines.moment(since, NOW)


@pytest.mark.parametrize("request_id", ["short", "a" * 65, "with space1", "every|thing"])
def test_what_is_no_requests_id_is_refused(request_id):
    assert log_lines.refuse_id(request_id).startswith(f"request_id={request_id}: an id is")


@pytest.mark.parametrize("request_id", ["", "0f8fad5bd9cb469f", "order-4711.a_b"])
def test_an_id_or_none_is_taken(request_id):
    assert not log_lines.refuse_id(request_id)


def test_a_line_of_the_services_is_told_in_words():
    said = {
        "event": "request",
        "level": "warning",
        "route": "/api/chat",
        "status": 503,
        "request_id": "0f8fad5bd9cb469f",
    }
    entry = log_lines.from_journal(journal(json.dumps(said)), "agent")
    text = "request route=/api/chat status=503"
    assert entry == Entry(1800000000.123456, "blue-1", "warning", text, "0f8fad5bd9cb469f", kind="agent")


def test_an_own_apps_line_is_told_as_it_is_with_the_journals_level():
    entry = log_lines.from_journal(journal("Traceback: boom", PRIORITY="3"), "agent")
    assert (entry.component, entry.level, entry.text) == ("blue-1", "error", "Traceback: boom")


@pytest.mark.parametrize("message", [None, "", [1, 2, 3]])
def test_a_record_without_text_is_no_line(message):
    assert log_lines.from_journal(journal(message), "agent") is None


@pytest.mark.parametrize(
    ("unit", "component"),
    [
        ("agent@green-2.service", "green-2"),
        ("agent-worker@green-2.service", "worker-green-2"),
        ("agent-migrate@green.service", "agent-migrate@green"),
        ("agentfleet-director.service", "director"),
        ("haproxy.service", "balancer"),
    ],
)
def test_the_unit_says_which_part_of_the_fleet_it_was(unit, component):
    assert log_lines.from_journal(journal("x", unit), "agent").component == component


def test_what_systemd_says_of_a_unit_is_the_units():
    record = journal("Main process exited", "init.scope", UNIT="agent@blue-1.service")
    assert log_lines.from_journal(record, "agent").component == "blue-1"


def test_a_request_at_the_edge_is_told_with_its_outcome_where_it_began():
    entry = log_lines.from_access(json.dumps(ACCESS))
    assert (entry.at, entry.component, entry.level) == (NOW - 0.3456, "edge", "error")
    assert entry.text == "POST /api/chat 502 in 0.346 s, client 203.0.113.9"


def test_another_answer_of_the_balancers_is_told_beside_the_edges():
    assert "the balancer answered 200" in log_lines.from_access(json.dumps({**ACCESS, "upstream_status": "200"})).text


@pytest.mark.parametrize("line", ["", "GET / 200", "{}", '{"time": 1}', json.dumps({**ACCESS, "status": "-"})])
def test_a_line_that_is_none_is_passed_over(line):
    assert log_lines.from_access(line) is None


def test_lines_of_one_moment_go_the_way_of_the_request_and_the_last_ones_stay():
    entries = [Entry(2, "blue-1", "info", "b"), Entry(2, "edge", "info", "a"), Entry(1, "edge", "info", "old")]
    assert [entry.text for entry in log_lines.in_order(entries, 2)] == ["a", "b"]


def test_the_table_has_all_hosts_lines_and_names_who_was_not_read():
    def said(text, at):
        return {"entries": [Entry(at, "edge", "info", text).to_dict()]}

    hostvars = {
        "edge1": {"__log_lines": said("second", NOW + 1)},
        "agent1": {"__log_lines": said("first", NOW)},
        "agent2": {"__log_lines": {"unreachable": True, "msg": "no route to host\nmore"}},
        "agent3": {"__log_lines": {"skipped": True}},
    }
    lines = log_table(list(hostvars), hostvars, 10)
    assert lines[0].startswith("2027-01-15 08:00:00.000  agent1  edge  info")
    assert lines[0].endswith("first")
    assert lines[1].endswith("second")
    assert lines[2:] == ["agent2 was not read: no route to host"]


def test_only_whole_lines_are_read_and_a_log_that_was_begun_anew_from_its_start(tmp_path):
    log = tmp_path / "access.log"
    log.write_text("one\ntwo\nthr")
    lines, position = module.appended(log, {})
    assert lines == ["one", "two"]
    with log.open("a") as file:
        file.write("ee\n")
    lines, position = module.appended(log, position)
    assert lines == ["three"]
    log.unlink()
    log.write_text("new\n")
    assert module.appended(log, {**position, "inode": -1})[0] == ["new"]


def test_the_access_log_is_read_back_to_the_moment_over_its_rotation(tmp_path):
    def line(number):
        return json.dumps(
            {**ACCESS, "request_id": f"request-{number:04}", "time": f"2027-01-15T08:00:{number:02}+00:00"}
        )

    (tmp_path / "access.log.1").write_text("".join(f"{line(number)}\n" for number in range(10)))
    (tmp_path / "access.log").write_text("".join(f"{line(number)}\n" for number in range(10, 20)))
    wanted = {**WANTED, "access_log": str(tmp_path / "access.log"), "request_id": "", "lines": 100}
    assert len(module.access(wanted, NOW + 6)) == 15
    assert [entry.request_id for entry in module.access({**wanted, "request_id": "request-0007"}, NOW)] == [
        "request-0007"
    ]
    assert len(module.access({**wanted, "lines": 3}, NOW)) == 3


def test_the_journal_is_read_from_its_end_and_then_from_where_that_was(monkeypatch):
    """Only so does Debian 12's journalctl give the last lines, and any one's what comes after them."""
    newest_first = [{**journal(text), "__CURSOR": f"at-{text}"} for text in ("second", "first")]
    asked = []

    def journalctl(command, **_options):
        asked.append(command)
        output = "".join(f"{json.dumps(record)}\n" for record in (newest_first if "--reverse" in command else []))
        return subprocess.CompletedProcess(command, 0, output, "")

    monkeypatch.setattr(module.subprocess, "run", journalctl)
    wanted = {**WANTED, "edge": False, "lines": 7, "request_id": "order-4711.a", "position": {}}
    entries, cursor = module.journal(wanted, NOW)
    assert ([entry.text for entry in entries], cursor) == (["first", "second"], "at-second")
    assert {"--reverse", "--lines=7", "--grep=order-4711[.]a"} <= set(asked[0])
    assert module.journal({**wanted, "position": {"cursor": cursor}}, NOW) == ([], cursor)
    assert "--after-cursor=at-second" in asked[1]
    assert not {"--reverse", "--lines=7"} & set(asked[1])
