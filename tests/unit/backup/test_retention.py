"""Which backups go: never one that another needs, never the last good one."""

from __future__ import annotations

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import retention
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import VERIFIED, Backup
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Retention
from hypothesis import given
from hypothesis import strategies as some
from shapes import backup

DAY = 86400.0


def year(days: int) -> list[Backup]:
    """A full backup every seven days and a differential one on the others, each looked through."""
    backups: list[Backup] = []
    full = ""
    for day in range(days):
        at = 1_767_225_600 + day * DAY + 9000
        if day % 7 == 0:
            full = f"2026{day // 28 + 1:02}{day % 28 + 1:02}-000000F"
            backups.append(backup(full, at, notes={VERIFIED: "1"}))
        else:
            label = f"{full}_2026{day // 28 + 1:02}{day % 28 + 1:02}-000000D"
            backups.append(backup(label, at, needs=(full,), notes={VERIFIED: "1"}))
    return backups


def test_a_year_keeps_days_weeks_and_months() -> None:
    backups = year(300)
    gone = set(retention.expired(backups, Retention()))
    left = [one for one in backups if one.label not in gone]
    days = {int(one.stop // DAY) for one in left}
    assert set(range(max(days) - 6, max(days) + 1)) <= days
    fulls = [one for one in left if one.type == "full"]
    assert len({retention.week(one.stop) for one in fulls}) >= 4
    # Ten months have begun.
    assert len({retention.month(one.stop) for one in fulls}) == 10
    assert len(left) < 25


def test_all_of_the_last_two_days_stay() -> None:
    hourly = [backup(f"20260101-{hour:02}0000F", hour * 3600.0) for hour in range(24 * 4)]
    gone = retention.expired(hourly, Retention(daily=2, weekly=0, monthly=0))
    left = [one.stop for one in hourly if one.label not in gone]
    assert left[-48:] == [one.stop for one in hourly[-48:]]


def test_the_log_stays_with_the_weeks_that_stay() -> None:
    fulls = [backup(f"{number}F", number * 7 * DAY) for number in range(1, 20)]
    assert retention.fulls_with_log(fulls, Retention(weekly=4)) == 5
    assert retention.fulls_with_log(fulls[:2], Retention(weekly=4)) == 2
    assert retention.fulls_with_log([], Retention()) == 1


policies = some.builds(Retention, some.integers(0, 10), some.integers(0, 6), some.integers(0, 14))


@given(some.integers(1, 200), policies, some.integers(0, 200))
def test_what_stays_can_be_restored(days: int, policy: Retention, damaged: int) -> None:
    backups = year(days)
    # From some day on nothing was found whole any more.
    backups = [
        one if number < damaged else backup(one.label, one.stop, needs=one.needs) for number, one in enumerate(backups)
    ]
    gone = retention.expired(backups, policy)
    left = {one.label: one for one in backups if one.label not in gone}
    assert backups[-1].label in left
    good = [one for one in backups if one.notes.get(VERIFIED)]
    assert not good or good[-1].label in left
    assert all(need in left for one in left.values() for need in one.needs)
    # Those that need others go before them.
    order = {label: number for number, label in enumerate(gone)}
    known = {one.label: one for one in backups}
    assert all(order[label] < order[need] for label in gone for need in known[label].needs if need in order)
    # A second run has nothing left to do.
    assert retention.expired(list(left.values()), policy) == []
