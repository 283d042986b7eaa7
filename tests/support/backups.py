"""Backups of a fleet under test: what lies in the repository, what was said of it, and how it is damaged."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .deploys import started, until
from .disks import SmallDisk, mounting
from .fleet import Fleet, Groups, Result, change_hosts, copy_inventory
from .rows import TABLE, Commit, rows_on

DATA, BACKUP = "data1", "ops1"
REPOSITORY = "/var/backups/agentfleet"
SETTINGS = "/etc/agentfleet/backup"
METRICS = "/var/lib/prometheus/node-exporter/agentfleet_backup.prom"
LABEL = re.compile(r"^\d{8}-\d{6}F(_\d{8}-\d{6}[DI])?$")
MOMENT = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?\+00")
ANOTHER = "another-key-than-before-4f8a2c6e"
LATE = f"INSERT INTO {TABLE} SELECT coalesce(max(number), 0) + 1, 'late' FROM {TABLE};"
# A program on the host: a file's byte in the middle, turned round; a second time it is as before.
FLIP = """
import sys
with open(sys.argv[1], "r+b") as file:
    middle = file.seek(0, 2) // 2
    file.seek(middle)
    byte = file.read(1)
    file.seek(middle)
    file.write(bytes([byte[0] ^ 255]))
"""
# Stops a process in the middle of its work, as soon as there is one. On the host itself: a round trip takes longer than
# some of that work.
CATCH = """
end=$((SECONDS + 180))
until pids=$(pgrep -f '{pattern}'); do
    [ $SECONDS -lt $end ] || exit 1
    sleep 0.01
done
kill -STOP $pids
"""
# Again, until all of them do: runuser stops itself once more when it hears only then that what it runs stands still.
GO_ON = """
until ! pgrep --runstates T -f '{pattern}' >/dev/null; do
    pkill -CONT -f '{pattern}'
    sleep 0.05
done
"""

# What the log has of it does not fit into the last block of a disk, for it cannot be compressed.
NOISE = "SELECT pg_logical_emit_message(false, '', string_agg(md5(random()::text), '')) FROM generate_series(1, 9000);"


@dataclass(frozen=True)
class Kept:
    """Rows that were written while backups were made of them, and after the last."""

    commits: list[Commit]
    under_way: set[int]
    runs: list[Result]
    ended: list[float]
    """When each run was over, by the row that was acknowledged last."""

    @property
    def numbers(self) -> set[int]:
        return {commit.number for commit in self.commits}


def kept_while_written(fleet: Fleet, path: Path, times: int = 1) -> Kept:
    """So many backups while rows come, and rows after each of them."""
    runs, ended = [], []
    with rows_on(fleet, path) as rows:
        for _ in range(times):
            rows.wait_for(200)
            runs.append(fleet.playbook("backup").ok())
            ended.append(rows.commits[-1].acknowledged)
            rows.wait_for(200)
    assert rows.lost == []
    return Kept(rows.commits, rows.under_way, runs, ended)


def words(fleet: Fleet, to: str, **more: object) -> list[str]:
    """Options of a restore that asks nothing."""
    return ["-e", json.dumps({"to": to, "confirm": fleet.name, **more})]


def restore(fleet: Fleet, to: str, inventory: Path | None = None, **more: object) -> Result:
    """A restore, and the end of the backup that it has made of what it restored."""
    run = fleet.playbook("restore", *words(fleet, to, **more), inventory=inventory)
    until(lambda: not under_way(fleet), "the end of the backup after a restore", 300)
    return run


def table(output: str) -> list[dict[str, str]]:
    """The rows of a table of backups, by its headings."""
    lines = output.splitlines()
    top = next(number for number, line in enumerate(lines) if re.match(r"\s*what  +label\b", line))
    columns = [(found.group(), found.start()) for found in re.finditer(r"\S+(?: \S+)*", lines[top])]
    ends = [start for _name, start in columns[1:]] + [None]
    rows = []
    for line in lines[top + 1 :]:
        if not line.strip():
            break
        rows.append({name: line[start:end].strip() for (name, start), end in zip(columns, ends, strict=True)})
    return rows


def labels(fleet: Fleet) -> list[str]:
    """PostgreSQL's backups in the repository, the oldest first."""
    seen = fleet.on(BACKUP, f"ls -1 {REPOSITORY}/postgres/backup/*/").ok().stdout.split()
    return sorted(filter(LABEL.match, seen), key=lambda label: label.rstrip("FDI")[-15:])


def largest(fleet: Fleet, label: str) -> str:
    """A backup's largest file."""
    find = f"find {REPOSITORY}/postgres/backup/*/{label} -type f ! -name 'backup.manifest*' -printf '%s %p\\n'"
    return fleet.on(BACKUP, f"{find} | sort -n | tail -1").ok().stdout.split()[1]


@contextmanager
def flipped(fleet: Fleet, path: str) -> Iterator[None]:
    """A file of the repository with a byte that is another."""
    for_it = (BACKUP, f"python3 - {shlex.quote(path)}")
    fleet.on(*for_it, stdin=FLIP).ok()
    try:
        yield
    finally:
        fleet.on(*for_it, stdin=FLIP).ok()


@contextmanager
def away(fleet: Fleet, host: str, path: str) -> Iterator[None]:
    """A file that is not there meanwhile."""
    aside = f"/var/tmp/{Path(path).name}"
    fleet.on(host, f"cp -a {path} {aside} && rm {path}").ok()
    try:
        yield
    finally:
        fleet.on(host, f"cp -a {aside} {path} && rm {aside}").ok()


@contextmanager
def another_key(fleet: Fleet) -> Iterator[None]:
    """Hosts whose key is not the repository's."""
    aside = "/var/tmp/backup.aside"
    change = f"sed -i -E 's/(cipher-pass=).*/\\1{ANOTHER}/' {SETTINGS}/pgbackrest.conf"
    fleet.on(DATA, f"cp -a {SETTINGS} {aside} && {change}").ok()
    fleet.on(
        BACKUP, f"cp -a {SETTINGS} {aside} && {change} && echo another-key-than-before-4f8a2c6e >{SETTINGS}/key"
    ).ok()
    try:
        yield
    finally:
        for host in (DATA, BACKUP):
            fleet.on(host, f"cp -a {aside}/. {SETTINGS}/ && rm -r {aside}").ok()


@contextmanager
def repository_disk(fleet: Fleet, megabytes: int = 2500) -> Iterator[SmallDisk]:
    """The repository on a disk of its own, which takes room only where it is written to."""
    name = "repository"
    aside = f"{REPOSITORY}.aside"
    fleet.on(
        BACKUP,
        f"cp -a {REPOSITORY} {aside} && {mounting(REPOSITORY, megabytes, name)}"
        f" cp -a {aside}/. {REPOSITORY}/ && chown --reference={aside} {REPOSITORY}",
    ).ok()
    try:
        yield SmallDisk(fleet, BACKUP, REPOSITORY)
    finally:
        fleet.on(
            BACKUP,
            f"rm -rf {REPOSITORY}/.filler {aside} && cp -a {REPOSITORY} {aside} && umount -l {REPOSITORY} &&"
            f" rm -rf {REPOSITORY}/* {aside}/lost+found && cp -a {aside}/. {REPOSITORY}/;"
            f" rm -rf {aside} /var/tmp/{name}.img",
        ).ok()


def fill(disk: SmallDisk) -> None:
    """The rest of the disk, at once: only where blocks are reserved is nothing written."""
    filler = f"{disk.directory}/.filler"
    left = f"$(($(df --output=avail --block-size=K {disk.directory} | tail -1 | tr -dc 0-9) - 64))"
    disk.fleet.on(disk.host, f"fallocate -l {left}K {filler}").ok()
    assert "No space left" in disk.fleet.on(disk.host, f"cat /dev/zero >>{filler}").stdout


@dataclass(frozen=True)
class Caught:
    """A playbook in the middle of its work, which stands still on one host."""

    fleet: Fleet
    run: subprocess.Popen[str]
    host: str
    pattern: str

    def go_on(self) -> None:
        self.fleet.on(self.host, "bash -s", stdin=GO_ON.format(pattern=self.pattern)).ok()

    def ended(self) -> Result:
        output = self.run.communicate(timeout=900)[0]
        return Result(self.run.returncode, output)


def caught(fleet: Fleet, playbook: str, options: list[str], host: str, pattern: str) -> Caught:
    """A playbook whose first process on HOST that PATTERN fits stands still, whatever it was about to do next."""
    run = started(fleet, *options, name=playbook)
    if fleet.on(host, "bash -s", stdin=CATCH.format(pattern=pattern)).returncode:
        run.terminate()
        raise AssertionError(f"nothing like {pattern} on {host}:\n{run.communicate()[0][-6000:]}")
    return Caught(fleet, run, host, pattern)


def elsewhere(fleet: Fleet, target: Path, new: str) -> Path:
    """A copy of the fleet's inventory with NEW, which is bare, as its data host."""

    def move(groups: Groups) -> None:
        for group in groups.values():
            if DATA in group["hosts"]:
                known = group["hosts"].pop(DATA)
                group["hosts"][new] = {**known, "ansible_host": fleet.address(new)} if known else None

    copy_inventory(fleet.inventory, target)
    change_hosts(target, move)
    return target


def under_way(fleet: Fleet) -> bool:
    """Whether a backup or a drill is, by a timer, after a restore, or of somebody who is gone."""
    idle = "! systemctl is-active --quiet agentfleet-backup.service agentfleet-drill.service"
    # A unit that is about to do its work once is not called active.
    begun = "systemctl show --property=ActiveState agentfleet-backup.service | grep -q activating"
    free = "flock --nonblock /run/agentfleet-backup.lock true"
    return fleet.on(BACKUP, f"{idle} && ! {begun} && {free}").returncode != 0


def metrics(fleet: Fleet) -> dict[str, float]:
    """The backup host's figures, as its node exporter finds them; a label's value follows the name."""
    lines = fleet.on(BACKUP, f"cat {METRICS}").ok().stdout.splitlines()
    found = [re.fullmatch(r'(\w+)(?:\{what="(\w+)"\})? (\S+)', line) for line in lines if not line.startswith("#")]
    assert all(found), lines
    return {" ".join(filter(None, seen.groups()[:2])): float(seen.group(3)) for seen in found if seen}


def waiting(fleet: Fleet) -> float:
    fleet.on(BACKUP, "agentfleet-backup watch")
    return metrics(fleet)["agentfleet_backup_archive_waiting_files"]


def archived(fleet: Fleet) -> tuple[str, str]:
    """A row, and the end of the log's file that has it: the file's name, and where the repository keeps it."""
    fleet.sql(LATE)
    name = fleet.sql("SELECT pg_walfile_name(pg_switch_wal())")
    look = f"ls -1 {REPOSITORY}/postgres/archive/*/*/{name[:16]}/{name}-*"
    until(lambda: fleet.on(BACKUP, look).returncode == 0, f"{name} in the repository")
    return name, fleet.on(BACKUP, look).ok().stdout.strip()


def keys(fleet: Fleet, *commands: str) -> list[str]:
    """What Redis answers the service's user; the password stands in no process list."""
    lines = [f"AUTH {fleet.service} {fleet.secret('redis_password')}", *commands]
    answers = fleet.on(DATA, "redis-cli", stdin="\n".join(lines) + "\n").ok().stdout.split("\n")
    assert answers[0] == "OK", answers
    return answers[1 : len(lines)]


def serves(fleet: Fleet) -> bool:
    """Whether a user is answered."""
    with fleet.client() as client:
        return client.post("/api/chat", json={"message": "Is anybody there?"}).status_code == 200


def data_directories(fleet: Fleet, host: str = DATA) -> str:
    """What lies beside the data: one of those that were kept aside would show."""
    return fleet.on(host, "ls -A /var/lib/postgresql /var/lib/postgresql/* /var/lib/redis /var/lib").ok().stdout
