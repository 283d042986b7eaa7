"""A time's log in figures: how much by hour, component and host, how grave, and which errors come most often."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, gravity

DAY = 86400
# What differs between two lines that say the same.
QUOTED = re.compile(r"\"[^\"]*\"|'[^']*'")
VARYING = re.compile(r"\b[0-9a-f]{8}-[0-9a-f-]{27}\b|\b0x[0-9a-f]+\b|\b(?=\w*\d)[0-9a-f]{8,}\b|\d+(?:\.\d+)*")
LONGEST = 100
MOST_GROUPS = 500
SHOWN_GROUPS = 10
BAR = 30

Summary = dict[str, Any]


def normal(entry: Entry) -> str:
    """What a line says, without what differs from one time to the next."""
    if entry.kind == "edge" and " in " in entry.text:
        # A request: its path and status are what it is about.
        return entry.text.partition(" in ")[0][:LONGEST]
    return " ".join(VARYING.sub("#", QUOTED.sub("…", entry.text)).split())[:LONGEST]


def count(entries: Iterable[Entry]) -> Summary:
    """Figures as they can be added to those of other hosts; an hour, component or host has all, warnings and errors."""
    result: Summary = {"hours": {}, "components": {}, "hosts": {}, "levels": {}, "errors": {}}
    for entry in entries:
        rank = gravity(entry.level)
        grave = (1, int(rank == gravity("warning")), int(rank <= gravity("error")))
        hour = str(int(entry.at // 3600 * 3600))
        for group, name in (("hours", hour), ("components", entry.kind), ("hosts", entry.host)):
            have = result[group].setdefault(name, [0, 0, 0])
            have[:] = [one + other for one, other in zip(have, grave, strict=True)]
        result["levels"][entry.level] = result["levels"].get(entry.level, 0) + 1
        if grave[2]:
            group = result["errors"].setdefault(f"{entry.kind} {normal(entry)}", [0, 0.0])
            group[:] = [group[0] + 1, max(group[1], entry.at)]
    often = sorted(result["errors"].items(), key=lambda item: -item[1][0])
    return {**result, "errors": dict(often[:MOST_GROUPS])}


def of_host(summary: Summary, name: str) -> Summary:
    """Figures of lines that their host itself has counted, under its name."""
    return {**summary, "hosts": {host or name: counts for host, counts in summary["hosts"].items()}}


def period(summaries: Sequence[Summary]) -> dict[str, float]:
    return {
        "since": min(summary["since"] for summary in summaries),
        "until": max(summary["until"] for summary in summaries),
    }


def merged(summaries: Sequence[Summary]) -> Summary:
    result: Summary = {"hours": {}, "components": {}, "hosts": {}, "levels": {}, "errors": {}}
    for summary in summaries:
        for group in ("hours", "components", "hosts"):
            for name, counts in summary[group].items():
                have = result[group].get(name, [0, 0, 0])
                result[group][name] = [one + other for one, other in zip(have, counts, strict=True)]
        for level, number in summary["levels"].items():
            result["levels"][level] = result["levels"].get(level, 0) + number
        for text, (number, at) in summary["errors"].items():
            have = result["errors"].get(text, [0, 0.0])
            result["errors"][text] = [have[0] + number, max(have[1], at)]
    return result


def moment(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).strftime("%Y-%m-%d %H:%M")


def table(summary: Summary, since: float, until: float) -> list[str]:
    total = [sum(counts[place] for counts in summary["hours"].values()) for place in range(3)]
    levels = sorted(summary["levels"], key=lambda level: (gravity(level), level))
    lines = [
        f"{moment(since)} to {moment(until)} UTC: {total[0]:,} lines, {total[1]:,} warnings, {total[2]:,} errors",
        "",
        *_rows("hour", [(moment(int(hour)), counts) for hour, counts in sorted(summary["hours"].items())], bars=True),
        "",
        *_rows("component", _ranked(summary["components"])),
        "",
        *_rows("host", _ranked(summary["hosts"])),
        "",
        "level: " + (", ".join(f"{level} {summary['levels'][level]:,}" for level in levels) or "none"),
        "",
    ]
    often = sorted(summary["errors"].items(), key=lambda item: (-item[1][0], -item[1][1]))
    if not often:
        return [*lines, "no errors"]
    lines.append(f"{'errors':>9}  {'last, UTC':<16}  {'component':<10}  what")
    for text, (number, at) in often[:SHOWN_GROUPS]:
        component, _, words = text.partition(" ")
        lines.append(f"{number:>9,}  {moment(at):<16}  {component:<10}  {words}")
    hidden = len(often) - SHOWN_GROUPS
    return [*lines, f"kinds of error that came less often: {hidden}"] if hidden > 0 else lines


def _ranked(groups: Mapping[str, list[int]]) -> list[tuple[str, list[int]]]:
    return sorted(groups.items(), key=lambda item: (-item[1][0], item[0]))


def _rows(heading: str, rows: Sequence[tuple[str, list[int]]], bars: bool = False) -> list[str]:
    most = max((counts[0] for _name, counts in rows), default=1)
    lines = [f"{heading:<16}  {'lines':>9}  {'warnings':>9}  {'errors':>9}"]
    for name, (all_lines, warnings, errors) in rows:
        bar = "  " + "█" * max(1, round(BAR * all_lines / most)) if bars else ""
        lines.append(f"{name:<16}  {all_lines:>9,}  {warnings:>9,}  {errors:>9,}{bar}")
    return lines
