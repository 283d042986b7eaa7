"""What restic's repository holds of ours, read from what restic says of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

NAMES = {"config": "config.tar", "redis": "redis.rdb"}
WHOLE, UNFINISHED = "whole", "unfinished"


@dataclass(frozen=True)
class Kept:
    """A backup that counts; `at` is seconds since 1970."""

    label: str
    what: str
    host: str
    at: float
    size: int
    sha256: str


def parse_snapshots(text: str) -> tuple[list[Kept], list[str]]:
    """Backups that count, oldest first, and identifiers of what was never finished; others' are left alone."""
    kept, unfinished = [], []
    for raw in json.loads(text) or []:
        tags = list(raw.get("tags") or ())
        if UNFINISHED in tags:
            unfinished.append(str(raw["id"]))
        one = kept_of(raw, tags)
        if one:
            kept.append(one)
    return sorted(kept, key=lambda one: (one.at, one.host, one.what)), unfinished


def kept_of(raw: Mapping[str, Any], tags: Sequence[str]) -> Kept | None:
    what = next((what for what in NAMES if what in tags), "")
    notes = {name: value for name, equals, value in (tag.partition("=") for tag in tags) if equals}
    if WHOLE not in tags or not what or not {"size", "sha256"} <= set(notes):
        return None
    at = datetime.fromisoformat(str(raw["time"])).timestamp()
    label, host = str(raw["short_id"]), str(raw["hostname"])
    return Kept(label, what, host, at, int(notes["size"]), notes["sha256"])


def choose(kept: Sequence[Kept], label: str, what: str, host: str = "") -> Kept:
    """One backup by its label, or the newest by `latest`; of whichever host it is, unless one is named."""
    mine = [one for one in kept if one.what == what and (not host or one.host == host)]
    found = mine[-1:] if label == "latest" else [one for one in mine if one.label == label]
    if found:
        return found[0]
    of = f"{what} of {host}" if host else what
    if label == "latest" or not mine:
        raise BackupError(f"there is no backup of {of} yet; run: agentfleet-backup run --what {what}")
    known = ", ".join(one.label for one in mine[-5:])
    raise BackupError(f"there is no backup {label} of {of}; the newest are {known}")


def newest(kept: Iterable[Kept]) -> set[str]:
    """Labels of the newest backup of each host and kind."""
    return set({(one.host, one.what): one.label for one in kept}.values())


def parse_expired(text: str) -> list[str]:
    """What `restic forget --json` would remove; in a dry run nothing else is written."""
    document = next(line for line in text.splitlines() if line.startswith("["))
    return [str(one["short_id"]) for group in json.loads(document) for one in group.get("remove") or ()]


def parse_summary(text: str) -> tuple[str, int]:
    """The identifier of the snapshot that `restic backup --json` made, and how many bytes it added."""
    for line in reversed(text.splitlines()):
        message = json.loads(line) if line.startswith("{") else {}
        if message.get("message_type") == "summary" and message.get("snapshot_id"):
            added = message.get("data_added_packed", message.get("data_added", 0))
            return str(message["snapshot_id"]), int(added)
    raise BackupError("restic made no snapshot, and does not say why")


def shape_problem(what: str, head: bytes, tail: bytes, size: int) -> str:
    """Why a stream cannot be whole, by its two ends; "" when nothing speaks against it."""
    if what == "redis":
        # An end mark, and behind it a checksum of eight bytes.
        return "" if head.startswith(b"REDIS") and tail[-9:-8] == b"\xff" else "it is no whole snapshot of Redis"
    return "" if size >= 1024 and size % 512 == 0 and tail[-1024:] == bytes(1024) else "it is no whole tar"


def lacking(free_mb: int, minimum_mb: int, repository: Path) -> str:
    if free_mb >= minimum_mb:
        return ""
    return (
        f"{repository} has {free_mb} MB free, and {minimum_mb} are wanted before anything is written: "
        f"give it more space, or keep less (backup_keep_daily) and run: ansible-playbook playbooks/site.yml"
    )
