"""A restored copy of the cluster beside everything else: in a directory and on a socket of its own, for a while."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import postgres_source
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Target
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.postgres import CONFIG, ask
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, run

# pgBackRest and PostgreSQL work in here as postgres, whose home this is.
HOME = Path("/var/lib/postgresql/agentfleet-scratch")
PORT = 5499
# What a copy must be given at least as much of as the original had, or it does not follow the log (PostgreSQL's manual,
# "Hot Standby"): the names by which pg_controldata tells them.
AS_BEFORE = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
START_SECONDS = 3600
# What PostgreSQL says where no transaction of the log is later than the moment.
UNREACHED = "recovery ended before configured recovery target was reached"


@dataclass(frozen=True)
class Copy:
    """A copy that runs: where its socket is."""

    directory: Path
    sockets: str
    port: int = PORT


def binary(version: str, name: str) -> str:
    return f"/usr/lib/postgresql/{version}/bin/{name}"


def words_of(target: Target) -> list[str]:
    """How pgBackRest is told how far to restore."""
    words = [f"--set={target.label}", f"--type={target.type}"]
    if target.value:
        words += [f"--target={target.value}"]
    if target.type != "default":
        words += ["--target-action=promote"]
    if target.type != "immediate":
        words += [f"--target-timeline={target.timeline}"]
    return words


def config_for(directory: Path, text: str) -> str:
    """pgBackRest's configuration with another data directory, that is on this host."""
    lines = [line for line in text.splitlines() if not line.startswith("pg1-")]
    return "\n".join([*lines, f"pg1-path={directory}", ""])


def discard(version: str, home: Path = HOME) -> None:
    """End and remove what a run before this one may have left."""
    if (home / "data/postmaster.pid").exists():
        stop = [binary(version, "pg_ctl"), "-D", str(home / "data"), "-m", "immediate", "-w", "stop"]
        # Its process may be gone while its file is not.
        with contextlib.suppress(BackupError):
            run(stop, user="postgres")
    shutil.rmtree(home, ignore_errors=True)


def make_room(size: int, home: Path = HOME) -> None:
    """Refuse before anything is written where the copy would not fit beside a gigabyte that stays free."""
    free = shutil.disk_usage(home.parent).free
    wanted = size + 1024**3
    if free < wanted:
        raise BackupError(
            f"{home.parent} has {free // 1024**2} MB free, and a restored copy needs {wanted // 1024**2} MB: make room"
        )


@contextmanager
def restored(target: Target, version: str, size: int, home: Path = HOME) -> Iterator[Copy]:
    """A copy as of TARGET, that runs until the block ends; SIZE is what it will take, in bytes."""
    discard(version, home)
    make_room(size, home)
    owner = pwd.getpwnam("postgres")
    for path in (home, home / "run"):
        path.mkdir(mode=0o700)
        os.chown(path, owner.pw_uid, owner.pw_gid)
    config = home / "pgbackrest.conf"
    config.touch(mode=0o600)
    os.chown(config, owner.pw_uid, owner.pw_gid)
    config.write_text(config_for(home / "data", CONFIG.read_text()))
    try:
        ask("restore", *words_of(target), "--archive-mode=off", config=config)
        yield start(version, home, target)
    finally:
        discard(version, home)


def start(version: str, home: Path, target: Target) -> Copy:
    data, log = home / "data", home / "log"
    hba, ident = home / "hba.conf", home / "ident.conf"
    hba.write_text("local all postgres peer\n")
    ident.write_text("")
    given = {
        **needed(run([binary(version, "pg_controldata"), str(data)], user="postgres")),
        "hba_file": str(hba),
        "ident_file": str(ident),
        "listen_addresses": "",
        "unix_socket_directories": str(home / "run"),
        "port": str(PORT),
        "shared_buffers": "64MB",
        "archive_mode": "off",
        "autovacuum": "off",
        "fsync": "off",
    }
    (home / "postgresql.conf").write_text("".join(f"{name} = '{value}'\n" for name, value in given.items()))
    for path in (hba, ident, home / "postgresql.conf"):
        path.chmod(0o644)
    copy = Copy(data, str(home / "run"))
    try:
        begin(version, home, copy)
    except BackupError:
        if target.type != "time" or UNREACHED not in log.read_text(errors="replace"):
            raise
        # Nothing was written after the moment: all of the log is as of it.
        take_all(data)
        begin(version, home, copy)
    return copy


def begin(version: str, home: Path, copy: Copy) -> None:
    data, log = home / "data", home / "log"
    command = [binary(version, "pg_ctl"), "-D", str(data), "-l", str(log), "-w", "-t", str(START_SECONDS)]
    try:
        run([*command, "-o", f"-c config_file={home / 'postgresql.conf'}", "start"], user="postgres")
    except BackupError as error:
        raise BackupError(f"the restored copy does not start: {last_fatal(log) or error}") from error

    def ended() -> str:
        return "" if (data / "postmaster.pid").exists() else f"the restored copy ended: {last_fatal(log)}"

    postgres_source.await_writes(copy.port, copy.sockets, ended, START_SECONDS, log)


def take_all(data: Path) -> None:
    """Go through all of the log, instead of up to a moment."""
    with (data / "postgresql.auto.conf").open("a") as file:
        file.write("recovery_target_time = ''\n")


def needed(control: str) -> dict[str, str]:
    """Settings that the copy needs, from what pg_controldata says."""
    told = {}
    for line in control.splitlines():
        name, _colon, value = line.partition(":")
        word = name.strip().removesuffix(" setting")
        if word in AS_BEFORE:
            told[AS_BEFORE[word]] = value.strip()
    return told


def last_fatal(log: Path) -> str:
    try:
        lines = log.read_text(errors="replace").splitlines()
    except OSError:
        return ""
    telling = [line.split("] ", 1)[-1] for line in lines if "FATAL" in line or "PANIC" in line]
    return telling[-1].strip() if telling else ""
