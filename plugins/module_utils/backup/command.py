"""agentfleet-backup: the fleet's backups from the backup host alone, without Ansible. Timers call it, and playbooks."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup import (
    catalogue,
    drill,
    files,
    metrics,
    postgres,
    restic,
    restic_snapshots,
    state,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import stamp
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import (
    BackupError,
    Tell,
    alone,
    fetch,
    source_command,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import run as run_program
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import Settings, load

Result = dict[str, Any]
POINTS = "points"
# So many restore points are remembered.
POINTS_KEPT = 200


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="agentfleet-backup", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        one = commands.add_parser(name, help=text, description=text)
        one.add_argument("--json", action="store_true", help="one JSON document on standard output")
        return one

    prepare = command("prepare", "Have the repositories take this fleet's backups.")
    prepare.add_argument("--adopt", action="store_true", help="go on with a cluster that is not the one that was kept")
    run = command("run", "Back up, read it back, take away what is too old.")
    run.add_argument("--what", default="all", choices=["all", "postgres", "redis", "config"])
    run.add_argument("--type", default="auto", choices=["auto", "full", "diff", "incr"])
    command("list", "Show the backups, and the moments that can be restored.")
    command("verify", "Read every backup back and say what is damaged.")
    command("drill", "Restore the newest backup and a moment since, beside everything, and look into both.")
    command("watch", "Write the figures anew.")
    plan = command("plan", "Say what a restore would begin with, without doing it.")
    plan.add_argument("--to", default="latest")
    plan.add_argument("--what", default="postgres", choices=["postgres", "redis", "config"])
    plan.add_argument("--host", default="", help="of which host, where that is the question")
    point = command("point", "Make a point in PostgreSQL's log that a restore can go back to.")
    point.add_argument("name")
    send = command("send", "Send a backup of Redis, or of a host's configuration, to the host that restores it.")
    send.add_argument("--what", required=True, choices=["redis", "config"])
    send.add_argument("--label", default="latest")
    send.add_argument("--host", required=True, help="where it goes")
    dump = command("dump", "Write a backup of Redis or of a host's configuration to a file.")
    dump.add_argument("--to", required=True, help="the file")
    dump.add_argument("--what", required=True, choices=["redis", "config"])
    dump.add_argument("--label", default="latest")
    dump.add_argument("--host", default="")
    return parser


def free_bytes(settings: Settings) -> int | None:
    try:
        return shutil.disk_usage(settings.repository).free if not settings.s3 else None
    except OSError:
        return None


def prepare(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    repository = settings.repository / "files"
    changed = not settings.s3 and not repository.exists()
    restic.open_repository(settings, tell).make()
    # Which fails where it was made with another key.
    files.listed(settings)
    note = ""
    if settings.postgres:
        try:
            changed = postgres.prepare(settings, wanted.adopt) or changed
        except postgres.AnotherCluster as error:
            # What was kept before must not be lost for it: the role says it, and goes on.
            note = str(error)
    return {"changed": changed, "note": note, "lines": [note or "the repositories are ready"]}


def run(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    """Each kind by itself: what one of them lacks keeps no other from being kept."""
    kinds = [kind for kind in settings.kinds() if wanted.what in ("all", kind)]
    if not kinds:
        raise BackupError(f"this fleet has no {wanted.what} of its own to keep")
    rows, failed = [], []
    for kind in kinds:
        began = time.time()
        try:
            rows.append(keep(kind, settings, wanted.type, tell))
        except BackupError as error:
            rows.append({"what": kind, "problem": str(error)})
        problem = rows[-1].get("problem")
        if problem:
            failed.append(f"{kind}: {problem}")
            state.note(kind, {"failed_at": time.time(), "problem": problem})
        else:
            told = {key: rows[-1].get(key) for key in ("label", "size", "until")}
            state.note(
                kind, {**told, "at": began, "verified_at": time.time(), "seconds": time.time() - began, "problem": ""}
            )
    publish(settings)
    return {"changed": True, "rows": rows, "failed": failed, "lines": table(rows)}


def keep(kind: str, settings: Settings, wanted: str, tell: Tell) -> Result:
    began = time.time()
    if kind == "postgres":
        if problem := files.shortage(settings):
            raise BackupError(problem)
        made = postgres.back_up(settings, wanted, tell)
        return {
            "what": kind,
            "label": made.backup.label,
            "size": made.backup.size,
            "stored": made.backup.stored,
            "seconds": made.seconds,
            "verified": f"every file and the log read back, {made.rows} rows counted",
            "until": made.until,
            "problem": made.wrong,
        }
    parts = files.backup(settings, kind, tell)
    whole = [one for one in parts if not one.problem]
    files.expire(settings, tell)
    return {
        "what": kind,
        "label": whole[-1].label if whole else "",
        "size": sum(one.size for one in whole),
        "stored": sum(one.stored for one in whole),
        "seconds": sum(one.seconds for one in parts),
        "verified": f"read back and compared, {len(whole)} of {len(parts)} hosts",
        "until": began,
        "problem": "; ".join(f"{one.host}: {one.problem}" for one in parts if one.problem),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    heads = ("what", "label", "size", "stored", "seconds", "verified", "restorable until")
    lines: list[tuple[str, ...]] = [heads]
    for row in rows:
        if row.get("problem"):
            lines.append((str(row["what"]), str(row.get("label", "")), "", "", "", f"FAILED: {row['problem']}", ""))
        else:
            lines.append(
                (
                    str(row["what"]),
                    str(row["label"]),
                    human(row["size"]),
                    human(row["stored"]),
                    f"{row['seconds']:.1f}",
                    str(row["verified"]),
                    stamp(round(row["until"])),
                )
            )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]


def human(size: int) -> str:
    number, units = float(size), ["B", "kB", "MB", "GB", "TB"]
    while number >= 1000 and len(units) > 1:
        number, units = number / 1000, units[1:]
    return f"{number:.0f} B" if units[0] == "B" else f"{number:.1f} {units[0]}"


def listed(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    document: Result = {"postgres": [], "redis": [], "config": [], "points": state.read().get(POINTS, {})}
    lines = []
    if settings.postgres:
        known, have = postgres.observe()
        bad = damaged()
        whole = {backup.label for backup in catalogue.usable(known, have, bad)}
        for backup in known.backups:
            entry = {**asdict(backup), "usable": backup.label in whole}
            document["postgres"].append(entry)
            verified = "verified" if backup.notes.get(catalogue.VERIFIED) else "not verified"
            word = verified if entry["usable"] else "cannot be restored from here"
            lines.append(f"postgres  {backup.label}  {stamp(backup.stop)}  {human(backup.size)}  {word}")
        try:
            until = catalogue.resolve("latest", known, have, {}, bad).until
            document["until"] = until
            lines.append(f"postgres  any moment until {stamp(until or 0)}")
        except BackupError as error:
            lines.append(f"postgres  {error}")
    for snapshot in files.listed(settings):
        document[snapshot.what].append(asdict(snapshot))
        size = human(snapshot.size)
        lines.append(f"{snapshot.what:8}  {snapshot.label}  {stamp(snapshot.at)}  {size}  {snapshot.host}")
    return {"changed": False, **document, "lines": lines or ["there is no backup yet"]}


def damaged() -> list[str]:
    return [str(label) for label in state.read().get("damaged", {}).get("labels", ())]


def verify(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    lines, failed = [], []
    if settings.postgres:
        verdict = postgres.look_through()
        state.note("damaged", {"labels": sorted(verdict.wrong)})
        wrong = [f"{label}: {why}" for label, why in verdict.wrong.items()] + list(verdict.log)
        failed += [f"postgres: {line}" for line in wrong]
        if not wrong:
            lines.append(f"postgres: whole, {verdict.files} files and the log read back")
            state.note("postgres", {"verified_at": time.time()})
    read = files.verify(settings, tell)
    failed += [f"redis and config: {line}" for line in read.problems]
    if not read.problems:
        lines.append(f"redis and config: whole, {len(read.whole)} backups read back")
    publish(settings)
    return {"changed": False, "failed": failed, "lines": [*lines, *failed]}


def rehearse(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    try:
        told = drill.rehearse(settings, tell)
    except BackupError as error:
        told = {"at": time.time(), "ok": False, "lines": [str(error)]}
    state.note("drill", told)
    publish(settings)
    failed = [] if told["ok"] else [line for line in told["lines"]]
    return {"changed": False, "failed": failed, **told}


def watch(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    if settings.postgres:
        try:
            told = json.loads(fetch(settings.source(settings.postgres.host), ["archiver"]))
            state.note("archive", {**told, "seen": True, "at": time.time(), "problem": ""})
        except BackupError as error:
            state.note("archive", {"seen": False, "problem": str(error)})
    publish(settings)
    return {"changed": False, **state.read(), "lines": []}


def publish(settings: Settings) -> None:
    metrics.publish(state.read(), free_bytes(settings))


def plan(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    """What a restore begins with; raises where there is nothing to begin with."""
    if wanted.what != "postgres":
        snapshot = find(files.listed(settings), wanted.to, wanted.what, wanted.host)
        return {
            "changed": False,
            **asdict(snapshot),
            "lines": [f"{wanted.what}: {snapshot.label}, {stamp(snapshot.at)}"],
        }
    if settings.postgres is None:
        raise BackupError("this fleet has no PostgreSQL of its own")
    known, have = postgres.observe()
    target = catalogue.resolve(wanted.to, known, have, points(), damaged())
    if known.version != settings.postgres.version:
        raise BackupError(
            f"the backups are of PostgreSQL {known.version}, and {settings.postgres.host} has "
            f"{settings.postgres.version}: restore on a host whose Debian has PostgreSQL {known.version}"
        )
    backup = known.named(target.label)
    lost = f"everything written after {stamp(round(target.until or time.time()))}"
    return {
        "changed": False,
        **asdict(target),
        "moment": stamp(target.until or backup.stop),
        "size": backup.size,
        "system": str(known.system),
        "verified": bool(backup.notes.get(catalogue.VERIFIED)),
        "lines": [f"postgres: {target.words}, beginning with backup {target.label}", f"what goes: {lost}"],
    }


def find(kept: Sequence[restic_snapshots.Kept], to: str, what: str, host: str) -> restic_snapshots.Kept:
    """The newest, one by its label, or the newest that was made until a moment."""
    if to == "latest" or any(one.label == to for one in kept):
        return restic_snapshots.choose(kept, to, what, host)
    at = catalogue.moment(to)
    earlier = [one for one in kept if one.at <= at]
    if not earlier:
        raise BackupError(f"there is no backup of {what} from before {stamp(at)}")
    return restic_snapshots.choose(earlier, "latest", what, host)


def points() -> dict[str, catalogue.Point]:
    known = state.read().get(POINTS, {})
    return {str(name): catalogue.Point(float(one["at"]), int(one["timeline"])) for name, one in known.items()}


def point(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    if settings.postgres is None:
        raise BackupError("this fleet has no PostgreSQL of its own")
    source = settings.source(settings.postgres.host)
    live = json.loads(fetch(source, ["archiver"]))
    if str(postgres.backups().system) != live["system"]:
        # A cluster that was just made has nothing to go back to, and its log is not taken.
        return {"changed": False, "lines": [f"{source.host} has another cluster than the one that is kept"]}
    told = json.loads(fetch(source, ["restore-point", wanted.name]))
    made = catalogue.Point(told["at"], told["timeline"])
    kept = sorted({**points(), told["name"]: made}.items(), key=lambda one: one[1].at)[-POINTS_KEPT:]
    state.replace(POINTS, {name: asdict(one) for name, one in kept})
    return {"changed": True, **told, "lines": [f"restore point {told['name']}"]}


def dump(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    kept = files.dump(settings, wanted.label, wanted.what, Path(wanted.to), wanted.host)
    return {"changed": True, **asdict(kept), "lines": [f"{wanted.what} of {kept.host}, {stamp(kept.at)}: {wanted.to}"]}


def send(settings: Settings, wanted: argparse.Namespace, tell: Tell) -> Result:
    """Through SSH, by the key that fetches; the other end keeps it where root alone reads it."""
    with tempfile.TemporaryDirectory(dir=state.FILE.parent) as directory:
        path = Path(directory) / wanted.what
        # There is one Redis, whatever its host was called when it was kept.
        kept = files.dump(settings, wanted.label, wanted.what, path, "" if wanted.what == "redis" else wanted.host)
        with path.open("rb") as file:
            words = ("receive", wanted.what, str(path.stat().st_size))
            run_program(source_command(settings.source(wanted.host), *words), stdin=file)
    return {"changed": True, "label": kept.label, "at": kept.at, "lines": []}


# What is under way was begun by a timer, or by a controller that is gone: it comes to its end.
WAIT_SECONDS = 3600
ALONE = {"prepare", "run", "verify", "drill"}
COMMANDS: Mapping[str, Callable[[Settings, argparse.Namespace, Tell], Result]] = {
    "prepare": prepare,
    "run": run,
    "list": listed,
    "verify": verify,
    "drill": rehearse,
    "watch": watch,
    "plan": plan,
    "point": point,
    "dump": dump,
    "send": send,
}


def main(words: Sequence[str], settings: Path | None = None) -> int:
    wanted = arguments().parse_args(words)
    os.umask(0o077)

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        known = load(settings) if settings else load()
        if wanted.command in ALONE:
            with alone(seconds=WAIT_SECONDS):
                told = COMMANDS[wanted.command](known, wanted, tell)
        else:
            told = COMMANDS[wanted.command](known, wanted, tell)
    except (BackupError, OSError) as error:
        told = {"changed": False, "failed": [str(error)], "lines": []}
    return answer(told, wanted)


def answer(told: Result, wanted: argparse.Namespace) -> int:
    failed = told.get("failed") or []
    if wanted.json:
        print(json.dumps(told))
    else:
        for line in told["lines"]:
            print(line)
    if not wanted.json:
        for line in failed:
            if line not in told["lines"]:
                print(f"agentfleet-backup: {line}", file=sys.stderr)
    return 2 if failed else 0
