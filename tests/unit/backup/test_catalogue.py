"""Which backup a restore begins with, and what is refused before anything is touched."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import catalogue as catalogues
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Point, moment, resolve, stamp
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.wal import Archive, Segment
from hypothesis import given
from hypothesis import strategies as some
from shapes import SEGMENT, backup, catalogue, log

FULL, DIFF = "20260101-000000F", "20260101-000000F_20260102-000000D"
KNOWN = catalogue(backup(FULL, 60, 1), backup(DIFF, 300, 5, needs=(FULL,)))


def refused(to: str, *arguments: object) -> str:
    with pytest.raises(BackupError) as told:
        resolve(to, *arguments)  # type: ignore[arg-type] - the arguments of each case
    assert "\n" not in str(told.value)
    return str(told.value)


def test_latest_begins_with_the_newest_backup() -> None:
    target = resolve("latest", KNOWN, log(1, 9), {})
    assert (target.label, target.type, target.until) == (DIFF, "default", 540.0)


def test_latest_is_refused_where_the_log_has_a_gap() -> None:
    assert "lacks 000000010000000000000007" in refused("latest", KNOWN, log(1, 9, without=(7,)), {})


def test_a_label_is_its_own_end() -> None:
    target = resolve(FULL, KNOWN, log(1, 9), {})
    assert (target.label, target.type, target.timeline) == (FULL, "immediate", "current")


def test_a_label_that_does_not_exist_is_told_with_those_that_do() -> None:
    told = refused("20200101-000000F", KNOWN, log(1, 9), {})
    assert "no backup 20200101-000000F" in told
    assert DIFF in told


def test_a_label_whose_own_segment_is_gone_is_refused() -> None:
    assert "lacks 000000010000000000000001" in refused(FULL, KNOWN, log(2, 9), {})


def test_a_backup_on_a_damaged_one_is_damaged() -> None:
    assert "damaged" in refused(DIFF, KNOWN, log(1, 9), {}, [FULL])
    assert "no backup is whole" in refused("latest", KNOWN, log(1, 9), {}, [FULL])


def test_before_the_first_backup_there_is_nothing() -> None:
    assert "before the end of the first whole backup" in refused(stamp(30), KNOWN, log(1, 9), {})


def test_after_the_end_of_the_log_there_is_nothing() -> None:
    assert "to=latest has all of it" in refused(stamp(600), KNOWN, log(1, 9), {})


def test_a_gap_keeps_a_moment_from_being_reached() -> None:
    assert "lacks 000000010000000000000007" in refused(stamp(500), KNOWN, log(1, 9, without=(7,)), {})


@given(some.floats(61, 539))
def test_a_moment_begins_with_the_newest_backup_that_ended_before_it(at: float) -> None:
    target = resolve(stamp(at), KNOWN, log(1, 9), {})
    assert target.type == "time"
    assert target.label == (DIFF if moment(stamp(at)) > 300 else FULL)
    assert target.until == moment(stamp(at))


def test_what_is_no_moment_is_told_what_would_be_one() -> None:
    assert "2026-01-31 12:00:00+00" in refused("yesterday", KNOWN, log(1, 9), {})


@pytest.mark.parametrize(
    "text", ["2026-01-31 12:00:00+00", "2026-01-31 12:00:00", "2026-01-31T12:00:00Z", "2026-01-31 13:00:00+01"]
)
def test_a_moment_is_read_as_it_is_written(text: str) -> None:
    assert moment(text) == 1769860800.0


@given(some.floats(0, 4e9))
def test_a_moment_is_written_as_it_is_read(at: float) -> None:
    assert abs(moment(stamp(at)) - at) < 1e-5


def test_a_restore_point_on_a_way_that_was_left_is_gone_back_to() -> None:
    behind = log(1, 9)
    have = Archive({**behind.arrived, Segment(2, 3): 1000.0}, {2: (1, 3 * SEGMENT + 8)})
    # The newest way has left before the second backup was made.
    assert resolve("latest", KNOWN, have, {}).label == FULL
    target = resolve("before", KNOWN, have, {"before": Point(500.0, 1)})
    assert (target.label, target.type, target.value, target.timeline) == (DIFF, "name", "before", "1")


def test_a_point_that_is_not_archived_is_not_there_yet() -> None:
    assert "not archived yet" in refused("point", KNOWN, log(1, 9), {"point": Point(700.0, 1)})


def test_a_backup_with_damaged_pages_is_not_begun_with() -> None:
    known = catalogue(KNOWN.backups[0], replace(KNOWN.backups[1], broken=True))
    assert resolve("latest", known, log(1, 9), {}).label == FULL


def test_without_a_backup_the_command_that_makes_one_is_told() -> None:
    assert "playbooks/backup.yml" in refused("latest", catalogue(), log(1, 2), {})


def entry(code: int, message: str) -> dict[str, object]:
    return {"name": "agentfleet", "status": {"code": code, "message": message}, "backup": [], "archive": [], "db": []}


def test_another_key_is_named() -> None:
    told = {**entry(99, "other"), "repo": [{"status": {"code": 99, "message": "[FormatError] got 'GARBAGE' instead"}}]}
    text = json.dumps([told]).replace("GARBAGE", "\x02\x1fq\ufffd")
    with pytest.raises(BackupError, match="backup_key is not the one"):
        catalogues.read(text, "agentfleet")


def test_a_stanza_without_a_backup_is_empty() -> None:
    assert catalogues.parse([entry(2, "no valid backups")], "agentfleet").backups == ()
    assert catalogues.parse([], "agentfleet").backups == ()
