"""PostgreSQL restored in place on its host, with what was there kept aside until somebody says that it may go.

A note on the disk says how far it is, so that a host that lost its power in the middle is settled by the next run.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import postgres_source, scratch
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Target
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.postgres import ask
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError, Tell, run
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import STATE
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import sync, write

NOTE = STATE / "restore-postgres.json"
ANSWER_SECONDS = 3600


@dataclass(frozen=True)
class Cluster:
    """The cluster that is live: where its data are, and its port."""

    data: Path
    port: int

    @property
    def version(self) -> str:
        return self.data.parent.name

    @property
    def unit(self) -> str:
        return f"postgresql@{self.version}-{self.data.name}.service"

    @property
    def aside(self) -> Path:
        return self.data.with_name(f"{self.data.name}.before-restore")

    @property
    def log(self) -> Path:
        return Path("/var/log/postgresql") / f"postgresql-{self.version}-{self.data.name}.log"


def noted(path: Path = NOTE) -> Mapping[str, Any]:
    try:
        known = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    return known if isinstance(known, dict) else {}


def note(phase: str, path: Path = NOTE, **more: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps({"phase": phase, **more}).encode(), 0o600)
    sync(path)


def settle(cluster: Cluster, tell: Tell) -> bool:
    """End what a run before this one left in the middle; whether there was anything."""
    if not noted():
        return False
    if noted()["phase"] == "keeping":
        return keep(cluster)
    tell("postgres: an earlier restore did not end; putting back what was there before it")
    put_back(cluster)
    return True


def restore(cluster: Cluster, target: Target, size: int, tell: Tell) -> dict[str, Any]:
    """Restore TARGET, and have it answer; on any failure what was there is put back and answers again."""
    settle(cluster, tell)
    make_room(cluster, size)
    note("moving")
    try:
        run(["systemctl", "stop", cluster.unit])
        move_aside(cluster)
        note("restoring", label=target.label)
        tell(f"postgres: restoring {target.words}")
        began = time.time()
        ask("restore", *scratch.words_of(target))
        hold_archive(cluster)
        reached = start(cluster, target, began, tell)
        until = last_commit(cluster)
    except BaseException:
        tell("postgres: that did not hold; putting back what was there before")
        put_back(cluster)
        raise
    note("answering", label=target.label)
    return {"until": until, "reached": reached, "seconds": time.time() - began}


def make_room(cluster: Cluster, size: int) -> None:
    if not cluster.data.is_dir():
        raise BackupError(f"{cluster.data} is not there: run ansible-playbook playbooks/site.yml first")
    free = shutil.disk_usage(cluster.data.parent).free
    wanted = size + 512 * 1024**2
    if free < wanted:
        raise BackupError(
            f"{cluster.data.parent} has {free // 1024**2} MB free, and {wanted // 1024**2} MB are needed to keep what "
            "is there until the restored data answer: make room"
        )


def move_aside(cluster: Cluster) -> None:
    if cluster.aside.exists():
        raise BackupError(f"{cluster.aside} is in the way: look at it, and remove it")
    cluster.data.rename(cluster.aside)
    cluster.data.mkdir(mode=0o700)
    owner = pwd.getpwnam("postgres")
    os.chown(cluster.data, owner.pw_uid, owner.pw_gid)
    sync(cluster.data)


def hold_archive(cluster: Cluster) -> None:
    """Archive nothing of the restored data's log before it is sure that they stay: later restores would follow it."""
    with (cluster.data / "postgresql.auto.conf").open("a") as file:
        file.write("archive_command = ''\n")


def start(cluster: Cluster, target: Target, began: float, tell: Tell) -> bool:
    """Whether the target was reached; where the log ends before a moment, all of it is in."""
    try:
        run(["systemctl", "start", cluster.unit])
        await_writes(cluster)
        return True
    except BackupError as error:
        said = said_since(cluster, began)
        if target.type != "time" or scratch.UNREACHED not in said:
            why = [line for line in said.splitlines() if "FATAL" in line or "PANIC" in line]
            raise BackupError(f"the restored data do not come up: {why[-1] if why else error}") from error
    tell("postgres: nothing was written after that moment; all of the log is taken")
    scratch.take_all(cluster.data)
    run(["systemctl", "start", cluster.unit])
    await_writes(cluster)
    return False


def said_since(cluster: Cluster, began: float) -> str:
    """The server's log since then, as far as its lines tell their time."""
    try:
        if cluster.log.stat().st_mtime < began:
            return ""
        with cluster.log.open("rb") as file:
            file.seek(max(0, cluster.log.stat().st_size - 20000))
            return file.read().decode(errors="replace")
    except OSError:
        return ""


def await_writes(cluster: Cluster) -> None:
    def ended() -> str:
        state = run(["systemctl", "show", "--property=ActiveState", "--value", cluster.unit]).strip()
        return f"{cluster.unit} is {state}" if state in ("failed", "inactive") else ""

    postgres_source.await_writes(cluster.port, postgres_source.SOCKETS, ended, ANSWER_SECONDS, cluster.log)


def last_commit(cluster: Cluster) -> float | None:
    """When the last transaction was committed that is in the restored data."""
    with contextlib.closing(postgres_source.connect("postgres", cluster.port)) as connection:
        for database in postgres_source.databases(cluster.port):
            with contextlib.closing(postgres_source.connect(database, cluster.port)) as one:
                postgres_source.ask(one, "SELECT count(*) FROM pg_class")
        at = postgres_source.ask(connection, "SELECT extract(epoch FROM pg_last_xact_replay_timestamp())")[0][0]
        return None if at is None else float(at)


def put_back(cluster: Cluster) -> bool:
    """Have what was there before answer again; whether there was anything to put back."""
    if not noted():
        return False
    run(["systemctl", "stop", cluster.unit])
    if cluster.aside.exists():
        # Empty or half restored, or restored and not wanted.
        shutil.rmtree(cluster.data, ignore_errors=True)
        cluster.aside.rename(cluster.data)
        sync(cluster.data)
    run(["systemctl", "reset-failed", cluster.unit])
    run(["systemctl", "start", cluster.unit])
    await_writes(cluster)
    NOTE.unlink()
    return True


def keep(cluster: Cluster) -> bool:
    """The restored data stay: their log is archived from here on, and what was there before goes."""
    if noted().get("phase") not in ("answering", "keeping"):
        return False
    note("keeping")
    with contextlib.closing(postgres_source.connect("postgres", cluster.port)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute("ALTER SYSTEM RESET archive_command")
            cursor.execute("SELECT pg_reload_conf()")
    shutil.rmtree(cluster.aside, ignore_errors=True)
    NOTE.unlink()
    return True
