"""Which backups go: what is left are the newest of so many days, weeks and months. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import VERIFIED, Backup
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Retention


def day(at: float) -> tuple[int, ...]:
    return datetime.fromtimestamp(at, UTC).timetuple()[:3]


def week(at: float) -> tuple[int, ...]:
    return tuple(datetime.fromtimestamp(at, UTC).isocalendar()[:2])


def month(at: float) -> tuple[int, ...]:
    return datetime.fromtimestamp(at, UTC).timetuple()[:2]


# So long all of them stay: what somebody made by hand before a change, and what a restore left behind.
RECENT_SECONDS = 2 * 86400


def kept(backups: Iterable[Backup], policy: Retention) -> set[str]:
    """Labels that stay, with all that they need."""
    newest = sorted(backups, key=lambda backup: backup.stop, reverse=True)
    fulls = [backup for backup in newest if backup.type == "full"]
    stay = [
        *chosen(newest, policy.daily, day),
        *chosen(fulls, policy.weekly, week),
        *chosen(fulls, policy.monthly, month),
        # Whatever the policy says: the newest one, and the newest that was looked through and found whole.
        *[backup for backup in newest if backup.stop > newest[0].stop - RECENT_SECONDS],
        *[backup for backup in newest if backup.notes.get(VERIFIED) and not backup.broken][:1],
    ]
    return {label for backup in stay for label in (backup.label, *backup.needs)}


def chosen(newest: Sequence[Backup], number: int, period: Callable[[float], tuple[int, ...]]) -> list[Backup]:
    """The newest backup of each of the last NUMBER periods that have one."""
    of_period: dict[tuple[int, ...], Backup] = {}
    for backup in newest:
        of_period.setdefault(period(backup.stop), backup)
    return list(of_period.values())[:number]


def expired(backups: Sequence[Backup], policy: Retention) -> list[str]:
    """Labels that go, those that need others first: with a full backup pgBackRest takes away what needs it."""
    stay = kept(backups, policy)
    gone = [backup for backup in backups if backup.label not in stay]
    return [backup.label for backup in sorted(gone, key=lambda backup: (backup.type == "full", backup.stop))]


def fulls_with_log(backups: Sequence[Backup], policy: Retention) -> int:
    """How many of the newest full backups have the log from them to any moment since: those of the weeks that stay."""
    fulls = sorted((backup for backup in backups if backup.type == "full"), key=lambda backup: -backup.stop)
    if not fulls:
        return 1
    since = fulls[0].stop - max(policy.weekly, 1) * 7 * 86400
    return sum(backup.stop >= since for backup in fulls)
