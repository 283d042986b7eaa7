"""Backups and restores through the front door: what is kept, how it is proven, and what a restore brings back."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from support.backups import (
    BACKUP,
    DATA,
    MOMENT,
    REPOSITORY,
    SETTINGS,
    Kept,
    data_directories,
    flipped,
    kept_while_written,
    keys,
    labels,
    largest,
    metrics,
    restore,
    serves,
    table,
)
from support.deploys import committed, director, options, serving, until
from support.fleet import Fleet
from support.rows import TABLE, WORDS, committed_by, missing, quiet, restored, strangers, written
from support.secrets import shown

KINDS = {"postgres", "redis", "config"}
TIMERS = ("agentfleet-backup.timer", "agentfleet-drill.timer", "agentfleet-backup-watch.timer")


@pytest.fixture(scope="module")
def kept(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Kept:
    """Two backups while 200 rows a second are written, rows after each of them, and keys in Redis."""
    written = keys(fleet, "DEL proof:kept proof:many", "SET proof:kept before", "SADD proof:many one two three")
    assert written[1:] == ["OK", "3"]
    return kept_while_written(fleet, tmp_path_factory.mktemp("rows") / "rows", times=2)


def test_a_table_says_what_was_kept_and_how_it_was_verified(fleet: Fleet, kept: Kept) -> None:
    for run in kept.runs:
        rows = {row["what"]: row for row in table(run.stdout)}
        assert set(rows) == KINDS, run.stdout
        assert all(row["label"] and row["size"] and row["seconds"] and row["verified"] for row in rows.values())
        assert rows["postgres"]["label"] in labels(fleet)
        assert MOMENT.search(rows["postgres"]["restorable until"]), rows


def test_the_first_is_full_and_the_next_is_not(fleet: Fleet, kept: Kept) -> None:
    first, second = (next(row["label"] for row in table(run.stdout) if row["what"] == "postgres") for run in kept.runs)
    # A lab that an earlier run left has a full one of this week.
    assert second.startswith(first[:16])
    assert re.search("_.*[DI]$", second), second


def test_timers_do_it_without_anybody(fleet: Fleet) -> None:
    shown = "systemctl show --property=Id,UnitFileState,ActiveState,RandomizedDelayUSec --value "
    for timer in TIMERS:
        state = fleet.on(BACKUP, shown + timer).ok().stdout.split()
        assert {"enabled", "active"} <= set(state), state
    for timer in TIMERS[:2]:
        delay = fleet.on(BACKUP, f"systemctl show --property=RandomizedDelayUSec --value {timer}").ok().stdout
        assert delay.strip() != "0", timer
    assert fleet.on(DATA, "systemctl list-unit-files 'agentfleet-backup*.timer' --no-legend").stdout.strip() == ""


def test_figures_are_for_prometheus(fleet: Fleet, kept: Kept) -> None:
    fleet.on(BACKUP, "agentfleet-backup watch").ok()
    seen = metrics(fleet)
    for name in ("last_success_timestamp_seconds", "verified_timestamp_seconds", "size_bytes", "seconds"):
        assert {f"agentfleet_backup_{name} {kind}" for kind in KINDS} <= set(seen), sorted(seen)
    last = seen["agentfleet_backup_last_success_timestamp_seconds postgres"]
    assert kept.commits[0].sent < last < kept.ended[-1] + 5
    assert seen["agentfleet_backup_archive_lag_seconds"] < 65
    assert seen["agentfleet_backup_archive_waiting_files"] < 5
    assert seen["agentfleet_backup_archive_failures_total"] >= 0
    assert seen["agentfleet_backup_repository_free_bytes"] > 0

    name = "agentfleet_backup_last_success_timestamp_seconds"
    url = f"http://{fleet.address('ops1')}:9090/api/v1/query?{urlencode({'query': name})}"
    fetch = f"import urllib.request as u; print(u.urlopen('{url}', timeout=10).read().decode())"

    def scraped() -> set[str]:
        found = json.loads(fleet.on("edge1", f"python3 -c {shlex.quote(fetch)}").ok().stdout)["data"]["result"]
        return {result["metric"]["what"] for result in found}

    until(lambda: scraped() == KINDS, "the figures in Prometheus")


def test_a_rehearsal_restores_the_newest_and_says_so(fleet: Fleet, kept: Kept) -> None:
    run = fleet.playbook("drill").ok()
    assert labels(fleet)[-1] in run.stdout, run.stdout
    seen = metrics(fleet)
    assert seen["agentfleet_backup_drill_ok"] == 1
    assert seen["agentfleet_backup_drill_timestamp_seconds"] > kept.ended[-1]
    # Beside everything, and nothing is left of it.
    assert fleet.on(BACKUP, "pgrep -u postgres -x postgres").stdout == ""
    assert "drill" in fleet.playbook("status").ok().stdout.lower()


def test_nothing_in_the_repository_can_be_read_without_the_key(
    fleet: Fleet, kept: Kept, values: dict[str, str]
) -> None:
    key = fleet.on(BACKUP, f"cat {SETTINGS}/key").ok().stdout.strip()
    known = {**values, "backup_key": key, "row": WORDS, "table": f"CREATE TABLE {TABLE}"}
    patterns = "\n".join(known.values())
    look = "grep --recursive --files-with-matches --text --fixed-strings --file=- {} 2>/dev/null"
    assert fleet.on(BACKUP, look.format(REPOSITORY), stdin=patterns).stdout == ""
    # What is compressed shows no row either: it has to be encrypted as well, file by file. The parts of a bundle are,
    # and do not say so; one that was only compressed would begin as zstd does.
    plain = (
        f"find {REPOSITORY}/postgres -type f -size +0 | while read -r file; do"
        ' case "$(head -c 8 "$file" | od -An -tx1 | tr -d " ")$file" in'
        ' 53616c7465645f5f*) ;; 28b52ffd*) echo "$file" ;; */bundle/*) ;; *) echo "$file" ;; esac; done'
    )
    assert fleet.on(BACKUP, plain).ok().stdout == ""
    # The search itself finds what is there.
    fleet.sql("CHECKPOINT")
    assert fleet.on(DATA, look.format("/var/lib/postgresql"), stdin=WORDS).stdout != ""


def test_no_run_tells_the_key(fleet: Fleet, kept: Kept, values: dict[str, str]) -> None:
    key = fleet.on(BACKUP, f"cat {SETTINGS}/key").ok().stdout.strip()
    for run in kept.runs:
        assert shown(run.stdout, {**values, "backup_key": key}) == []


REFUSED = [
    ("20200101-000000F", "20200101-000000F"),
    ("2020-01-31 12:00:00+00", "before the end of the first"),
    ("2099-01-31 12:00:00+00", "2099-01-31 12:00:00+00"),
    ("yesterday", "yesterday"),
]


@pytest.mark.parametrize(("to", "words"), REFUSED, ids=[to for to, _words in REFUSED])
def test_what_cannot_be_restored_is_named_before_anything_changes(
    fleet: Fleet, kept: Kept, to: str, words: str
) -> None:
    before, beside = restored(fleet), data_directories(fleet)
    run = restore(fleet, to)
    assert run.returncode == 2, run.stdout
    assert words in run.stdout, run.stdout
    assert (restored(fleet), data_directories(fleet)) == (before, beside)
    assert serves(fleet)


def test_a_restore_wants_to_be_told_which_fleet(fleet: Fleet, kept: Kept) -> None:
    for more in ([], ["-e", "confirm=another"]):
        run = fleet.playbook("restore", "-e", "to=latest", *more)
        assert run.returncode == 2, run.stdout
        assert f"confirm={fleet.name}" in run.stdout
    checked = fleet.playbook("restore", "-e", "to=latest", "--check").ok()
    assert MOMENT.search(checked.stdout), checked.stdout
    assert restored(fleet) >= kept.numbers


def test_a_flipped_byte_is_found_named_and_never_restored(fleet: Fleet, kept: Kept) -> None:
    """The restore finds it on its way, with what was there kept aside; looking through finds it before."""
    before, label = restored(fleet), labels(fleet)[-1]
    with flipped(fleet, largest(fleet, label)):
        run = restore(fleet, label)
        assert run.returncode == 2, run.stdout
        assert label in run.stdout, run.stdout
        assert restored(fleet) == before
        until(lambda: serves(fleet), "an answer")
        found = fleet.on(BACKUP, "agentfleet-backup verify")
        assert found.returncode != 0, found.stdout
        assert label in found.stdout, found.stdout
        again = restore(fleet, label)
        assert again.returncode == 2, again.stdout
        assert label in again.stdout, again.stdout
    fleet.on(BACKUP, "agentfleet-backup verify").ok()


def test_a_look_before_deciding_leaves_what_is_there(fleet: Fleet, kept: Kept) -> None:
    before = restored(fleet)
    moment = quiet(kept.commits, kept.ended[0])
    try:
        restore(fleet, written(moment), into="proof_look").ok()
        assert restored(fleet, database="proof_look") == committed_by(kept.commits, moment)
        assert restored(fleet) == before
        assert serves(fleet)
    finally:
        fleet.sql("DROP DATABASE IF EXISTS proof_look WITH (FORCE)")


def test_latest_brings_back_every_row_and_key(fleet: Fleet, kept: Kept) -> None:
    beside = data_directories(fleet)
    assert keys(fleet, "SET proof:kept after", "SET proof:late x", "DEL proof:many") == ["OK", "OK", "1"]
    restore(fleet, "latest").ok()
    there = restored(fleet)
    assert missing(kept.commits, there) == []
    assert strangers(kept.commits, kept.under_way, there) == []
    wanted = ["before", "0", "3"]
    assert keys(fleet, "GET proof:kept", "EXISTS proof:late", "SCARD proof:many") == wanted
    # An append-only file that was not made of what was restored would be read as an empty database.
    fleet.on(DATA, "systemctl restart redis-server").ok()
    until(lambda: fleet.on(DATA, "redis-cli PING").stdout.startswith(("PONG", "NOAUTH")), "Redis")
    assert keys(fleet, "GET proof:kept", "EXISTS proof:late", "SCARD proof:many") == wanted
    assert data_directories(fleet) == beside, "what was kept aside is gone"
    until(lambda: serves(fleet), "an answer")


def test_a_moment_brings_back_exactly_what_was_committed_before_it(fleet: Fleet, kept: Kept) -> None:
    """Through the timeline that the restore before this one began, to a moment before it parted."""
    moment = quiet(kept.commits, kept.ended[0])
    restore(fleet, written(moment), what="postgres").ok()
    assert restored(fleet) == committed_by(kept.commits, moment)
    assert serves(fleet)


def test_the_next_backup_needs_no_hand(fleet: Fleet, kept: Kept) -> None:
    run = fleet.playbook("backup", "-e", "what=postgres").ok()
    assert [row["what"] for row in table(run.stdout)] == ["postgres"]
    fleet.on(BACKUP, "agentfleet-backup verify").ok()


def migrating(number: str, statement: str) -> Callable[[Path], None]:
    """A change: one more migration."""

    def change(app: Path) -> None:
        versions = app / "migrations/versions"
        newest = max(re.findall(r'^revision = "(\w+)"', path.read_text(), re.M)[0] for path in versions.glob("*.py"))
        lines = ("from alembic import op", f'revision = "{number}"', f'down_revision = "{newest}"', "", "")
        body = f'def upgrade() -> None:\n    op.execute("{statement}")\n'
        (versions / f"{number}_proof.py").write_text("\n".join(lines) + body)

    return change


def there_is(fleet: Fleet, name: str) -> bool:
    return fleet.sql(f"SELECT to_regclass('{name}') IS NOT NULL") == "t"


def test_a_deploy_with_a_migration_can_be_gone_back_to(
    fleet: Fleet, kept: Kept, app: Path, stable: str, tmp_path: Path
) -> None:
    migrated = committed(fleet, tmp_path / "clone", migrating("8001", "CREATE TABLE proof_of_migration (number int)"))
    run = fleet.playbook("deploy", *options(migrated, "migrates", 0)).ok()
    assert there_is(fleet, "proof_of_migration")
    history = director(fleet)["backends"]["agent"]["history"]
    deploy = next(entry for entry in reversed(history) if "migrates" in entry["release"])
    assert "restore point" in run.stdout, run.stdout
    assert re.search(r"ok +backup +postgres \d+ min ago", run.stdout), run.stdout
    assert deploy["id"] in fleet.on("edge1", "agentfleet-director history").ok().stdout
    # Code first: what is older than a database may serve with it, not the other way round.
    before = restored(fleet)
    fleet.playbook("rollback").ok()
    assert serving(fleet) == stable
    restore(fleet, deploy["id"], what="postgres").ok()
    assert not there_is(fleet, "proof_of_migration")
    assert restored(fleet) == before
    assert serves(fleet)
