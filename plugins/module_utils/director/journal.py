"""The director's journal: one JSON object a line, on disk before anything is done by it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Entry = Mapping[str, Any]


def read(path: Path) -> list[dict[str, Any]]:
    """Every whole entry; a line that a crash cut off is not one."""
    if not path.exists():
        return []
    entries = []
    for line in path.read_bytes().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict):
            entries.append(entry)
    return entries


def rewrite(path: Path, entries: Iterable[Entry]) -> None:
    """Replace the journal, whole or not at all."""
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("wb") as file:
        for entry in entries:
            file.write(line_of(entry))
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    sync_directory(path.parent)


def line_of(entry: Entry) -> bytes:
    return json.dumps(entry, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Journal:
    """Appends; an entry is on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        new = not path.exists()
        self._file = path.open("ab", buffering=0)
        if new:
            sync_directory(path.parent)
        elif path.stat().st_size and not path.read_bytes().endswith(b"\n"):
            self._file.write(b"\n")

    def append(self, entry: Entry) -> None:
        self._file.write(line_of(entry))
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
