"""Backups of configuration and of Redis, in restic's repository.

A stream becomes a snapshot that counts in three steps: it is stored as `unfinished`; it is read back and compared with
what the source sent; then it is marked `whole`, with its size and sum. What was
ended in between is removed by the next run.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.restic import (
    ABSENT,
    DAMAGED,
    FULL,
    OTHER,
    Repository,
    ResticError,
    open_repository,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.restic_snapshots import (
    NAMES,
    UNFINISHED,
    WHOLE,
    Kept,
    choose,
    lacking,
    newest,
    parse_expired,
    parse_snapshots,
    parse_summary,
    shape_problem,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell, fetch
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Settings, Source

CHUNK = 1 << 18


@dataclass(frozen=True)
class Made:
    """What became of one source; a `problem` says why there is no backup of it."""

    what: str
    host: str
    label: str = ""
    size: int = 0
    stored: int = 0
    seconds: float = 0.0
    problem: str = ""


@dataclass(frozen=True)
class Verified:
    """What reading all of the repository found; without `problems` every backup is whole."""

    problems: tuple[str, ...]
    whole: tuple[Kept, ...]
    damaged: tuple[Kept, ...]


class Stream:
    """Hands on what a source sends, and knows its size, sum and ends afterwards."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.size = 0
        self.head = self.tail = b""
        self.broken = False

    def add(self, data: bytes) -> None:
        self.digest.update(data)
        self.size += len(data)
        self.head = (self.head + data[:8])[:8]
        self.tail = (self.tail + data)[-1024:]

    def hand_on(self, source: IO[bytes], to: IO[bytes] | None = None) -> None:
        with source:
            while data := source.read(CHUNK):
                self.add(data)
                try:
                    if to:
                        to.write(data)
                except OSError:
                    # Whoever it goes to has ended; the other side is told by its closed pipe.
                    self.broken = True
                    return


def backup(settings: Settings, what: str, tell: Tell) -> list[Made]:
    """A backup of each host that has WHAT; one that fails does not keep others from theirs."""
    repository = open_repository(settings, tell)
    refuse_full(settings, repository, tell)
    repository.make()
    sweep(repository, tell)
    made = []
    for source in settings.sources:
        if what in source.what:
            begin = time.monotonic()
            tell(f"{what} of {source.host}")
            try:
                made.append(store(repository, source, what, begin))
            except ResticError:
                # What is wrong with the repository is wrong for all of them.
                raise
            except BackupError as error:
                made.append(Made(what, source.host, seconds=time.monotonic() - begin, problem=str(error)))
    return made


def refuse_full(settings: Settings, repository: Repository, tell: Tell) -> None:
    if not shortage(settings):
        return
    # A run that ended for want of space left there what nobody can use.
    with contextlib.suppress(ResticError):
        if Path(repository.address, "config").exists():
            sweep(repository, tell)
            repository.run("prune")
    problem = shortage(settings)
    if problem:
        raise BackupError(problem)


def shortage(settings: Settings) -> str:
    """Why nothing may be written into the repository, or nothing."""
    if settings.s3:
        return ""
    try:
        seen = os.statvfs(settings.repository)
    except FileNotFoundError:
        raise BackupError(f"{settings.repository} is not there: is its disk mounted?") from None
    return lacking(seen.f_bavail * seen.f_frsize >> 20, settings.minimum_free_mb, settings.repository)


def sweep(repository: Repository, tell: Tell) -> None:
    """Remove what a run that was ended left behind; nothing of it is ever offered."""
    _kept, unfinished = parse_snapshots(repository.once("--no-lock", "snapshots", "--json"))
    if unfinished:
        tell(f"removing {len(unfinished)} unfinished backup(s) of a run that was ended")
        repository.run("forget", *unfinished)


def store(repository: Repository, source: Source, what: str, begin: float) -> Made:
    sent, summary = send(repository, source, what)
    identifier, added = parse_summary(summary)
    read = Stream()
    read_back(repository, identifier, what, read)
    if (read.size, read.digest.digest()) != (sent.size, sent.digest.digest()):
        raise BackupError(f"{source.host} sent {sent.size} bytes of {what}, and reading them back gave something else")
    marks = [what, WHOLE, f"size={sent.size}", f"sha256={sent.digest.hexdigest()}"]
    repository.run("tag", *(f"--set={mark}" for mark in marks), identifier)
    return Made(what, source.host, marked(repository, identifier), sent.size, added, time.monotonic() - begin)


def marked(repository: Repository, identifier: str) -> str:
    """The label that a snapshot has since it was marked: with other marks it is another snapshot to restic."""
    for raw in json.loads(repository.once("--no-lock", "snapshots", "--json", f"--tag={WHOLE}")) or []:
        if str(raw.get("original", "")).startswith(identifier):
            return str(raw["short_id"])
    raise BackupError(f"restic does not find the snapshot {identifier} that it has just marked")


def send(repository: Repository, source: Source, what: str) -> tuple[Stream, str]:
    """Store what the source sends; ended, and without a snapshot, unless the source said that it was all."""
    repository.free()
    words = ("backup", "--json", "--stdin", f"--stdin-filename={NAMES[what]}", f"--host={source.host}")
    stream = Stream()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = repository.process(
            *words, f"--tag={what},{UNFINISHED}", stdin=subprocess.PIPE, stdout=out, stderr=err
        )
        assert process.stdin
        try:
            reading, writing = os.pipe()
            pump = threading.Thread(target=stream.hand_on, args=(os.fdopen(reading, "rb"), process.stdin))
            pump.start()
            try:
                with os.fdopen(writing, "wb") as to:
                    fetch(source, [what], to)
            finally:
                # With our end closed there is nothing more to hand on.
                pump.join()
            problem = "" if stream.broken else shape_problem(what, stream.head, stream.tail, stream.size)
            if problem:
                raise BackupError(f"{source.host} sent {stream.size} bytes of {what}, and {problem}")
        except BaseException as error:
            # A source that was not listened to any more fails as well; why is said below.
            if not (stream.broken and isinstance(error, BackupError)):
                # Its input must not end before it is gone: it would take what it has for all.
                end(repository, process)
                raise
        with contextlib.suppress(OSError):
            process.stdin.close()
        status = process.wait()
        said = [file.read().decode(errors="replace") for file in (out, err) if file.seek(0) == 0]
    if status or stream.broken:
        raise repository.failed(status, said[1] + said[0])
    return stream, said[0]


def end(repository: Repository, process: subprocess.Popen[bytes]) -> None:
    """Not by an interrupt: restic would first wait for more of what will not come."""
    process.kill()
    process.wait()
    with contextlib.suppress(OSError):
        # What is buffered for it goes nowhere.
        assert process.stdin
        process.stdin.close()
    with contextlib.suppress(ResticError):
        # What it locked, it cannot open any more.
        repository.once("unlock")


def read_back(repository: Repository, label: str, what: str, stream: Stream, to: IO[bytes] | None = None) -> None:
    """What a snapshot holds, from the repository's files."""
    words = ("dump", label, f"/{NAMES[what]}")
    repository.free()
    try:
        pour(repository, words, stream, to)
    except ResticError as error:
        if error.kind != FULL or stream.size:
            raise
        # There is no space for a lock, and a restore is wanted all the same.
        pour(repository, ("--no-lock", *words), stream, to)


def pour(repository: Repository, words: Sequence[str], stream: Stream, to: IO[bytes] | None) -> None:
    with tempfile.TemporaryFile() as err:
        with repository.process(*words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=err) as process:
            assert process.stdout
            stream.hand_on(process.stdout, to)
        if process.returncode and not stream.broken:
            err.seek(0)
            raise repository.failed(process.returncode, err.read().decode(errors="replace"))


def listed(settings: Settings) -> list[Kept]:
    """Every backup that counts, oldest first; none where there is no repository yet."""
    try:
        return parse_snapshots(open_repository(settings).once("--no-lock", "snapshots", "--json"))[0]
    except ResticError as error:
        if error.kind == ABSENT:
            return []
        raise


def verify(settings: Settings, tell: Tell, share: str = "") -> Verified:
    """Read what is stored: all of it, or a SHARE as restic writes it ("10%", "1/7"), and name what is damaged."""
    kept = listed(settings)
    repository = open_repository(settings, tell)
    try:
        repository.read("check", f"--read-data-subset={share}" if share else "--read-data")
        return Verified((), tuple(kept), ())
    except ResticError as error:
        if error.kind not in (DAMAGED, OTHER):
            raise
        problems = error.found or (str(error),)
    whole: list[Kept] = []
    damaged: list[Kept] = []
    for one in kept:
        tell(f"reading {one.what} of {one.host}, {one.label}")
        (whole if reads(repository, one) else damaged).append(one)
    return Verified(problems, tuple(whole), tuple(damaged))


def reads(repository: Repository, one: Kept) -> bool:
    stream = Stream()
    try:
        read_back(repository, one.label, one.what, stream)
    except ResticError:
        return False
    return (stream.size, stream.digest.hexdigest()) == (one.size, one.sha256)


def expire(settings: Settings, tell: Tell, keep: Collection[str] = ()) -> list[Kept]:
    """Forget what is beyond the retention, never the newest of a host, nor what is in KEEP; what went is returned."""
    repository = open_repository(settings, tell)
    kept = listed(settings)
    policy = settings.retention
    # And all of the last two days, as of PostgreSQL.
    times = (("daily", policy.daily), ("weekly", policy.weekly), ("monthly", policy.monthly))
    wanted = ["--keep-within=2d", *(f"--keep-{name}={number}" for name, number in times if number)]
    if not kept:
        return []
    # Each of ours has tags of its own; what belongs together is a host's, and of one name.
    words = ("forget", "--dry-run", "--json", f"--tag={WHOLE}", "--group-by=host,paths", *wanted)
    gone = set(parse_expired(repository.run(*words))) - newest(kept) - set(keep)
    if gone:
        repository.run("forget", *sorted(gone))
    # Also without any: what an ended run stored is of no use to anybody.
    repository.run("prune")
    return [one for one in kept if one.label in gone]


def dump(settings: Settings, label: str, what: str, to: Path, host: str = "") -> Kept:
    """Write a backup TO a file, which is there only when it is what the source once sent."""
    one = choose(listed(settings), label, what, host)
    stream = Stream()
    new = to.with_name(f".{to.name}.new")
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            read_back(open_repository(settings), one.label, what, stream, file)
            file.flush()
            os.fsync(file.fileno())
        if stream.broken:
            raise BackupError(f"{to.parent} has no space left for {one.size >> 20} MB")
        if (stream.size, stream.digest.hexdigest()) != (one.size, one.sha256):
            raise BackupError(f"the backup {label} of {what} is damaged; run: agentfleet-backup verify")
        new.replace(to)
    finally:
        new.unlink(missing_ok=True)
    return one
