"""Figures of the fleet's status as people read them. Pure."""

from __future__ import annotations

import time


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def rate(share: float | None) -> str:
    """A part of the requests; what is not nothing is not shown as nothing."""
    return "" if share is None else "<0.01 %" if 0 < share < 0.0001 else percent(round(share, 4))


def milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.0f} ms"


def duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"


def moment(at: float) -> str:
    """A moment in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at))
