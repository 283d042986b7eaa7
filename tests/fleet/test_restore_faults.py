"""Backups and restores that meet with something: it is found and named, live data stay, the next run needs no hand."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest
import yaml
from support.backups import (
    ANOTHER,
    BACKUP,
    DATA,
    LATE,
    MOMENT,
    NOISE,
    REPOSITORY,
    SETTINGS,
    Kept,
    another_key,
    archived,
    away,
    caught,
    elsewhere,
    fill,
    flipped,
    kept_while_written,
    labels,
    largest,
    metrics,
    repository_disk,
    restore,
    serves,
    table,
    under_way,
    waiting,
    words,
)
from support.deploys import kill, power, until
from support.fleet import Fleet, Result, copy_inventory
from support.load import load_on
from support.rows import age_of_loss, missing, restored, rows_on, strangers

pytestmark = pytest.mark.soak

# A host that is there for a while, and bare before.
NEW, OLD_MAJOR, NEW_MAJOR = "bare1", "bare2", "bare3"
ARCHIVE_TIMEOUT = 60


@dataclass(frozen=True)
class Phase:
    """What a playbook is in the middle of while a process on HOST that PATTERN fits stands still."""

    playbook: str
    host: str
    pattern: str


PHASES = {
    "backup": Phase("backup", BACKUP, "pgbackrest .*backup( |$)"),
    "verify": Phase("backup", BACKUP, "pgbackrest .*verify( |$)"),
    "drill": Phase("drill", BACKUP, "pgbackrest .*restore( |$)"),
    "restore": Phase("restore", DATA, "pgbackrest .*restore( |$)"),
    "recovery": Phase("restore", DATA, "pgbackrest .*archive-get( |$)"),
}
# Recovery reads from the backup host all the while; what cuts it off there is one loss of a restore like another.
LOSSES = [(phase, lost) for phase in PHASES for lost in ("controller", DATA, BACKUP) if phase != "recovery"]


@pytest.fixture(scope="module")
def kept(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    return kept_while_written(fleet, tmp_path_factory.mktemp("rows") / "rows")


def answers(fleet: Fleet, host: str = DATA) -> bool:
    return fleet.on(host, "runuser -u postgres -- psql -XAtc 'SELECT 1'").returncode == 0


@pytest.mark.parametrize(("phase", "lost"), [*LOSSES, ("recovery", "controller")])
def test_whatever_is_lost_in_the_middle_the_next_run_works(fleet: Fleet, kept: Kept, phase: str, lost: str) -> None:
    """A restore is to a backup without the newest row, which only the data that are kept aside have then."""
    of = PHASES[phase]
    until(lambda: not under_way(fleet), "the end of an earlier backup", 300)
    fleet.sql(LATE)
    before = restored(fleet)
    chosen = words(fleet, labels(fleet)[-1]) if of.playbook == "restore" else ["-e", "what=postgres"]
    middle = caught(fleet, of.playbook, [] if of.playbook == "drill" else chosen, of.host, of.pattern)
    if of.playbook == "restore":
        assert not serves(fleet), "users get the page"
    if lost == "controller":
        kill(middle.run)
    else:
        power(fleet, "off", lost)
    if lost != of.host:
        middle.go_on()
    if lost != "controller":
        run = middle.ended()
        # What is rehearsed or looked through lies on the backup host alone.
        assert run.returncode != 0 or (phase in ("verify", "drill") and lost == DATA), run.stdout
        power(fleet, "up", lost)
    if of.playbook != "restore" or lost == BACKUP:
        until(lambda: answers(fleet), "PostgreSQL")
        assert restored(fleet) == before
        until(lambda: serves(fleet), "an answer")
    until(lambda: not under_way(fleet), "the end of what nobody waits for", 300)
    if phase == "recovery":
        fleet.playbook("restore", "-e", "undo=true").ok()
    elif phase == "restore":
        restore(fleet, "latest").ok()
    else:
        fleet.playbook(of.playbook).ok()
    assert restored(fleet) == before
    until(lambda: serves(fleet), "an answer")


def test_a_missing_file_of_the_log_is_named_and_nothing_is_restored_around_it(fleet: Fleet, kept: Kept) -> None:
    fleet.playbook("backup", "-e", "what=postgres").ok()
    _first, (name, path), _last = archived(fleet), archived(fleet), archived(fleet)
    before = restored(fleet)
    with away(fleet, BACKUP, path):
        run = restore(fleet, "latest")
        assert run.returncode == 2, run.stdout
        assert name in run.stdout, run.stdout
        assert restored(fleet) == before
        assert serves(fleet)
        looked = fleet.on(BACKUP, "agentfleet-backup verify")
        assert looked.returncode != 0, looked.stdout
        assert name in looked.stdout, looked.stdout
    fleet.on(BACKUP, "agentfleet-backup verify").ok()


def test_a_rehearsal_of_what_is_damaged_fails_and_its_figure_says_so(fleet: Fleet, kept: Kept) -> None:
    label = labels(fleet)[-1]
    with flipped(fleet, largest(fleet, label)):
        run = fleet.playbook("drill")
        assert run.returncode == 2, run.stdout
        assert label in run.stdout, run.stdout
        assert metrics(fleet)["agentfleet_backup_drill_ok"] == 0
    fleet.playbook("drill").ok()
    assert metrics(fleet)["agentfleet_backup_drill_ok"] == 1


def test_a_wrong_key_is_named_by_all_that_need_it(fleet: Fleet, kept: Kept) -> None:
    before = restored(fleet)
    with another_key(fleet):
        for run in (fleet.playbook("backup"), fleet.playbook("drill"), restore(fleet, "latest")):
            assert run.returncode == 2, run.stdout
            assert "backup_key" in run.stdout, run.stdout
        looked = fleet.on(BACKUP, "agentfleet-backup verify")
        assert looked.returncode != 0, looked.stdout
        assert "backup_key" in looked.stdout, looked.stdout
        assert restored(fleet) == before
        assert serves(fleet)
    fleet.playbook("backup").ok()
    fleet.playbook("drill").ok()


def test_a_key_that_is_not_the_repositorys_is_refused_by_site(fleet: Fleet, kept: Kept) -> None:
    look = f"sha256sum {SETTINGS}/key {SETTINGS}/pgbackrest.conf"
    before = fleet.on(BACKUP, look).ok().stdout
    run = fleet.playbook("site", "-e", f"backup_key={ANOTHER}")
    assert run.returncode != 0, run.stdout
    assert "backup_key" in run.stdout, run.stdout
    assert fleet.on(BACKUP, look).ok().stdout == before


def test_a_full_repository_is_refused_and_stops_no_database(fleet: Fleet, kept: Kept) -> None:
    with repository_disk(fleet) as disk:
        fleet.playbook("backup").ok()
        fill(disk)
        run = fleet.playbook("backup")
        assert run.returncode == 2, run.stdout
        assert REPOSITORY in run.stdout, run.stdout
        before = restored(fleet)
        fleet.sql(f"{LATE} {NOISE} SELECT pg_switch_wal();")
        until(lambda: waiting(fleet) > 0, "a file of the log that waits")
        seen = metrics(fleet)
        assert seen["agentfleet_backup_repository_free_bytes"] < 1 << 20
        fleet.sql(LATE)
        assert len(restored(fleet)) == len(before) + 2
        assert serves(fleet)
        disk.free()
        # PostgreSQL tries again once a minute.
        until(lambda: waiting(fleet) == 0, "all of the log in the repository", 180)
        fleet.playbook("backup").ok()
        assert metrics(fleet)["agentfleet_backup_archive_failures_total"] > 0


def test_a_database_goes_on_while_the_backup_host_is_away(fleet: Fleet, kept: Kept) -> None:
    power(fleet, "off", BACKUP)
    try:
        fleet.sql(f"{LATE} SELECT pg_switch_wal();")
        fleet.sql(LATE)
        assert serves(fleet)
        run = fleet.playbook("backup")
        assert run.returncode != 0, run.stdout
        assert BACKUP in run.stdout, run.stdout
    finally:
        power(fleet, "up", BACKUP)
    before = restored(fleet)
    until(lambda: waiting(fleet) == 0, "all of the log in the repository", 180)
    restore(fleet, "latest", what="postgres").ok()
    assert restored(fleet) == before


def test_users_do_not_notice_a_full_backup(fleet: Fleet, kept: Kept) -> None:
    bulk = "SELECT n, md5(n::text) || md5((n * 7)::text) AS words FROM generate_series(1, 3000000) AS n"
    fleet.sql(f"CREATE TABLE proof_bulk AS {bulk}; CHECKPOINT;")
    until(lambda: waiting(fleet) == 0, "all of the log in the repository", 300)
    try:
        with load_on(fleet, 20) as load:
            load.wait_for(400)
            load.mark("during")
            # In a session of its own, as from another terminal, or it would slow the client.
            run = fleet.run("setsid", "--wait", *fleet.command("backup", "-e", "type=full"))
            load.mark("after")
    finally:
        fleet.sql("DROP TABLE proof_bulk")
    run.ok()
    before, during = load.percentile(0.99, "before"), load.percentile(0.99, "during")
    assert load.failures == []
    assert during <= max(1.5 * before, before + 0.1), (before, during)


def test_a_damaged_backup_of_files_is_found(fleet: Fleet, kept: Kept) -> None:
    find = f"find {REPOSITORY}/files/data -type f -printf '%s %p\\n' | sort -n | tail -1"
    with flipped(fleet, fleet.on(BACKUP, find).ok().stdout.split()[1]):
        looked = fleet.on(BACKUP, "agentfleet-backup verify")
        assert looked.returncode != 0, looked.stdout
        assert "redis and config: " in looked.stdout, looked.stdout
    fleet.on(BACKUP, "agentfleet-backup verify").ok()


def test_configuration_is_there_as_it_was(fleet: Fleet, kept: Kept) -> None:
    fleet.playbook("backup", "-e", "what=config").ok()
    path = "etc/nginx/agentfleet/agent.conf"
    fleet.on(BACKUP, "agentfleet-backup dump --what config --host edge1 --to /var/tmp/edge1.tar").ok()
    unpack = f"tar --extract --to-stdout --wildcards --file=/var/tmp/edge1.tar '*{path}' && rm /var/tmp/edge1.tar"
    assert fleet.on(BACKUP, unpack).ok().stdout == fleet.on("edge1", f"cat /{path}").ok().stdout


@dataclass(frozen=True)
class Alone:
    """A fleet of one host, without one for backups."""

    lab: Fleet
    host: str
    inventory: Path

    def playbook(self, name: str, *options: str, **more: object) -> Result:
        given = {"fleet_name": f"{self.lab.name}-{self.host}", "agent_model_key": "", **more}
        return self.lab.playbook(name, "-e", json.dumps(given), *options, inventory=self.inventory)


@contextmanager
def alone(fleet: Fleet, host: str, suite: str, directory: Path) -> Iterator[Alone]:
    inventory = copy_inventory(fleet.inventory, directory / host)
    groups = {group: {"hosts": {host: None}} for group in ("edge", "agents", "postgres", "redis")}
    groups["edge"] = {"hosts": {host: {"lab_suite": suite, "ansible_host": fleet.address(host)}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"machines": {"children": groups}}}}))
    fleet.forget(host)
    fleet.board(inventory, host)
    try:
        yield Alone(fleet, host, inventory)
    finally:
        fleet.forget(host)


def copied(fleet: Fleet, source: str, target: str) -> None:
    """The repository of one host, on another in its place."""
    pack = [*fleet.ssh(source), f"tar -C {REPOSITORY} -c ."]
    unpack = f"find {REPOSITORY} -mindepth 1 -delete && tar -C {REPOSITORY} -x"
    with subprocess.Popen(pack, stdout=subprocess.PIPE) as packed:
        subprocess.run([*fleet.ssh(target), unpack], stdin=packed.stdout, check=True)
    assert packed.returncode == 0


def test_a_newer_postgresql_is_named_and_keeps_what_it_has(fleet: Fleet, tmp_path: Path) -> None:
    """Two fleets of one host each, PostgreSQL 15 and 17; the second finds the first one's repository."""
    ask = "runuser -u postgres -- psql -XAt -v ON_ERROR_STOP=1 -d agent -c "
    with (
        alone(fleet, OLD_MAJOR, "bookworm", tmp_path) as old,
        alone(fleet, NEW_MAJOR, "trixie", tmp_path) as new,
    ):
        old.playbook("site").ok()
        run = old.playbook("backup").ok()
        assert "group backup" in run.stdout, "told each time that backups lie beside the data"
        assert {row["what"] for row in table(run.stdout)} == {"postgres", "redis", "config"}
        new.playbook("site").ok()
        fleet.on(NEW_MAJOR, f"{ask} 'CREATE TABLE here (number int)'").ok()
        copied(fleet, OLD_MAJOR, NEW_MAJOR)
        refused = new.playbook("restore", to="latest", confirm=f"{fleet.name}-{NEW_MAJOR}")
        assert refused.returncode == 2, refused.stdout
        assert re.search(r"\b15\b", refused.stdout), refused.stdout
        assert re.search(r"\b17\b", refused.stdout), refused.stdout
        assert fleet.on(NEW_MAJOR, f"{ask} 'SELECT count(*) FROM here'").ok().stdout.strip() == "0"


@pytest.fixture
def moved(fleet: Fleet, tmp_path: Path) -> Iterator[Path]:
    """The lab's inventory with another data host, which is bare; the fleet moves back to its own afterwards."""
    inventory = elsewhere(fleet, tmp_path / "elsewhere", NEW)
    fleet.forget(NEW)
    yield inventory
    fleet.forget(NEW, DATA)
    fleet.playbook("lab", "-e", "lab_state=up").ok()
    fleet.playbook("site").ok()
    restore(fleet, "latest").ok()
    fleet.playbook("backup").ok()


def test_a_data_host_that_is_gone_is_replaced_by_one_of_another_name(fleet: Fleet, moved: Path, tmp_path: Path) -> None:
    """Last, for it is the longest way back. Rows come for longer than the log may wait to be archived."""
    fleet.playbook("backup").ok()
    with rows_on(fleet, tmp_path / "rows") as rows:
        end = time.monotonic() + 2.5 * ARCHIVE_TIMEOUT
        while time.monotonic() < end:
            rows.wait_for(100)
        fleet.forget(DATA)
    commits = rows.commits
    fleet.board(moved, NEW)
    fleet.playbook("site", inventory=moved).ok()
    run = restore(fleet, "latest", inventory=moved).ok()
    there = restored(fleet, NEW)
    assert age_of_loss(commits, there) <= ARCHIVE_TIMEOUT + 5
    assert strangers(commits, rows.under_way, there) == []
    until(lambda: serves(fleet), "an answer")
    lost = missing(commits, there)
    # What is missing is what came last, and the run said until when there is something.
    assert there >= {commit.number for commit in commits if lost and commit.acknowledged < lost[0].sent}
    told = [datetime.fromisoformat(f"{moment}:00").timestamp() for moment in MOMENT.findall(run.stdout)]
    assert any(abs(moment - (lost[0] if lost else commits[-1]).acknowledged) < 5 for moment in told), run.stdout
    fleet.playbook("backup", inventory=moved).ok()
