"""Rows as they were counted, and as they are found."""

from __future__ import annotations

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import manifest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.manifest import Manifest, differences, still
from hypothesis import given
from hypothesis import strategies as some

TABLES = {"agent": {"public.messages": 20, "public.users": 3}, "postgres": {}}
EXACT = Manifest("backup-x.0", 1.0, True, TABLES, {})

tables = some.dictionaries(
    some.sampled_from(["a", "b", "c"]), some.dictionaries(some.sampled_from("xyz"), some.integers(0, 9))
)


@given(tables)
def test_what_is_as_it_was_does_not_differ(counts: dict[str, dict[str, int]]) -> None:
    assert differences(Manifest("p", 0.0, True, counts, {}), counts) == []


@given(tables, some.integers(1, 5))
def test_a_row_too_few_is_found(counts: dict[str, dict[str, int]], fewer: int) -> None:
    for database, every in counts.items():
        for table in every:
            found = {name: dict(of) for name, of in counts.items()}
            found[database][table] -= fewer
            assert len(differences(Manifest("p", 0.0, True, counts, {}), found)) == 1


def test_what_is_gone_is_named() -> None:
    assert differences(EXACT, {"postgres": {}}) == ["database agent is not there"]
    lines = differences(EXACT, {"agent": {"public.messages": 20}, "postgres": {}})
    assert lines == ["agent: table public.users is not there, which had 3 rows"]


def test_what_was_being_written_may_differ_by_so_much() -> None:
    moving = Manifest("p", 0.0, False, TABLES, {"agent": {"public.messages": 5}})
    found = {"agent": {"public.messages": 25, "public.users": 3}, "postgres": {}}
    assert differences(moving, found) == []
    found["agent"]["public.messages"] = 26
    assert differences(moving, found) == ["agent: public.messages has 26 rows and had 20"]
    found = {"agent": {"public.messages": 20, "public.users": 4}, "postgres": {}}
    assert differences(moving, found) == ["agent: public.users has 4 rows and had 3"]


@pytest.mark.parametrize(
    ("earlier", "snapshot", "later", "quiet"),
    [
        (699, "700:700:", 700, True),
        # Another began before the point: it may be in the log and is not in the snapshot.
        (699, "700:700:", 701, False),
        (699, "699:701:699", 700, False),
        (699, "700:701:", 701, False),
        (699, "698:700:698", 700, False),
    ],
)
def test_only_a_moment_without_a_transaction_is_exact(earlier: int, snapshot: str, later: int, quiet: bool) -> None:
    assert still(earlier, snapshot, later) is quiet


def test_it_is_read_as_it_is_written() -> None:
    raw = {"name": "p", "at": 5, "exact": True, "counts": TABLES, "moving": {}, "lsn": "0/1"}
    read = manifest.parse(raw)
    assert (read.name, read.at, read.rows()) == ("p", 5.0, 23)
    assert manifest.summary(read, []) == "23 rows in 2 tables as they were"
    assert "1 of 2 tables differ" in manifest.summary(read, ["agent: …"])
