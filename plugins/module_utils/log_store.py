"""The lines of all hosts on the log host, a file for each host and hour: found, read, compressed and let go."""

from __future__ import annotations

import datetime
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

HOUR = 3600
# A line of the hour before may still come a little later.
GRACE_SECONDS = 300
# By then rsyslog has closed what was set aside.
CLOSING_SECONDS = 60
NAME = re.compile(r"(\d\d)\.log(|\.aside|\.zst)")
# So many names fit on a command line.
BATCH = 2000
TAIL_BYTES, TAIL_LINES = 64 << 10, 20


@dataclass(frozen=True)
class Part:
    """A file of one host's lines of one hour: `.log` is written to, `.aside` is about to be compressed."""

    path: Path
    host: str
    begins: float
    kind: str

    @property
    def ends(self) -> float:
        return self.begins + HOUR


def parts(directory: Path) -> list[Part]:
    """All files, the oldest hour first."""
    found = []
    for path in directory.glob("*/????-??-??/*"):
        name = NAME.fullmatch(path.name)
        if name:
            day = datetime.datetime.fromisoformat(f"{path.parent.name}T{name[1]}:00:00+00:00")
            found.append(Part(path, path.parent.parent.name, day.timestamp(), name[2]))
    return sorted(found, key=lambda part: (part.begins, part.host, part.kind))


def chosen(found: Iterable[Part], since: float, until: float, host: str = "") -> list[Part]:
    """Those that may have lines of a time; what a host read late from a file is in a later hour than it was written."""
    return [part for part in found if part.ends > since and part.begins < until and host in ("", part.host)]


def to_let_go(
    found: Sequence[Part], sizes: Sequence[int], keep_seconds: float, keep_bytes: int, now: float
) -> list[Part]:
    """What has to go by its age, and of the rest the oldest until what stays is small enough."""
    gone = []
    total = sum(sizes)
    for part, size in zip(found, sizes, strict=True):
        if part.ends > now - keep_seconds and total <= keep_bytes:
            break
        # One that rsyslog may have open stays until it is compressed.
        if not part.kind:
            continue
        gone.append(part)
        total -= size
    return gone


def to_set_aside(found: Iterable[Part], now: float) -> list[Part]:
    """Whole hours, to be closed by rsyslog; not while what was set aside before is still to be compressed."""
    waiting = {part.path.with_suffix("") for part in found if part.kind == ".aside"}
    return [part for part in found if not part.kind and part.ends + GRACE_SECONDS < now and part.path not in waiting]


def compress(path: Path) -> None:
    """What was set aside, at the end of what is compressed of the same hour already."""
    whole = path.with_suffix(".zst")
    new = whole.with_suffix(".new")
    with new.open("wb") as target:
        if whole.exists():
            with whole.open("rb") as before:
                shutil.copyfileobj(before, target)
        target.flush()
        subprocess.run(["zstd", "--quiet", "--stdout", str(path)], stdout=target, check=True)
        os.fsync(target.fileno())
    os.replace(new, whole)
    # Between the two its lines are there twice, which is once.
    path.unlink()


def tidy(directory: Path, days: int, megabytes: int, now: float) -> None:
    for part in parts(directory):
        if part.kind == ".aside" and part.path.stat().st_ctime + CLOSING_SECONDS < now:
            compress(part.path)
    found = parts(directory)
    sizes = [part.path.stat().st_blocks * 512 for part in found]
    for part in to_let_go(found, sizes, days * 86400, megabytes << 20, now):
        part.path.unlink()
        if not any(part.path.parent.iterdir()):
            part.path.parent.rmdir()
    for part in to_set_aside(parts(directory), now):
        part.path.rename(part.path.with_suffix(".log.aside"))


def main(arguments: Sequence[str]) -> None:
    directory, days, megabytes = arguments
    if Path(directory).exists():
        tidy(Path(directory), int(days), int(megabytes), time.time())


class Vanished(Exception):
    """A file was compressed or let go between looking and reading: look again."""


def grep(found: Sequence[Part], text: str) -> list[str]:
    """The lines with TEXT in them, found by programs that are made for it, one on each processor."""
    plain = 'exec grep --text --no-filename --fixed-strings --regexp "$0" -- "$@"'
    packed = 'zstd --quiet --decompress --stdout -- "$@" | grep --text --fixed-strings --regexp "$0"'
    lanes = len(os.sched_getaffinity(0))
    commands = []
    for command, kinds in ((packed, (".zst",)), (plain, ("", ".aside"))):
        paths = [str(part.path) for part in found if part.kind in kinds]
        for own in (paths[lane::lanes] for lane in range(lanes)):
            batches = (own[start : start + BATCH] for start in range(0, len(own), BATCH))
            commands += [["sh", "-c", command, text, *batch] for batch in batches]
    return said(*commands)


def content(part: Part) -> list[str]:
    """The lines of one file, which may be set aside, compressed or let go meanwhile."""
    plain = part.path.with_suffix("") if part.kind else part.path
    for path in (part.path, plain.with_suffix(".log.aside"), plain.with_suffix(".log.zst")):
        try:
            if path.suffix == ".zst":
                return said(["zstd", "--quiet", "--decompress", "--stdout", "--", str(path)])
            # A line may hold what Python, too, takes for the end of one.
            return path.read_text(errors="replace").split("\n")
        except (FileNotFoundError, Vanished):
            continue
    return []


def said(*commands: Sequence[str]) -> list[str]:
    """The lines that programs write, all of which run at the same time."""
    plain = {**os.environ, "LC_ALL": "C"}
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=plain) for command in commands
    ]
    done = [process.communicate() for process in running]
    for _said, wrong in done:
        if wrong:
            raise Vanished(wrong.decode(errors="replace").splitlines()[0])
    return [line for text, _wrong in done for line in text.decode(errors="replace").split("\n")]


def tail(part: Part) -> list[str]:
    """The last lines of one file, the first of them may be cut."""
    try:
        if not part.kind:
            with part.path.open("rb") as file:
                file.seek(max(0, part.path.stat().st_size - TAIL_BYTES))
                return file.read().decode(errors="replace").split("\n")
    except FileNotFoundError:
        pass
    return content(part)[-TAIL_LINES:]
