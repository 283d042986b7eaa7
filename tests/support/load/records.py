"""What became of each request, stream and WebSocket, and the figures made of it. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

REQUEST, STREAM, SOCKET = "request", "stream", "socket"
ANSWERED = "answered"
"""Whole: the answer, a stream with its one `done`, a WebSocket with every echo."""
FAILED = "failed"
"""The service, or what stands before it, said that it could not."""
REFUSED = "refused"
"""No connection was made."""
CUT = "cut"
"""The connection was made and ended too early."""
STALLED = "stalled"
"""Nothing came for too long; the client gave up."""


@dataclass(frozen=True)
class Record:
    """One request, stream or session. DUE is when it was to leave, in seconds since the load began.

    SECONDS counts from then: to the end of an answer, to the first event of a stream; of a WebSocket it is the slowest
    echo, from when it was asked for. ENDED is when it was over, in seconds since the load began.
    """

    kind: str
    identity: str
    due: float
    outcome: str
    seconds: float
    ended: float
    detail: str = ""

    @property
    def at(self) -> float:
        """The moment it counts for: what lasts and then breaks counts for when it broke, all else for when it left."""
        return self.due if self.kind == REQUEST or self.outcome == ANSWERED else self.ended

    def __str__(self) -> str:
        times = f"from {self.due:.1f} to {self.ended:.1f} s"
        return f"{self.kind} {self.identity} {self.outcome}, {times}: {self.detail}"


@dataclass(frozen=True)
class Count:
    """SENT is the sum of the five outcomes. DUPLICATED and LOST compare with what the service itself saw.

    A WebSocket is not looked for there: each of its echoes has to come once, or it has failed.
    """

    sent: int
    answered: int
    failed: int
    refused: int
    cut: int
    stalled: int
    duplicated: int
    """The service did it twice or more."""
    lost: int
    """Answered, but the service does not have it: or the wrong place was looked at for duplicates."""


def sight(record: Record, seen: Mapping[str, int] | None) -> int | None:
    """How often the service saw it; None where nobody looked."""
    return None if seen is None or record.kind == SOCKET else seen.get(record.identity, 0)


def count(records: Iterable[Record], seen: Mapping[str, int] | None = None) -> Count:
    """The account of RECORDS; SEEN is how often the service saw each identity, None if nobody looked."""
    records = list(records)
    outcomes = [record.outcome for record in records]
    times = [(record, often) for record in records if (often := sight(record, seen)) is not None]
    return Count(
        sent=len(records),
        answered=outcomes.count(ANSWERED),
        failed=outcomes.count(FAILED),
        refused=outcomes.count(REFUSED),
        cut=outcomes.count(CUT),
        stalled=outcomes.count(STALLED),
        duplicated=sum(often > 1 for record, often in times),
        lost=sum(often == 0 and record.outcome == ANSWERED for record, often in times),
    )


def problems(records: Iterable[Record], seen: Mapping[str, int] | None = None) -> list[str]:
    """A line for each thing that is not as it should be, in the order they left."""
    lines = []
    for record in sorted(records, key=lambda record: record.due):
        if record.outcome != ANSWERED:
            lines.append(str(record))
        often = sight(record, seen)
        if often is not None and often > 1:
            lines.append(f"{record.kind} {record.identity} was done {often} times")
        if often == 0 and record.outcome == ANSWERED:
            lines.append(f"{record.kind} {record.identity} was answered, and the service does not have it")
    return lines


def window_of(moment: float, marks: Sequence[tuple[float, str]]) -> str:
    """The name of the last mark that was set by then."""
    return [name for at, name in marks if at <= moment][-1]


def percentile(values: Iterable[float], share: float) -> float:
    """The value that SHARE of them do not exceed; not a number where there are none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan
