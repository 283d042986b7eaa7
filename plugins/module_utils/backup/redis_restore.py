"""Redis' data replaced by a snapshot's, on the host of the Redis. What was there is kept aside until somebody says.

A snapshot without an append-only file is not read: Redis would start empty and say nothing. So another Redis, which
nobody reaches, reads it and writes that file; only when it is whole do both change places with the live files. What is
under way is noted in a file: whenever a run was ended, the next one first puts back what was there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils import disk
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import redis_swap
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_host import (
    loss,
    make_ready,
    places_of,
    settings,
    start,
    stop,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_snapshot import Checked, check
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_swap import Places
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell

RECORD = Path("/var/lib/agentfleet/redis-restore.json")
LOCK = Path("/run/lock/agentfleet-redis-restore.lock")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,39}")
SPARE_MB = 64
# How far a restore came. Nothing of the live files was touched while `preparing`, nor is when only `starting` is left.
PREPARING, SWAPPING, RESTORED = "preparing", "swapping", "restored"
PUTTING_BACK, STARTING, KEEPING = "putting back", "starting", "keeping"


@dataclass(frozen=True)
class Record:
    """A restore that was begun, and what a later run has to know of it."""

    name: str
    stage: str
    sha256: str
    directory: str
    dump: str
    log: str
    had_dump: bool = False
    keys: int = 0

    @property
    def places(self) -> Places:
        return Places(Path(self.directory), self.name, self.dump, self.log)


@dataclass(frozen=True)
class Outcome:
    """What was done; `aside` is the name of the restore whose former data lie aside, "" where none do."""

    changed: bool
    keys: int = 0
    aside: str = ""


def remembered() -> Record | None:
    try:
        return Record(**json.loads(RECORD.read_text()))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise BackupError(f"{RECORD} cannot be read ({error}): look into Redis' directory, then remove it") from error


def remember(record: Record) -> Record:
    """On the disk before anything that it speaks of is done."""
    RECORD.parent.mkdir(parents=True, exist_ok=True)
    disk.write(RECORD, (json.dumps(asdict(record), indent=2) + "\n").encode(), 0o600)
    disk.sync(RECORD.parent)
    return record


def forget() -> None:
    RECORD.unlink(missing_ok=True)
    disk.sync(RECORD.parent)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """An ended playbook's module may still be at it."""
    with LOCK.open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BackupError("another run is restoring Redis on this host now; wait for its end") from None
        yield


def undo(record: Record, config: Mapping[str, str]) -> None:
    """What was there is there again, and Redis runs with it."""
    stop()
    if record.stage not in (PREPARING, STARTING):
        record = remember(replace(record, stage=PUTTING_BACK))
        redis_swap.put_back(record.places, record.had_dump)
    record = remember(replace(record, stage=STARTING))
    redis_swap.discard(record.places)
    start(config)
    forget()


def finish(record: Record) -> None:
    """What was put aside goes."""
    remember(replace(record, stage=KEEPING))
    redis_swap.discard(record.places)
    forget()


def recover(config: Mapping[str, str], tell: Tell) -> Record | None:
    """End what an ended run began; the record of a restore that is whole, and whose former data lie aside."""
    record = remembered()
    if record is None or record.stage == RESTORED:
        return record
    if record.stage == KEEPING:
        tell(f"finished: what was there before restore {record.name} is removed")
        finish(record)
    else:
        tell(f"restore {record.name} was ended while {record.stage}: what was there before is put back")
        undo(record, config)
    return None


def sum_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def look(rdb: Path, name: str, config: Mapping[str, str]) -> Checked:
    """What can be known before anything is stopped."""
    if not NAME.fullmatch(name):
        raise BackupError(f"{name!r} is no name of a restore: letters, digits and . _ - are, 40 at most")
    if not rdb.is_file():
        raise BackupError(f"{rdb} is not there")
    wanted = check(rdb)
    directory = Path(config["dir"])
    seen = os.statvfs(directory)
    free, needed = seen.f_bavail * seen.f_frsize >> 20, (2 * rdb.stat().st_size >> 20) + SPARE_MB
    if free < needed:
        raise BackupError(f"{directory} has {free} MB free, and restoring {rdb} takes {needed}: give it more space")
    return wanted


def already(record: Record | None, name: str, rdb: Path) -> bool:
    """Whether this very restore was done; another's former data must not be lost by a second one."""
    if record is None:
        return False
    if (record.name, record.sha256) == (name, sum_of(rdb)):
        return True
    raise BackupError(
        f"what Redis had before restore {record.name} still lies aside in {record.places.aside}: "
        "have it put back first: ansible-playbook playbooks/restore.yml -e undo=true"
    )


def restore(rdb: Path, name: str, tell: Tell) -> Outcome:
    """Redis has the snapshot's data, and what it had lies aside; or, on any failure, it has what it had."""
    config = settings()
    with alone():
        record = recover(config, tell)
        wanted = look(rdb, name, config)
        if already(record, name, rdb):
            return Outcome(False, start(config).keys, name)
        places = places_of(config, name)
        record = Record(name, PREPARING, sum_of(rdb), str(places.directory), places.dump, places.log, keys=wanted.keys)
        record = remember(record)
        try:
            stop()
            redis_swap.discard(places)
            tell(f"Redis is stopped; {wanted.keys} keys are read")
            make_ready(rdb, places, config, wanted)
            had_dump = (places.directory / places.dump).exists()
            record = remember(replace(record, stage=SWAPPING, had_dump=had_dump))
            redis_swap.put_in(places)
            there = start(config)
            if loss(wanted, there):
                raise BackupError(f"after its start {loss(wanted, there)}")
            remember(replace(record, stage=RESTORED))
        except BaseException as error:
            try:
                undo(record, config)
            except (BackupError, OSError) as second:
                raise BackupError(
                    f"{error}; and putting back what was there failed: {second}; "
                    "try again with restore.yml -e undo=true"
                ) from error
            raise
        tell(f"Redis has {there.keys} keys of the snapshot; what it had is in {places.aside}")
        return Outcome(True, there.keys, name)


def named(record: Record, name: str) -> Record:
    if name and record.name != name:
        raise BackupError(f"what lies aside is of restore {record.name}, and not of {name}")
    return record


def put_back(name: str = "", tell: Tell = print) -> Outcome:
    """Redis has what it had before the restore NAME, or before whichever there was."""
    config = settings()
    with alone():
        before = remembered()
        record = recover(config, tell)
        if record is None:
            return Outcome(before is not None)
        undo(named(record, name), config)
        tell(f"Redis has what it had before restore {record.name}")
        return Outcome(True)


def keep(name: str = "", tell: Tell = print) -> Outcome:
    """The restored data stay, and what was there before is removed."""
    config = settings()
    with alone():
        before = remembered()
        record = recover(config, tell)
        if record is None:
            if before is not None and before.stage != KEEPING:
                raise BackupError(
                    f"restore {before.name} had not ended: Redis has what it had before; restore it again"
                )
            return Outcome(before is not None)
        finish(named(record, name))
        tell(f"what Redis had before restore {record.name} is removed")
        return Outcome(True)


def seen() -> Outcome:
    """Whether former data lie aside; nothing is touched."""
    record = remembered()
    return Outcome(False, record.keys if record else 0, record.name if record else "")
