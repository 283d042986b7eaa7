"""The load that proves deploys: whatever goes wrong, its account says so."""

from __future__ import annotations

import math
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from support.bad_server import HELD, BadServer
from support.load import REQUEST, SOCKET, STREAM, Count, Load, Record
from support.load.records import count, percentile, problems, window_of

COUNTS = ("failed", "refused", "cut", "stalled", "duplicated", "lost")


@pytest.fixture(scope="module")
def server() -> Iterator[BadServer]:
    with BadServer() as server:
        yield server


def load(server: BadServer, path: str = "/answer", rate: float = 100, **options: Any) -> Load:
    """A load of what one test needs; nothing it waits for takes long unless it is not coming."""
    address = f"http://127.0.0.1:{server.port}"
    return Load(
        address, "site.test", None, "key", rate, path=path, **{"lasting": (0.1, 0.1), "seen": server.look, **options}
    )


def run(server: BadServer, questions: int, path: str, **options: Any) -> Load:
    """A load that lasts until the server was asked so often."""
    before = len(server.seen)
    with load(server, path, **options) as made:
        server.wait_for(before + questions)
    return made


def bad(made: Load, kind: str | None = None) -> set[str]:
    """Which of the counts rose."""
    counted = made.count(kind=kind)
    return {name for name in COUNTS if getattr(counted, name)}


def test_answers_are_counted_and_nothing_else(server: BadServer) -> None:
    made = run(server, 20, "/answer")
    counted = made.count()
    assert counted.sent == counted.answered == made.sent == len(server.look(made.name)) >= 20
    assert (bad(made), made.failures) == (set(), [])
    assert all(record.seconds > 0 for record in made.records)


@pytest.mark.parametrize("way", ["fail", "cut", "stall"])
@pytest.mark.parametrize("kind", [REQUEST, STREAM])
def test_each_way_to_go_wrong_has_its_count(server: BadServer, way: str, kind: str) -> None:
    expected = {"fail": "failed", "cut": "cut", "stall": "stalled"}[way]
    options = {"rate": 0, "streams": 3} if kind == STREAM else {}
    made = run(server, 3, f"/{way}", stall=0.3, **options)
    assert bad(made, kind) == {expected}
    assert made.count().sent == getattr(made.count(), expected) == len(made.failures)


def test_failure_says_what_the_service_said(server: BadServer) -> None:
    assert "500: no chance" in run(server, 1, "/fail").failures[0]


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = BadServer()
        nobody.port = taken.getsockname()[1]
    nobody.seen = []
    with load(nobody, rate=1000, streams=1, sockets=1) as made:
        made.wait_for(20)
    for kind in (REQUEST, STREAM, SOCKET):
        assert bad(made, kind) == {"refused"}
    assert made.count().refused == made.sent


def test_what_was_done_twice_is_counted(server: BadServer) -> None:
    made = run(server, 6, "/twice")
    assert bad(made) == {"duplicated"}
    assert made.count().duplicated == made.count().answered == len(made.failures)


def test_duplicates_looked_for_in_the_wrong_place_are_no_proof(server: BadServer) -> None:
    made = run(server, 3, "/answer", seen=lambda prefix: [])
    assert bad(made) == {"lost"}
    assert made.count().lost == made.sent == len(made.failures)


@pytest.mark.parametrize(("way", "expected"), [("short", "cut"), ("more", "failed"), ("error", "failed")])
def test_stream_is_whole_with_one_done(server: BadServer, way: str, expected: str) -> None:
    made = run(server, 2, f"/{way}", rate=0, streams=2)
    assert bad(made) == {expected}
    assert made.count(kind=STREAM).sent == made.sent


def test_streams_that_are_whole(server: BadServer) -> None:
    made = run(server, 10, "/answer", rate=0, streams=2)
    assert made.count(kind=STREAM).answered == made.sent >= 10
    assert made.failures == []


def test_sockets_that_are_whole(server: BadServer) -> None:
    with load(server, rate=0, sockets=2, socket_path="/answer", lasting=(1.2, 1.2)) as made:
        made.wait_for(2)
    assert made.count(kind=SOCKET).answered == made.sent >= 2
    assert made.failures == []
    # Asked once a second.
    assert server.seen.count(made.records[0].identity) == 2


@pytest.mark.parametrize(
    ("way", "expected"), [("fail", "failed"), ("cut", "cut"), ("stall", "stalled"), ("twice", "failed")]
)
def test_sockets_that_are_not(server: BadServer, way: str, expected: str) -> None:
    with load(server, rate=0, sockets=2, socket_path=f"/{way}", stall=0.3, seen=None) as made:
        made.wait_for(2)
    assert bad(made) == {expected}
    assert made.count(kind=SOCKET).sent == made.sent


def test_requests_leave_whether_or_not_earlier_ones_came_back() -> None:
    """The server answers nobody before the tenth has asked."""
    with BadServer() as server:
        made = run(server, HELD, "/hold", rate=50)
    assert made.failures == []
    # The first waited for nine more to leave, a fiftieth of a second apart.
    first = min(made.records, key=lambda record: record.due)
    assert first.seconds >= (HELD - 1) / 50


def test_connections_are_kept() -> None:
    with BadServer() as server:
        made = run(server, 50, "/answer", rate=50)
        assert made.sent >= 50
        assert server.connections < 25


def test_kept_connection_that_was_closed_is_not_used_again() -> None:
    with BadServer() as server:
        made = run(server, 20, "/close", rate=50)
        assert server.connections == made.sent
    assert made.failures == []


def test_longer_way_takes_longer_and_changes_nothing(server: BadServer) -> None:
    made = run(server, 20, "/answer", round_trip=0.05, streams=2, sockets=1, socket_path="/answer")
    assert made.failures == []
    assert all(record.seconds >= 0.05 for record in made.records)
    # The first has to make its connection.
    assert min(made.of(kind=REQUEST), key=lambda record: record.due).seconds >= 0.1


@pytest.mark.parametrize("way", ["fail", "cut", "stall"])
def test_longer_way_hides_nothing(server: BadServer, way: str) -> None:
    expected = {"fail": "failed", "cut": "cut", "stall": "stalled"}[way]
    assert bad(run(server, 3, f"/{way}", round_trip=0.02, stall=0.5)) == {expected}


def test_longer_way_to_nobody_is_no_connection() -> None:
    """Over a delay the refusal comes as a reset: without TLS that is the end of what had begun."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = BadServer()
        nobody.port = taken.getsockname()[1]
    nobody.seen = []
    with load(nobody, round_trip=0.02) as made:
        made.wait_for(3)
    assert bad(made) <= {"cut", "refused"}
    assert made.count().answered == 0


def test_windows_part_the_account(server: BadServer) -> None:
    with load(server) as made:
        server.wait_for(len(server.seen) + 5)
        made.mark("during")
        server.wait_for(len(server.seen) + 5)
        made.mark("after")
        server.wait_for(len(server.seen) + 5)
    parts = [made.count(window) for window in ("before", "during", "after")]
    assert all(part.answered >= 4 for part in parts)
    assert sum(part.sent for part in parts) == made.sent
    assert made.percentile(1, "during") == max(record.seconds for record in made.of("during"))


def test_test_that_fails_does_not_wait_for_the_load(server: BadServer) -> None:
    def fail() -> None:
        with load(server, "/stall", stall=3600):
            server.wait_for(len(server.seen) + 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()


def test_mistake_in_the_load_is_not_swallowed(server: BadServer) -> None:
    with pytest.raises(BaseExceptionGroup), load(server, path="no path") as made:
        made.wait_for(1)


def test_account_of_records() -> None:
    records = [
        Record(REQUEST, "a", 0.0, "answered", 0.1, 0.1),
        Record(REQUEST, "b", 1.0, "cut", 0.2, 1.2, "reset"),
        Record(STREAM, "c", 0.5, "answered", 0.3, 20.5),
    ]
    assert count(records) == Count(3, 2, 0, 0, 1, 0, 0, 0)
    assert count(records, {"a": 2, "b": 1}) == Count(3, 2, 0, 0, 1, 0, 1, 1)
    lines = problems(records, {"a": 2, "b": 1})
    assert [line.split()[1] for line in lines] == ["a", "c", "b"]
    assert "done 2 times" in lines[0]
    assert "reset" in lines[2]


@pytest.mark.parametrize(
    ("kind", "outcome", "at"),
    [
        (REQUEST, "answered", 1),
        (REQUEST, "stalled", 1),
        (STREAM, "answered", 1),
        (STREAM, "cut", 9),
        (SOCKET, "cut", 9),
    ],
)
def test_what_lasts_and_breaks_counts_for_when_it_broke(kind: str, outcome: str, at: float) -> None:
    assert Record(kind, "a", 1.0, outcome, 0.5, 9.0).at == at


def test_windows_and_percentiles() -> None:
    marks = [(0.0, "before"), (2.0, "during"), (5.0, "after")]
    assert [window_of(due, marks) for due in (0.0, 1.9, 2.0, 7.0)] == ["before", "before", "during", "after"]
    values = [float(number) for number in range(1, 101)]
    assert [percentile(values, share) for share in (0.5, 0.99, 1)] == [50, 99, 100]
    assert percentile([7.0], 0.99) == 7
    assert math.isnan(percentile([], 0.5))
