"""Backups of a database of 2 GB beside what else one would type, and the minutes from a data host that is gone.

make bench ONLY=backup      MEGABYTES=500 for a smaller database, SUITE=bookworm for both ends on Debian 12

All in one run on the same hosts, in turn where two are compared: a full backup and `pg_basebackup | zstd -3 -T2`, a
restore and `pg_restore -j2` of a dump of the same database. A backup's seconds are those of pgBackRest; what is read
back and counted afterwards is only in those of the playbook. The text is half noise: compressed, it is a third.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from common import TOP, Fleet, Result, copy_inventory, lab, row_of, table
from support.backups import BACKUP, DATA, elsewhere, serves, under_way, waiting, words
from support.deploys import until
from support.fleet import Groups, change_hosts

NETWORK = "10.84.0.0/24"
MEGABYTES = int(os.environ.get("MEGABYTES", "2000"))
SUITE = os.environ.get("SUITE", "trixie")
DEBIAN = {"bookworm": 12, "trixie": 13}[SUITE]
# A row with its head and its part of the index.
ROW_BYTES = 258
TIMES = 2
NEW = "bare1"
# What pg_basebackup wants beyond what the fleet's own hosts may.
HBA = ["local replication postgres peer"]
FILL = """
CREATE TABLE bench (number bigint PRIMARY KEY, words text NOT NULL);
INSERT INTO bench SELECT n, md5(n::text) || md5((n * 3)::text) || md5((n * 7)::text) || md5((n * 11)::text)
    || repeat('x', 64) FROM generate_series(1, {rows}) AS n;
"""
CHANGE = "UPDATE bench SET words = reverse(words) WHERE number BETWEEN {first} AND {last}; CHECKPOINT;"
PSQL = "psql -Xq -v ON_ERROR_STOP=1 -d agent"
WORK = "/var/tmp/bench"
BASE = f"pg_basebackup -D - -F tar -X fetch -c fast | zstd -q -3 -T2 -f -o {WORK}/base.tar.zst"
DUMP = f"rm -rf {WORK}/dump && pg_dump -F directory -j 2 -f {WORK}/dump agent"
LOAD = f"dropdb --if-exists again && createdb again && pg_restore -j 2 -d again {WORK}/dump"
# How long a program ran, from its own host: a playbook does more than restore.
WATCH = """
until pgrep -f '{pattern}' >/dev/null; do sleep 0.05; done
begin=$(date +%s.%N)
while pgrep -f '{pattern}' >/dev/null; do sleep 0.05; done
echo $(date +%s.%N) $begin
"""


def run() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    inventory = copy_inventory(TOP / "inventories/lab", directory / "lab")
    change_hosts(inventory, on_suite)
    with lab("backup", NETWORK, inventory, agent_model_key="", postgres_extra_hba=HBA) as fleet:
        for name in ("site", "deploy"):
            fleet.playbook(name).ok()
        prepare(fleet)
        table(f"{MEGABYTES / 1000:.3g} GB, Debian {DEBIAN}", "seconds", "beside it", "", "limit")
        full = backups(fleet)
        difference(fleet, full)
        restores(fleet)
        lost(fleet, directory)


def prepare(fleet: Fleet) -> None:
    fleet.on(DATA, f"apt-get -q -y install zstd && install -d -o postgres {WORK}").ok()
    as_postgres(fleet, PSQL, FILL.format(rows=MEGABYTES * 1_000_000 // ROW_BYTES))
    # Hints and the map of what is visible are written now, not between a full backup and the next.
    fleet.sql("VACUUM (FREEZE, ANALYZE) bench")
    fleet.sql("CHECKPOINT")
    until(lambda: waiting(fleet) == 0, "all of the log in the repository", 900)


def backups(fleet: Fleet) -> float:
    """A full backup and the other way to make one, in turn; the median of the first."""
    ours, whole, theirs = [], [], []
    for _ in range(TIMES):
        theirs.append(as_postgres(fleet, f"bash -o pipefail -c '{BASE}'"))
        all_of_it, alone = backup(fleet, "full")
        ours.append(alone)
        whole.append(all_of_it)
    mine, other = median(ours), median(theirs)
    size = int(fleet.sql("SELECT sum(pg_database_size(oid)) FROM pg_database")) / 1e6
    rates = f"{size / mine:.0f} and {size / other:.0f} MB/s, {other / mine:.2f} of its rate"
    what = f"full backup, median of {TIMES}; `pg_basebackup` to `zstd -3 -T2`"
    row_of(what, f"{mine:.1f}", f"{other:.1f}", rates, "0.8")
    row_of("`backup.yml`, all of it: read back, rows counted", f"{median(whole):.1f}", "", "", "")
    return mine


def backup(fleet: Fleet, kind: str) -> tuple[float, float]:
    """What the playbook took, and of it the backup itself."""
    options = ("-e", "what=postgres", "-e", f"type={kind}")
    return watched(fleet, BACKUP, "pgbackrest .*backup( |$)", lambda: fleet.playbook("backup", *options))


def difference(fleet: Fleet, full: float) -> None:
    """A hundredth of the rows is changed, one after the other."""
    rows = int(fleet.sql("SELECT count(*) FROM bench"))
    first = rows // 2
    as_postgres(fleet, PSQL, CHANGE.format(first=first, last=first + rows // 100 - 1))
    until(lambda: waiting(fleet) == 0, "all of the log in the repository", 300)
    seconds = backup(fleet, "diff")[1]
    what = "differential after 1 % of the rows, contiguous, changed; the full"
    row_of(what, f"{seconds:.1f}", f"{full:.1f}", f"{100 * seconds / full:.0f} %", "25 %")


def restores(fleet: Fleet) -> None:
    """The whole playbook, and of it what copies files, beside a dump that is loaded again on the same host."""
    as_postgres(fleet, f"bash -c '{DUMP}'")
    loaded = as_postgres(fleet, f"bash -c '{LOAD}'")
    as_postgres(fleet, f"bash -c 'dropdb again && rm -rf {WORK}/*'")
    until(lambda: waiting(fleet) == 0, "all of the log in the repository", 900)
    # What loading wrote is not to be gone through again.
    backup(fleet, "diff")
    whole, alone = watched(fleet, DATA, "pgbackrest .*restore( |$)", lambda: restore(fleet, what="postgres"))
    for what, seconds in (("`restore.yml`, all of it", whole), ("of it, until the files are there", alone)):
        row_of(f"{what}; `pg_restore -j2`", f"{seconds:.1f}", f"{loaded:.1f}", f"{seconds / loaded:.2f}", "1.0")


def restore(fleet: Fleet, inventory: Path | None = None, **more: object) -> Result:
    """Until users are served again; the backup that it has made then is not waited for."""
    return fleet.playbook("restore", *words(fleet, "latest", **more), inventory=inventory)


def watched(fleet: Fleet, host: str, pattern: str, act: Callable[[], Result]) -> tuple[float, float]:
    """What ACT took, and of it a program on HOST that PATTERN fits, in seconds."""
    seen: list[Result] = []
    script = WATCH.format(pattern=pattern)
    watch = threading.Thread(target=lambda: seen.append(fleet.on(host, "bash -s", stdin=script)), daemon=True)
    watch.start()
    began = time.monotonic()
    act().ok()
    whole = time.monotonic() - began
    watch.join(30)
    end, begin = seen[0].ok().stdout.split()
    return whole, float(end) - float(begin)


def lost(fleet: Fleet, directory: Path) -> None:
    """From the data host's end to an answer, by site.yml and restore.yml on a bare host of another name."""
    inventory = elsewhere(fleet, directory / "elsewhere", NEW)
    until(lambda: not under_way(fleet), "the end of the backup after a restore", 900)
    fleet.forget(DATA)
    began, seconds = time.monotonic(), {}
    for what, act in (
        ("a host boots", lambda: fleet.board(inventory, NEW)),
        ("`site.yml`", lambda: fleet.playbook("site", inventory=inventory).ok()),
        ("`restore.yml`", lambda: restore(fleet, inventory).ok()),
        ("an answer", lambda: until(lambda: serves(fleet), "an answer", 300)),
    ):
        before = time.monotonic()
        act()
        seconds[what] = time.monotonic() - before
    whole = time.monotonic() - began
    parts = ", ".join(f"{what} {took:.0f}" for what, took in seconds.items())
    row_of("data host lost to the first answered chat", f"{whole:.0f}", "", parts, "")


def on_suite(groups: Groups) -> None:
    """Backups want the same Debian release on both ends."""
    for group in groups.values():
        for host in (DATA, BACKUP):
            if known := group["hosts"].get(host):
                known["lab_suite"] = SUITE


def as_postgres(fleet: Fleet, command: str, stdin: str | None = None) -> float:
    """What a command of PostgreSQL's own user took on the data host, in seconds."""
    began = time.monotonic()
    typed = [*fleet.ssh(DATA), f"cd /var/tmp && runuser -u postgres -- {command}"]
    done = subprocess.run(typed, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    Result(done.returncode, done.stdout).ok()
    return time.monotonic() - began
