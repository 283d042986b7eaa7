"""What counts as failed, slow or overdue, from what HAProxy says of each request."""

import json

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Figures, Overdue, Request, parse
from hypothesis import given
from hypothesis import strategies as st


def line(**changes):
    raw = {
        "backend": "agent",
        "server": "agent1-blue-1",
        "status": 200,
        "first": 120,
        "total": 300,
        "end": "----",
        "probe": "-",
        "provider": "-",
    }
    return json.dumps(raw | changes).encode()


def test_a_request_as_haproxy_logs_it():
    assert parse(b"<134>" + line(probe="1"), 5.0) == Request(
        5.0, "agent/agent1-blue-1", 200, 0.12, 0.3, "", probe=True, provider=False
    )


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"server": "a"}', line(server="<NOSRV>"), line(status="x")])
def test_what_is_no_request_of_a_server_is_nothing(text):
    assert parse(text, 1.0) is None


@given(st.binary(max_size=200))
def test_nothing_that_arrives_ends_the_director(text):
    parse(text, 1.0)


@pytest.mark.parametrize(
    ("changes", "failed"),
    [
        ({}, False),
        ({"status": 404}, False),
        ({"status": 429}, False),
        ({"status": 500}, True),
        ({"status": 503, "end": "sC--"}, True),
        ({"status": -1, "first": -1, "end": "SH--"}, True),
        ({"end": "SD--"}, True),
        ({"end": "cD--"}, False),
        ({"end": "CD--"}, False),
        ({"status": 400, "first": -1, "end": "CR--"}, False),
        ({"status": 502, "provider": "1"}, False),
    ],
)
def test_whose_fault_it_is(changes, failed):
    assert parse(line(**changes), 1.0).failed is failed


def test_a_summary_counts_its_servers_since_its_moment():
    figures = Figures()
    for at, changes in (
        (1.0, {"status": 500}),
        (2.0, {"first": 100}),
        (3.0, {"first": 900}),
        (4.0, {"status": 500, "first": 50}),
        (5.0, {"status": 502, "provider": "1", "first": 10}),
        (6.0, {"probe": "1", "first": 200}),
        (7.0, {"first": -1, "status": -1, "end": "CH--"}),
        (8.0, {"server": "agent1-green-1", "status": 500}),
    ):
        figures.add(parse(line(**changes), at))
    summary = figures.summary(["agent/agent1-blue-1"], 2.0, overdue=1)
    assert (summary.answered, summary.failed, summary.provider, summary.probes) == (5, 1, 1, 1)
    assert (summary.sample, summary.error_rate) == (6, 2 / 6)
    assert (summary.p50, summary.p95) == (0.1, 0.9)


def test_figures_by_slot_are_those_of_all_instances_of_it():
    figures = Figures()
    for at, changes in (
        (1.0, {"status": 500}),
        (3.0, {"first": 100}),
        (4.0, {"server": "agent1-blue-2", "first": 300, "status": 500}),
        (5.0, {"server": "agent2-green-1", "first": 200}),
        (6.0, {"backend": "shop"}),
    ):
        figures.add(parse(line(**changes), at))
    found = figures.grouped(2.0, lambda server: server.rpartition("-")[0] if server.startswith("agent/") else "")
    assert {name: one.numbers() for name, one in found.items()} == {
        "agent/agent1-blue": {"requests": 2, "error_rate": 0.5, "p95_seconds": 0.3},
        "agent/agent2-green": {"requests": 1, "error_rate": 0.0, "p95_seconds": 0.2},
        "": {"requests": 3, "error_rate": 1 / 3, "p95_seconds": 0.3},
    }
    assert Figures().grouped(0.0, str)[""].numbers() == {"requests": 0, "error_rate": None, "p95_seconds": None}


def test_old_requests_are_forgotten():
    figures = Figures()
    figures.add(parse(line(), 0.0))
    figures.add(parse(line(), 5000.0))
    assert len(figures.requests) == 1


def test_requests_that_get_no_answer_are_overdue_once_their_time_is_up():
    overdue = Overdue(seconds=10)
    overdue.read(0, {"new": (7, 5)})
    overdue.read(5, {"new": (12, 8)})
    assert overdue.of(["new"]) == 0, "nothing is ten seconds old"
    overdue.read(15, {"new": (14, 9)})
    # 12 were given by second 5, 9 have an outcome, and 2 lacked one before this began.
    assert overdue.of(["new"]) == 1
    overdue.read(16, {"new": (14, 14)})
    assert overdue.of(["new"]) == 0


def test_counters_that_begin_anew_are_a_haproxy_that_was_restarted():
    overdue = Overdue(seconds=1)
    overdue.read(0, {"new": (50, 40)})
    overdue.read(2, {"new": (3, 3)})
    assert overdue.of(["new"]) == 0
