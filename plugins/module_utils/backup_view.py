"""The backups as the fleet's status shows them, from what the backup host remembers. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.metrics import KINDS

Seen = Mapping[str, Any]
# A night's backup, and two hours for it to be late in.
MAXIMUM_HOURS = 26
ARCHIVE_MAXIMUM_SECONDS = 600


def hours(seen: Seen) -> dict[str, float]:
    """Hours since each kind was last backed up."""
    made = {kind: seen[kind] for kind in KINDS if (seen.get(kind) or {}).get("at")}
    return {kind: (float(seen["now"]) - float(one["at"])) / 3600 for kind, one in made.items()}


def oldest_hours(seen: Seen) -> float | None:
    """Hours since the kind was backed up that waits longest."""
    return max((round(one, 1) for one in hours(seen).values()), default=None)


def document(seen: Seen) -> dict[str, Any] | None:
    """How each kind, the rehearsal and the log went last; null where nobody keeps backups."""
    return {name: seen.get(name) for name in (*KINDS, "drill", "archive")} if seen else None


def lines(seen: Seen) -> Iterable[str]:
    if not seen:
        return
    yield f"backups  {ages(seen) or 'none yet'}"
    drill = seen.get("drill")
    if drill:
        yield f"drill  {'held' if drill['ok'] else 'FAILED'} {ago((float(seen['now']) - float(drill['at'])) / 3600)}"


def ages(seen: Seen) -> str:
    return ", ".join(f"{kind} {ago(one)}" for kind, one in hours(seen).items())


def ago(hours: float) -> str:
    return f"{long(hours)} ago"


def long(hours: float) -> str:
    if hours < 2:
        return f"{hours * 60:.0f} min"
    return f"{hours:.0f} h" if hours < 72 else f"{hours / 24:.0f} days"


def problems(seen: Seen) -> Iterable[str]:
    """What needs attention; before the first backup of a new fleet there is nothing to complain of."""
    for kind, old in hours(seen).items():
        if old > MAXIMUM_HOURS:
            yield f"the last backup of {kind} is {long(old)} old; see: systemctl status agentfleet-backup.timer"
    for kind in KINDS:
        problem = (seen.get(kind) or {}).get("problem")
        if problem:
            mend = f"ansible-playbook playbooks/backup.yml -e what={kind}"
            yield f"backing up {kind} failed: {problem}; try again with: {mend}"
    drill, archive = seen.get("drill"), seen.get("archive") or {}
    if drill and not drill["ok"]:
        yield f"the last rehearsed restore failed: {drill['lines'][0] if drill.get('lines') else 'no reason given'}"
    if archive.get("waiting_seconds", 0) > ARCHIVE_MAXIMUM_SECONDS:
        waits = f"{archive['waiting_seconds']:.0f} s to be archived ({archive['waiting']} files)"
        yield f"PostgreSQL's log has waited {waits}; see /var/log/postgresql on its host"
