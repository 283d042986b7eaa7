"""Which backups of PostgreSQL there are, and which of them a restore to some moment begins with. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import wal
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, one_line

LABEL = re.compile(r"\d{8}-\d{6}F(_\d{8}-\d{6}[DI])?")
# What was found of a backup when it was looked through, kept beside it in the repository.
VERIFIED, POINT = "verified", "restore-point"


@dataclass(frozen=True)
class Backup:
    """One backup set, as `pgbackrest info` tells it; times are seconds since 1970, sizes bytes."""

    label: str
    type: str
    start: float
    stop: float
    size: int
    stored: int
    wal_start: str
    wal_stop: str
    lsn_stop: str
    needs: tuple[str, ...] = ()
    broken: bool = False
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def timeline(self) -> int:
        return wal.segment(self.wal_stop).timeline


@dataclass(frozen=True)
class Catalogue:
    """All of the repository: its backups, oldest first, the cluster's number and major version, its log's directory."""

    backups: tuple[Backup, ...]
    system: int
    version: str
    archive: str

    def named(self, label: str) -> Backup:
        for backup in self.backups:
            if backup.label == label:
                return backup
        known = ", ".join(backup.label for backup in self.backups[-5:]) or "none yet"
        raise BackupError(f"there is no backup {label}; the newest are {known}")


@dataclass(frozen=True)
class Target:
    """What pgBackRest is to restore: the set to begin with, and how far."""

    label: str
    type: str  # default, immediate, time or name
    value: str
    timeline: str
    # The moment in seconds since 1970 that it ends at, as far as it is known.
    until: float | None
    words: str


def read(text: str, stanza: str) -> Catalogue:
    """From what `pgbackrest info --output=json` wrote."""
    # What a wrong key makes of a file is quoted in it as it is, control characters among it.
    return parse(json.loads(text, strict=False), stanza)


def parse(raw: Sequence[Mapping[str, Any]], stanza: str) -> Catalogue:
    """From `pgbackrest info --output=json`, which exits 0 whatever it found."""
    mine = next((entry for entry in raw if entry.get("name") == stanza), None)
    if mine is None:
        return Catalogue((), 0, "", "")
    status = mine["status"]
    repository = next((one["status"] for one in mine.get("repo", ())), status)
    if status["code"] in (1, 2) and repository["code"] in (1, 2):
        # No stanza yet, or one without a backup.
        return with_backups(mine)
    if status["code"]:
        told = str(repository.get("message") or status["message"])
        if "FormatError" in told or "CryptoError" in told:
            raise BackupError(
                "the repository cannot be read with this key: backup_key is not the one that it was made with"
            )
        raise BackupError(f"the repository cannot be read: {one_line(told)}")
    return with_backups(mine)


def with_backups(mine: Mapping[str, Any]) -> Catalogue:
    backups = tuple(one(entry) for entry in mine.get("backup", ()))
    database = (mine.get("db") or [{}])[-1]
    number = database.get("id")
    archives = [entry["id"] for entry in mine.get("archive", ()) if entry["database"]["id"] == number]
    return Catalogue(
        tuple(sorted(backups, key=lambda backup: backup.stop)),
        int(database.get("system-id", 0)),
        str(database.get("version", "")),
        archives[-1] if archives else "",
    )


def one(entry: Mapping[str, Any]) -> Backup:
    repository = entry["info"]["repository"]
    return Backup(
        label=entry["label"],
        type=entry["type"],
        start=float(entry["timestamp"]["start"]),
        stop=float(entry["timestamp"]["stop"]),
        size=int(entry["info"]["size"]),
        stored=int(repository["delta"]),
        wal_start=entry["archive"]["start"],
        wal_stop=entry["archive"]["stop"],
        lsn_stop=entry["lsn"]["stop"],
        needs=tuple(entry.get("reference") or ()),
        broken=bool(entry.get("error")),
        notes=entry.get("annotation") or {},
    )


def moment(text: str) -> float:
    """Seconds since 1970 of a moment as users write it; without a zone it is UTC."""
    try:
        # Debian 12's Python wants two numbers of minutes in a zone.
        whole = re.sub(r"([+-]\d\d)$", r"\1:00", text.strip().replace("Z", "+00:00"))
        read = datetime.fromisoformat(whole)
    except ValueError:
        raise BackupError(
            f"to={text}: neither latest, a backup's label, a restore point nor a moment as 2026-01-31 12:00:00+00"
        ) from None
    return (read if read.tzinfo else read.replace(tzinfo=UTC)).timestamp()


def stamp(seconds: float) -> str:
    """A moment as PostgreSQL and people read it."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S.%f").rstrip("0").rstrip(".") + "+00"


@dataclass(frozen=True)
class Point:
    """A named point in the log: when it was made, and on which timeline."""

    at: float
    timeline: int


def usable(
    catalogue: Catalogue, have: wal.Archive, bad: Iterable[str] = (), timeline: int | None = None
) -> list[Backup]:
    """Backups that lie on the way to what is now, or to a TIMELINE; whole as far as is known, oldest first."""
    damaged = set(bad)
    return [
        backup
        for backup in catalogue.backups
        if not backup.broken
        and backup.label not in damaged
        and not damaged.intersection(backup.needs)
        and not wal.within(backup.wal_start, backup.wal_stop, have)
        and wal.reaches(backup.timeline, wal.position(backup.lsn_stop), have, timeline)
    ]


def resolve(
    to: str, catalogue: Catalogue, have: wal.Archive, points: Mapping[str, Point], bad: Iterable[str] = ()
) -> Target:
    """What `to` means: latest, a label, a restore point (POINTS, by name) or a moment.

    Raises BackupError in one line where it cannot be restored.
    """
    damaged = tuple(bad)
    if not catalogue.backups:
        raise BackupError("there is no backup yet: run ansible-playbook playbooks/backup.yml")
    if LABEL.fullmatch(to):
        return to_label(catalogue.named(to), have, damaged)
    if to in points:
        return to_point(to, points[to], catalogue, have, damaged)
    whole = usable(catalogue, have, damaged)
    if not whole:
        raise BackupError("no backup is whole: see agentfleet-backup verify on the backup host")
    if to == "latest":
        last, lacking = wal.follow(whole[-1].wal_start, have)
        if lacking:
            raise BackupError(
                f"the log lacks {wal.few(lacking)}: nothing after "
                f"{stamp(have.arrived[last]) if last else whole[-1].label} can be restored; name an earlier moment"
            )
        until = have.arrived[last] if last else whole[-1].stop
        return Target(whole[-1].label, "default", "", "latest", until, f"all that was archived, until {stamp(until)}")
    return to_moment(moment(to), whole, have)


def to_label(backup: Backup, have: wal.Archive, bad: Sequence[str]) -> Target:
    damaged = [label for label in (backup.label, *backup.needs) if label in bad]
    if backup.broken or damaged:
        raise BackupError(
            f"backup {backup.label} is damaged ({', '.join(damaged) or 'page checksums'}): choose another"
        )
    lacking = wal.within(backup.wal_start, backup.wal_stop, have)
    if lacking:
        raise BackupError(f"backup {backup.label} cannot be restored: the log lacks {wal.few(lacking)}")
    return Target(
        backup.label, "immediate", "", "current", backup.stop, f"the end of backup {backup.label}, {stamp(backup.stop)}"
    )


def before(at: float, whole: Sequence[Backup], what: str) -> Backup:
    earlier = [backup for backup in whole if backup.stop < at]
    if not earlier:
        raise BackupError(f"{what} is before the end of the first whole backup, {stamp(whole[0].stop)}")
    return earlier[-1]


def to_point(name: str, point: Point, catalogue: Catalogue, have: wal.Archive, bad: Sequence[str]) -> Target:
    """A point may lie on a timeline that a later restore left behind: it is gone back to all the same."""
    whole = usable(catalogue, have, bad, point.timeline)
    if not whole:
        raise BackupError(f"no whole backup leads to restore point {name}")
    backup = before(point.at, whole, f"restore point {name}")
    last, lacking = wal.follow(backup.wal_start, have, point.timeline)
    if last is None or (have.arrived[last] + 1 < point.at and lacking):
        raise BackupError(f"restore point {name} cannot be reached: the log lacks {wal.few(lacking)}")
    # A repository tells times in whole seconds.
    if have.arrived[last] + 1 < point.at:
        raise BackupError(f"restore point {name} is not archived yet: the log ends at {stamp(have.arrived[last])}")
    return Target(backup.label, "name", name, str(point.timeline), point.at, f"restore point {name}, {stamp(point.at)}")


def to_moment(at: float, whole: Sequence[Backup], have: wal.Archive) -> Target:
    backup = before(at, whole, stamp(at))
    last, lacking = wal.follow(backup.wal_start, have)
    end = have.arrived[last] if last else backup.stop
    if at > end:
        if lacking:
            raise BackupError(f"{stamp(at)} cannot be reached: the log lacks {wal.few(lacking)}, after {stamp(end)}")
        raise BackupError(f"{stamp(at)} is after what is archived, which ends at {stamp(end)}: to=latest has all of it")
    return Target(backup.label, "time", stamp(at), "latest", at, f"the moment {stamp(at)}")
