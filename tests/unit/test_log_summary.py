"""A time's log in figures: what is counted as the same error, and how hosts' figures become one table."""

import json

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.log_table import log_table
from ansible_collections.agentfleet.vm.plugins.module_utils import log_lines, log_summary
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, LogError
from ansible_collections.agentfleet.vm.plugins.modules import log_lines as module

NOW = 1_800_000_000.0


def entry(text="fine", level="info", kind="agent", at=NOW, host="agent1"):
    return Entry(at, kind, level, text, host=host, kind=kind)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("job_failed job_id=17 seconds=1.25", "job_failed job_id=4711 seconds=30.0"),
        ('refused "what a user wrote"', 'refused "something else"'),
        ("turn 0f8fad5bd9cb469f failed", "turn 0f8fad5bd9cb4aaa failed"),
        ("id 7d444840-9dc0-11d1-b245-5ffdce74fad2 gone", "id 8d444840-9dc0-11d1-b245-5ffdce74fad2 gone"),
    ],
)
def test_what_differs_from_one_time_to_the_next_is_left_out(one, other):
    assert log_summary.normal(entry(one)) == log_summary.normal(entry(other))


@pytest.mark.parametrize(("one", "other"), [("deadbeef", "facade"), ("model refused", "model failed")])
def test_words_are_kept(one, other):
    assert log_summary.normal(entry(one)) != log_summary.normal(entry(other))


def test_a_request_is_about_its_path_and_status():
    text = "POST /api/chat 502 in 0.346 s, client 203.0.113.9"
    assert log_summary.normal(entry(text, kind="edge")) == "POST /api/chat 502"


def test_figures_of_hosts_become_one_table():
    one = [entry(), entry("refused 1", "error"), entry("odd", "warning"), entry("refused 2", "error", at=NOW + 3600)]
    summaries = [log_summary.count(one), log_summary.count([entry("GET / 500 in 1 s", "error", "edge", host="edge1")])]
    both = log_summary.merged(summaries)
    assert both["hosts"] == {"agent1": [4, 1, 2], "edge1": [1, 0, 1]}
    lines = log_summary.table(both, NOW - 60, NOW + 7200)
    assert lines[0] == "2027-01-15 07:59 to 2027-01-15 10:00 UTC: 5 lines, 1 warnings, 3 errors"
    assert any(line.split()[:5] == ["2027-01-15", "08:00", "4", "1", "2"] for line in lines)
    assert "level: error 3, warning 1, info 1" in lines
    assert lines[-2].split() == ["2", "2027-01-15", "09:00", "agent", "refused", "#"]
    assert lines[-1].split() == ["1", "2027-01-15", "08:00", "edge", "GET", "/", "500"]


def test_a_table_of_nothing_says_so():
    assert log_summary.table(log_summary.count([]), NOW, NOW)[-1] == "no errors"


def test_a_log_hosts_answer_is_shown_with_who_is_late():
    summary = {**log_summary.count([entry()]), "since": NOW - 60, "until": NOW}
    hostvars = {"ops1": {"__log_lines": {"summary": summary, "late": [{"host": "agent2", "at": 0.0}]}}, "edge1": {}}
    hostvars["edge1"] = {"__log_lines": {"skipped": True}}
    lines = log_table(list(hostvars), hostvars, 10)
    assert lines[0].endswith("1 lines, 0 warnings, 0 errors")
    assert lines[-1] == "agent2 has sent no line yet"
    hostvars["ops1"]["__log_lines"] = {"entries": [entry().to_dict()], "late": [{"host": "agent2", "at": NOW}]}
    lines = log_table(list(hostvars), hostvars, 10)
    assert "  agent1  " in lines[0]
    assert lines[1].startswith("agent2 sent its last line ")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({}, (NOW - 900, NOW)),
        ({"what": "summary"}, (NOW - 86400, NOW)),
        ({"store": "/x", "request_id": "order-4711"}, (0.0, NOW)),
        ({"store": "/x", "request_id": "order-4711", "since": "1h"}, (NOW - 3600, NOW)),
        ({"request_id": "order-4711"}, (NOW - 900, NOW)),
        ({"what": "summary", "day": "2027-01-14"}, (NOW - 8 * 3600 - 86400, NOW - 8 * 3600)),
        ({"what": "summary", "day": "2027-01-15"}, (NOW - 8 * 3600, NOW)),
    ],
)
def test_how_far_back_is_looked_follows_from_what_is_asked(wanted, expected):
    empty = {"what": "lines", "since": "", "day": "", "request_id": "", "store": None}
    assert module.period({**empty, **wanted}, NOW) == expected


def test_a_day_that_is_none_is_refused():
    with pytest.raises(LogError, match="write a day as 2026-01-31"):
        log_lines.day("yesterday")


@pytest.mark.parametrize(("seconds", "words"), [(5, "5 s"), (150, "2 min"), (7300, "2 h"), (200_000, "2 d")])
def test_spans_have_the_unit_that_fits(seconds, words):
    assert log_lines.ago(seconds) == words


def test_the_components_of_the_option_are_those_that_lines_have():
    from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

    options = load_known().playbooks["logs"]
    assert options["component"].choices == tuple(log_lines.COMPONENTS)
    assert options["level"].choices == log_lines.LEVELS


def test_spans_become_a_tree_with_their_hosts_and_none_says_what_has_them_written():
    text = json.dumps(
        {"event": "span", "trace_id": "t1", "span_id": "1", "name": "POST /api/chat", "milliseconds": 12.5}
        | {"timestamp": "2027-01-15T08:00:00+00:00", "attributes": {}}
    )
    hostvars = {"agent1": {"__log_lines": {"spans": [["", text]], "trace": "t1"}}}
    shown = log_table(["agent1"], hostvars, 10)
    assert shown[0] == "trace t1"
    assert "POST /api/chat" in shown[1]
    assert shown[1].endswith("on agent1")
    hostvars["agent1"]["__log_lines"]["spans"] = []
    assert log_table(["agent1"], hostvars, 10) == ["no spans of t1: AGENT_LOG_SPANS=true has them written"]
