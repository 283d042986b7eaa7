"""A request's tree from lines of the log."""

import json

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import span_tree

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
REQUEST = "0f8fad5bd9cb469f"


def line(span, parent, name, end, milliseconds, trace=TRACE, **more):
    """What the service writes when a span ends, END milliseconds after noon."""
    return json.dumps(
        {
            "timestamp": f"2026-01-31T12:00:00.{end:03d}000Z",
            "level": "info",
            "logger": "agent_service.spans",
            "event": "span",
            "trace_id": trace,
            "span_id": span,
            "parent_id": parent,
            "name": name,
            "milliseconds": milliseconds,
            "failed": False,
            "attributes": {},
            **more,
        }
    )


CHAT = [
    line("c", "b", "load history", 110, 5.0),
    line("d", "b", "route", 118, 8.0, attributes={"agent.route.by": "rules", "gen_ai.agent.name": "financial"}),
    line("f", "e", "execute_tool margin", 210, 3.5, failed=True, attributes={"error.type": "TimeoutError"}),
    line("e", "b", "chat deepseek-v4-flash", 320, 200.0, attributes={"gen_ai.usage.input_tokens": 42}),
    line("b", "a", "invoke_agent financial", 330, 228.0),
    line(
        *("a", None, "POST /api/chat", 334, 234.2),
        attributes={"http.response.status_code": 200, "agent.request_id": REQUEST},
    ),
]
TREE = [
    f"trace {TRACE}, request {REQUEST}",
    "  POST /api/chat                                     234.2 ms  +0  status_code=200",
    "    invoke_agent financial                           228.0 ms  +2",
    "      load history                                     5.0 ms  +5",
    "      route                                            8.0 ms  +10  by=rules  name=financial",
    "      chat deepseek-v4-flash                         200.0 ms  +20  input_tokens=42",
    "        execute_tool margin                            3.5 ms  +107  FAILED TimeoutError",
]


@pytest.mark.parametrize("wanted", [TRACE, REQUEST])
@pytest.mark.parametrize("lines", [CHAT, CHAT[::-1], CHAT + CHAT], ids=["as written", "backwards", "read twice"])
def test_a_tree_shows_who_called_whom_when_and_for_how_long(lines, wanted):
    assert span_tree.show(lines, wanted) == TREE


def test_what_follows_on_another_host_is_in_the_same_tree():
    job = line("j", "a", "process analyze", 900, 500.0, attributes={"agent.job.outcome": "done"})
    lines = [("agent1", text) for text in CHAT] + [("agent2", job)]
    assert span_tree.show(lines, REQUEST)[-1] == (
        "    process analyze                                  500.0 ms  +300  outcome=done"
    )


def test_a_span_whose_parent_was_not_read_is_at_the_top_with_its_host():
    shown = span_tree.show([("agent2", CHAT[0]), ("agent1", CHAT[-1])], TRACE)
    assert shown[1:] == [
        "  POST /api/chat                                     234.2 ms  +0  status_code=200  on agent1",
        "  load history                                         5.0 ms  +5  on agent2",
    ]


def test_a_request_id_that_was_used_twice_has_two_trees():
    again = line("z", None, "POST /api/chat", 999, 1.0, trace="f" * 32, attributes={"agent.request_id": REQUEST})
    shown = span_tree.show([*CHAT, again], REQUEST)
    assert [row for row in shown if row.startswith("trace ")] == [
        f"trace {TRACE}, request {REQUEST}",
        f"trace {'f' * 32}, request {REQUEST}",
    ]
    assert shown[7] == ""


@pytest.mark.parametrize("wanted", ["", "e" * 32, "another-request"])
def test_what_is_not_there_has_no_tree(wanted):
    assert span_tree.show(CHAT, wanted) == []


def test_other_lines_and_broken_ones_are_passed_over():
    other = ["", "plain words", "[1]", "null", '{"event": "turn"}', '{"event": "span"}', CHAT[0][:-9]]
    late = [line("x", "a", "odd", 1, "soon"), line("y", "a", "odd", 1, 1.0, timestamp="yesterday")]
    assert span_tree.show([*other, *CHAT, *late], TRACE) == TREE


def test_spans_that_name_each_other_as_parents_end():
    assert span_tree.show([line("a", "b", "one", 1, 1.0), line("b", "a", "other", 2, 1.0)], TRACE) == []
