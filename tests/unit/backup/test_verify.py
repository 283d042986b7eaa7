"""What pgBackRest's verify says, and what it does not say."""

from __future__ import annotations

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import verify
from shapes import backup, log

FULL, DIFF = "20261129-223941F", "20261129-223941F_20261129-223945D"
BACKUPS = [backup(FULL, 60, 1), backup(DIFF, 300, 5, needs=(FULL,))]
# As 2.45 and 2.55.1 write it.
WHOLE = f"""stanza: agentfleet
status: ok
  archiveId: 17-1, total WAL checked: 5, total valid WAL: 5
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: {FULL}, status: valid, total files checked: 966, total valid files: 966
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
  backup: {DIFF}, status: valid, total files checked: 966, total valid files: 966
    missing: 0, checksum invalid: 0, size invalid: 0, other: 0
"""


def test_what_is_whole_is_called_so() -> None:
    verdict = verify.judge(WHOLE, BACKUPS, log(1, 9))
    assert verdict.good
    assert verdict.files == 2 * 966


def test_a_flipped_byte_is_named_and_so_is_what_needs_the_backup() -> None:
    # 2.55.1 names the full one alone.
    text = WHOLE.replace("status: ok", "status: error").replace(f"{FULL}, status: valid", f"{FULL}, status: invalid")
    verdict = verify.judge(text, BACKUPS, log(1, 9))
    assert set(verdict.wrong) == {FULL, DIFF}
    assert "invalid" in verdict.wrong[FULL]
    assert FULL in verdict.wrong[DIFF]


@pytest.mark.parametrize(("lacking", "label"), [(1, FULL), (5, DIFF)])
def test_a_segment_that_a_backup_needs_is_missed_though_all_is_called_ok(lacking: int, label: str) -> None:
    verdict = verify.judge(WHOLE, BACKUPS, log(1, 9, without=(lacking,)))
    assert "cannot be restored" in verdict.wrong[label]


def test_a_gap_after_the_newest_backup_is_the_logs() -> None:
    verdict = verify.judge(WHOLE, BACKUPS, log(1, 9, without=(7,)))
    assert verdict.wrong == {}
    assert "000000010000000000000007" in verdict.log[0]


def test_a_damaged_segment_is_the_logs() -> None:
    text = WHOLE.replace("status: ok", "status: error").replace("total valid WAL: 5", "total valid WAL: 4")
    assert verify.judge(text, BACKUPS, log(1, 9)).log == ("1 of 5 segments of the log are damaged",)


@pytest.mark.parametrize("text", ["", "stanza: agentfleet\nstatus: error\n  No usable backup.info file\n"])
def test_silence_is_not_health(text: str) -> None:
    assert not verify.judge(text, BACKUPS, log(1, 9)).good
    assert not verify.judge(text, [], log(1, 9)).good
