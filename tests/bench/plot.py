"""A deploy as its users felt it: every request as a dot, above the share of the traffic that the new release had."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
from shares import Share
from support.load import REQUEST, STREAM, Load

mpl.use("Agg")
from matplotlib import pyplot

DOT, BAD, SHARE, CALM = "#33658a", "#d1495b", "#f6ae2d", "#eeeeee"


def draw(load: Load, moved: Sequence[Share], title: str, path: Path) -> None:
    requests, streams = load.count(kind=REQUEST), load.count(kind=STREAM)
    # Streams that ran to their end after the last request are not waited for here.
    end = max(record.ended for record in load.records if record.kind == REQUEST or record.outcome != "answered")
    figure, (above, below) = pyplot.subplots(
        2, 1, sharex=True, figsize=(10, 4.8), height_ratios=(3, 1), layout="constrained"
    )
    good = [record for record in load.of(kind=REQUEST) if record.outcome == "answered"]
    above.plot(
        [r.due for r in good], [r.seconds * 1000 for r in good], ".", ms=2, alpha=0.5, color=DOT, rasterized=True
    )
    bad = [record for record in load.records if record.outcome != "answered"]
    above.plot([r.at for r in bad], [r.seconds * 1000 for r in bad], "x", ms=7, color=BAD)
    above.set_ylim(bottom=0)
    above.set_ylabel("latency, ms")
    above.set_title(
        f"{title}: {requests.sent} requests, {requests.sent - requests.answered} not answered;"
        f" {streams.sent} streams, {streams.sent - streams.answered} not whole",
        fontsize=11,
    )
    times = [0.0, *(move.at for move in moved), end]
    parts = [0.0, *(move.share * 100 for move in moved)]
    below.stairs(parts, times, fill=True, color=SHARE)
    below.set_ylim(0, 105)
    below.set_ylabel("new release, %")
    below.set_xlabel("seconds")
    for move in moved:
        above.axvline(move.at, color=SHARE, lw=1)
        # Inside what is filled where there is room, else above it.
        place = (2, -9) if move.share > 0.2 else (2, 3)
        below.annotate(move.label, (move.at, move.share * 100), place, textcoords="offset points", fontsize=8)
    edges = [*load.marks, (end, "")]
    for (begin, name), (stop, _) in pairwise(edges):
        if name in ("before", "between", "after"):
            for axes in (above, below):
                axes.axvspan(begin, stop, color=CALM, zorder=0)
    above.set_xlim(0, end)
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
