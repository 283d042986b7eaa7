"""The archived log: what is missing in it, and which way leads to what is now."""

from __future__ import annotations

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import wal
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.wal import Archive, Segment
from hypothesis import given
from hypothesis import strategies as some

SEGMENT = 16 * 1024 * 1024


def archive(numbers: dict[int, set[int]], forks: dict[int, tuple[int, int]] | None = None) -> Archive:
    arrived = {Segment(line, number): float(number) for line, every in numbers.items() for number in every}
    return Archive(arrived, forks or {})


@given(some.integers(1, 2**32 - 1), some.integers(0, 2**40 - 1))
def test_a_name_is_read_back(timeline: int, number: int) -> None:
    one = Segment(timeline, number)
    assert len(one.name) == 24
    assert wal.segment(one.name) == one


def test_names_follow_one_another_as_postgresql_has_them() -> None:
    assert Segment(1, 255).name == "0000000100000000000000FF"
    assert Segment(1, 256).name == "000000010000000100000000"


def test_a_listing_is_read() -> None:
    name = "000000010000000000000003"
    listing = {
        ".": {"type": "path"},
        f"0000000100000000/{name}-fa9a71bce254750a2ff71be54b5faf23f1978087.zst": {"type": "file", "time": 17},
        f"0000000100000000/{name}.00000028.backup": {"type": "file", "time": 18},
        "00000002.history": {"type": "file", "time": 19},
    }
    read = wal.archive(listing, {2: "1\t0/5000000\tno recovery target specified\n"})
    assert read.arrived == {wal.segment(name): 17.0}
    assert read.forks == {2: (1, 5 * 1024**2 * 16)}
    assert read.timeline == 2


@given(some.integers(0, 300), some.integers(1, 60), some.sets(some.integers(0, 60), max_size=6))
def test_nothing_past_the_first_gap_counts(begin: int, length: int, holes: set[int]) -> None:
    there = {begin + step for step in range(length) if step not in holes}
    last, lacking = wal.follow(Segment(1, begin).name, archive({1: there}))
    first_hole = next((step for step in range(length) if step in holes), None)
    if not there:
        assert (last, lacking) == (None, [])
    elif first_hole is None:
        assert (last, lacking) == (Segment(1, begin + length - 1), [])
    else:
        assert last == (Segment(1, begin + first_hole - 1) if first_hole else None)
        # A hole at the very end is no hole: nobody knows that it was ever written.
        newest = max(there)
        assert bool(lacking) == (newest > begin + first_hole)
        assert all(wal.segment(name).number - begin in holes for name in lacking)


def test_a_timeline_goes_on_where_it_left_its_parent() -> None:
    have = archive({1: {1, 2, 3, 4, 5}, 2: {3, 4}}, {2: (1, 3 * SEGMENT + 100)})
    last, lacking = wal.follow(Segment(1, 1).name, have)
    assert (last, lacking) == (Segment(2, 4), [])
    # What the parent wrote after that is on no way any more.
    assert wal.follow(Segment(1, 1).name, have, timeline=1) == (Segment(1, 5), [])


def test_the_parents_last_part_may_be_archived_under_the_childs_name_alone() -> None:
    have = archive({1: {1, 2}, 2: {3, 4}}, {2: (1, 3 * SEGMENT + 100)})
    assert wal.follow(Segment(1, 1).name, have) == (Segment(2, 4), [])


def test_a_gap_before_the_fork_is_one() -> None:
    have = archive({1: {1, 3}, 2: {3, 4}}, {2: (1, 3 * SEGMENT + 100)})
    assert wal.follow(Segment(1, 1).name, have) == (Segment(1, 1), [Segment(1, 2).name])


@pytest.mark.parametrize(
    ("timeline", "place", "to", "there"),
    [
        (1, 2 * SEGMENT, None, True),
        (1, 4 * SEGMENT, None, False),
        (1, 4 * SEGMENT, 1, True),
        (2, 9 * SEGMENT, None, True),
        (2, 9 * SEGMENT, 1, False),
    ],
)
def test_what_a_restore_left_behind_is_not_on_the_way(timeline: int, place: int, to: int | None, there: bool) -> None:
    have = archive({1: {1, 2, 3, 4}, 2: {3}}, {2: (1, 3 * SEGMENT)})
    assert wal.reaches(timeline, place, have, to) is there


def test_a_segment_that_a_backup_needs_is_missed() -> None:
    have = archive({1: {3, 5}})
    assert wal.within(Segment(1, 3).name, Segment(1, 5).name, have) == [Segment(1, 4).name]


def test_few_of_many_are_named() -> None:
    assert wal.few(["a", "b"]) == "a, b"
    assert wal.few(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
