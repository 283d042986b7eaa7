"""PostgreSQL's archived log: which segments there are, what is missing between them, and where timelines part.

Pure. pgBackRest's own `verify` calls a log without a gap that lacks a segment which its own full backup needs (2.45 and
2.55.1, measured), so this is looked at here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

# A segment of 16 MB, which role postgres leaves as it is: so many of them have one number in the middle.
SEGMENTS = 256
NAME = re.compile(r"(?:^|/)([0-9A-F]{24})-[0-9a-f]{40}(?:\.(?:zst|gz|lz4|bz2))?$")
HISTORY = re.compile(r"(?:^|/)([0-9A-F]{8})\.history(?:-[0-9a-f]{40}\.\w+)?$")


@dataclass(frozen=True, order=True)
class Segment:
    """One file of the log: its timeline, and its number counted from the beginning of the log."""

    timeline: int
    number: int

    @property
    def name(self) -> str:
        return f"{self.timeline:08X}{self.number // SEGMENTS:08X}{self.number % SEGMENTS:08X}"


def segment(name: str) -> Segment:
    """The segment of a name as 000000010000000000000003."""
    return Segment(int(name[:8], 16), int(name[8:16], 16) * SEGMENTS + int(name[16:24], 16))


def position(lsn: str) -> int:
    """A place in the log as a number, from the way that PostgreSQL writes it (0/3000028)."""
    high, low = lsn.split("/")
    return (int(high, 16) << 32) + int(low, 16)


@dataclass(frozen=True)
class Archive:
    """What the repository has of the log: when each segment came, by its segment; and where timelines begin."""

    arrived: Mapping[Segment, float]
    # Timeline → (its parent, the position at which it left it).
    forks: Mapping[int, tuple[int, int]]

    @property
    def timeline(self) -> int:
        """The newest one."""
        return max([*(found.timeline for found in self.arrived), *self.forks], default=1)

    def line(self, timeline: int) -> list[tuple[int, int, int | None]]:
        """The timelines that lead to TIMELINE, itself first: (timeline, first segment, last segment or None)."""
        found: list[tuple[int, int, int | None]] = []
        end: int | None = None
        while True:
            parent, begin = self.forks.get(timeline, (0, 0))
            found.append((timeline, segment_of(begin), end))
            if not parent:
                return found
            # The segment in which it forks is in both.
            timeline, end = parent, segment_of(begin)


def segment_of(place: int) -> int:
    return place // (16 * 1024 * 1024)


def archive(listing: Mapping[str, Mapping[str, object]], histories: Mapping[int, str]) -> Archive:
    """From pgBackRest's listing of an archive (`repo-ls --recurse --output=json`) and the text of its history files."""
    arrived = {}
    for path, entry in listing.items():
        match = NAME.search(path)
        if match:
            arrived[segment(match[1])] = float(str(entry.get("time", 0)))
    return Archive(arrived, {timeline: parent(text) for timeline, text in histories.items() if text.strip()})


def parent(history: str) -> tuple[int, int]:
    """The last line of a timeline's history: which timeline it left, and where."""
    lines = [line.split() for line in history.splitlines() if line.strip() and not line.startswith("#")]
    return int(lines[-1][0]), position(lines[-1][1])


def within(first: str, last: str, have: Archive) -> list[str]:
    """Segments between two of one timeline, themselves among them, that are not there."""
    begin, end = segment(first), segment(last)
    wanted = (Segment(begin.timeline, number) for number in range(begin.number, end.number + 1))
    return [one.name for one in wanted if one not in have.arrived]


def follow(start: str, have: Archive, timeline: int | None = None) -> tuple[Segment | None, list[str]]:
    """From segment START on along the way to TIMELINE (the newest): the last one before a gap, and what the gap lacks.

    The last is None where not even START is there. Nothing can be restored past the gap.
    """
    begin = segment(start)
    last: Segment | None = None
    # Oldest first.
    for line, first, end in reversed(have.line(timeline or have.timeline)):
        if line < begin.timeline:
            continue
        # Nothing may have been written on a timeline that was just begun.
        newest = max((one.number for one in have.arrived if one.timeline == line), default=first - 1)
        stop = newest if end is None else end
        for number in range(max(first, begin.number), stop + 1):
            one = Segment(line, number)
            if one in have.arrived:
                last = one
            elif end is not None and number == end and Segment(child_of(line, have), number) in have.arrived:
                # The one in which the next timeline begins may be archived under that one's name alone.
                continue
            else:
                return last, missing(one, stop, have)
    return last, []


def child_of(timeline: int, have: Archive) -> int:
    return min((child for child, (of, _place) in have.forks.items() if of == timeline), default=0)


def missing(first: Segment, stop: int, have: Archive) -> list[str]:
    """The segments that one gap lacks, which begins with FIRST."""
    lacking = []
    for number in range(first.number, stop + 1):
        one = Segment(first.timeline, number)
        if one in have.arrived:
            break
        lacking.append(one.name)
    return lacking


def reaches(timeline: int, stop: int, have: Archive, to: int | None = None) -> bool:
    """Whether what was true at position STOP of TIMELINE lies on the way to the newest timeline, or to timeline TO."""
    end: int | None = None
    current = to or have.timeline
    while current:
        if current == timeline:
            return end is None or stop <= end
        current, end = have.forks.get(current, (0, 0))
    return False


def few(names: Iterable[str], shown: int = 3) -> str:
    """The first of NAMES, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - shown} more" if len(every) > shown else ""
    return ", ".join(every[:shown]) + more
