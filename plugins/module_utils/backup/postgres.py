"""PostgreSQL's backups on the backup host: made, looked through, noted and taken away again, by pgBackRest."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import catalogue, manifest, retention, verify, wal
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import Backup, Catalogue
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import (
    BackupError,
    Tell,
    fetch,
    one_line,
    run,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import HOME, STANZA, STATE, Settings
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import write

CONFIG = HOME / "pgbackrest.conf"
MANIFESTS = STATE / "manifests"
DAY = 86400
# A full backup once a week; the time between two of the same night's timer is never quite seven days.
FULL_SECONDS = 6.5 * DAY
PERCENT = re.compile(r"\((?:bundle [^,]+, )?[^,()]+, (\d+(?:\.\d+)?)%\)")
# So late as this pgBackRest looks through one set alone: 2.55 does, 2.45 does not.
VERIFIES_ONE = (2, 49)
# As one is taken away, nothing else goes with it.
LOG_STAYS = "--repo1-retention-archive=9999999"


@dataclass(frozen=True)
class Made:
    """One backup that was made: what it is, what looking through it found, and how long it took."""

    backup: Backup
    wrong: str
    seconds: float
    until: float
    rows: int


def pgbackrest(*words: str, config: Path = CONFIG) -> list[str]:
    return ["pgbackrest", f"--config={config}", f"--stanza={STANZA}", *words]


def ask(*words: str, config: Path = CONFIG) -> str:
    return run(pgbackrest(*words, config=config), user="postgres")


def version() -> tuple[int, ...]:
    said = re.search(r"(\d+(?:\.\d+)+)", run(["pgbackrest", "version"]))
    return tuple(int(part) for part in said[1].split(".")) if said else ()


class AnotherCluster(BackupError):
    """The repository has backups of a cluster that is not this one."""


def backups() -> Catalogue:
    """The backups that the repository has."""
    return catalogue.read(ask("info", "--output=json"), STANZA)


def observe() -> tuple[Catalogue, wal.Archive]:
    """The backups that the repository has, and its log."""
    known = backups()
    return known, observe_log(known.archive)


def observe_log(directory: str) -> wal.Archive:
    if not directory:
        return wal.Archive({}, {})
    path = f"archive/{STANZA}/{directory}"
    listing: Mapping[str, Any] = json.loads(ask("repo-ls", "--recurse", "--output=json", path))
    histories = {}
    for name in listing:
        if match := wal.HISTORY.search(name):
            histories[int(match[1], 16)] = ask("repo-get", f"{path}/{name}")
    return wal.archive(listing, histories)


def prepare(settings: Settings, adopt: bool) -> bool:
    """Have the repository take this cluster's backups; whether that changed anything."""
    assert settings.postgres is not None
    before = ask("info", "--output=json")
    try:
        ask("stanza-create")
    except BackupError as error:
        if "[028]" not in str(error):
            raise
        if not adopt:
            raise AnotherCluster(
                f"the repository has backups of another cluster than {settings.postgres.host}'s: bring them back with "
                "ansible-playbook playbooks/restore.yml, or go on with this cluster from now on: "
                f"agentfleet-backup prepare --adopt on {settings.host}"
            ) from error
        ask("stanza-upgrade")
    return ask("info", "--output=json") != before


def choose(wanted: str, known: Catalogue, have: wal.Archive, now: float) -> str:
    """Full, differential or incremental: what `auto` comes to."""
    whole = [backup for backup in catalogue.usable(known, have) if backup.timeline == have.timeline]
    fulls = [backup for backup in whole if backup.type == "full"]
    if not fulls:
        return "full"
    if wanted != "auto":
        return wanted
    _last, lacking = wal.follow(whole[-1].wal_start, have)
    # After a gap, moments can be restored again from a new backup on.
    return "full" if now - fulls[-1].stop > FULL_SECONDS else "diff" if not lacking else "full"


def back_up(settings: Settings, wanted: str, tell: Tell) -> Made:
    """Make one, look through it, note what was there, take away what is too old."""
    assert settings.postgres is not None
    began = time.time()
    known, have = observe()
    kind = choose(wanted, known, have, began)
    tell(f"postgres: {kind} backup of {settings.postgres.host}")
    copy(kind, tell)
    made = backups().backups[-1]
    if made.stop < began - 1:
        raise BackupError("pgBackRest ended well and made no backup")
    rows = note_rows(settings, made.label)
    tell(f"postgres: {made.label} is made; looking through it")
    verdict = look_through(made.label)
    wrong = verdict.wrong.get(made.label, "") or "; ".join(verdict.log)
    if not wrong:
        ask("annotate", f"--set={made.label}", f"--annotation={catalogue.VERIFIED}={int(time.time())}")
    expire(settings, tell)
    known, have = observe()
    last, _lacking = wal.follow(made.wal_start, have)
    until = max(have.arrived.get(last, made.stop) if last else made.stop, made.stop)
    return Made(made, wrong, time.time() - began, until, rows)


def copy(kind: str, tell: Tell) -> None:
    """Have pgBackRest copy, and say how far it is."""
    words = ["runuser", "-u", "postgres", "--", *pgbackrest("backup", f"--type={kind}", "--log-level-console=detail")]
    said: list[str] = []
    shown = time.monotonic()
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd="/"
    ) as going:
        assert going.stdout is not None
        for raw in going.stdout:
            line = raw.decode(errors="replace").rstrip()
            said = [*said[-200:], line]
            match = PERCENT.search(line)
            if match and time.monotonic() - shown > 5:
                shown = time.monotonic()
                tell(f"postgres: {float(match[1]):.0f} %")
    if going.returncode:
        raise BackupError(f"pgbackrest backup ended with {going.returncode}: {one_line(chr(10).join(said))}")


def note_rows(settings: Settings, label: str) -> int:
    """Have the PostgreSQL host make a point in the log and count its rows there, for the rehearsal of a restore."""
    assert settings.postgres is not None
    raw = json.loads(fetch(settings.source(settings.postgres.host), ["manifest", f"backup-{label}"]))
    MANIFESTS.mkdir(parents=True, exist_ok=True)
    write(MANIFESTS / f"{label}.json", json.dumps(raw).encode(), 0o600)
    ask("annotate", f"--set={label}", f"--annotation={catalogue.POINT}={raw['name']}")
    return manifest.parse(raw).rows()


def noted_rows(label: str) -> manifest.Manifest | None:
    try:
        return manifest.parse(json.loads((MANIFESTS / f"{label}.json").read_text()))
    except (OSError, ValueError, KeyError):
        return None


def look_through(label: str = "") -> verify.Verdict:
    """Read the repository back: one set, or all of it."""
    one = [f"--set={label}"] if label and version() >= VERIFIES_ONE else []
    text = ask("verify", "--output=text", "--verbose", *one)
    known, have = observe()
    looked = [backup for backup in known.backups if not one or backup.label == label]
    return verify.judge(text, looked, have)


def expire(settings: Settings, tell: Tell) -> list[str]:
    """Take away what the retention does not keep; pgBackRest has no rule for days, weeks and months."""
    known = backups()
    gone = retention.expired(known.backups, settings.retention)
    for label in gone:
        tell(f"postgres: taking away {label}, which is older than is kept")
        ask("expire", f"--set={label}", LOG_STAYS)
    left = [backup for backup in known.backups if backup.label not in gone]
    ask("expire", f"--repo1-retention-archive={retention.fulls_with_log(left, settings.retention)}")
    labels = {backup.label for backup in left}
    for path in MANIFESTS.glob("*.json"):
        if path.stem not in labels:
            path.unlink()
    return gone
