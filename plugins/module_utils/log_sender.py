"""Before a host sends its lines again: back to the last ones that may have been on their way and not have arrived.

rsyslog notes how far it has read, not how far the log host has answered: up to 64 lines may lie between. A line a
minute is sent in any case, so on a quiet host they reach back little more than an hour, on a busy one not many entries.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

BACK_MICROSECONDS = 90 * 60 * 1_000_000
BACK_ENTRIES = 20_000
BACK_BYTES = 1 << 20
MOMENT = re.compile(r"(?:^|;)t=([0-9a-f]+)")


def earlier(cursor: str, entries: Sequence[str]) -> str:
    """The cursor to begin at; ENTRIES are those up to CURSOR, the latest first."""
    found = MOMENT.search(cursor)
    if not found:
        return cursor
    oldest = int(found[1], 16) - BACK_MICROSECONDS
    begin = cursor
    for entry in entries[:BACK_ENTRIES]:
        moment = MOMENT.search(entry)
        if not moment or int(moment[1], 16) < oldest:
            break
        begin = entry
    return begin


def entries_before(cursor: str) -> list[str]:
    """Cursors of the journal's entries up to CURSOR, the latest first."""
    command = ["journalctl", "--quiet", "--no-pager", "--reverse", f"--cursor={cursor}", f"--lines={BACK_ENTRIES}"]
    done = subprocess.run(
        [*command, "--output=json", "--output-fields=_PID"], capture_output=True, text=True, check=False
    )
    return [str(json.loads(line)["__CURSOR"]) for line in done.stdout.splitlines() if line.startswith("{")]


def line_start(path: Path, offset: int) -> int:
    """The start of a line that many bytes before OFFSET."""
    begin = max(0, offset - BACK_BYTES)
    with path.open("rb") as file:
        file.seek(begin)
        head = file.readline() if begin else b""
    return min(begin + len(head), offset)


def file_state(state: dict[str, Any]) -> dict[str, Any]:
    """What rsyslog notes of a file that it reads, gone back."""
    path = Path(str(state["filename"]))
    if not path.exists():
        return state
    back = line_start(path, min(int(state["curr_offs"]), path.stat().st_size))
    return {**state, "curr_offs": back, "strt_offs": back, "prev_was_nl": 0}


def write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.new")
    new.write_text(text)
    os.replace(new, path)


def main(arguments: Sequence[str]) -> None:
    directory = Path(arguments[0])
    journal = directory / "journal"
    if journal.exists():
        cursor = journal.read_text().strip()
        write(journal, earlier(cursor, entries_before(cursor)))
    for path in directory.glob("imfile-state:*"):
        try:
            write(path, json.dumps(file_state(json.loads(path.read_text()))))
        except (OSError, ValueError, KeyError):
            # Without it rsyslog reads that file from its start, and no line is lost.
            path.unlink()
