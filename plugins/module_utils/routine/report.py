"""One report from the results of every host's routines. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.routine.judge import LEVELS, OK, PROBLEM
from ansible_collections.agentfleet.vm.plugins.module_utils.status import first_line
from ansible_collections.agentfleet.vm.plugins.module_utils.status_table import aligned
from ansible_collections.agentfleet.vm.plugins.module_utils.status_words import moment

ROUTINES = ("daily", "weekly", "monthly")
HEADINGS = ("host", "part", "when (UTC)", "came to")


def report(results: Mapping[str, Mapping[str, Any] | None], only: str = "") -> dict[str, Any]:
    """What each host found, the worst first; a host that could not be asked is a row."""
    rows: list[tuple[str, ...]] = [HEADINGS]
    details: list[tuple[int, str]] = []
    problems: dict[str, str] = {}
    document: dict[str, Any] = {}
    for host, result in results.items():
        known = (result or {}).get("routines")
        document[host] = known
        if known is None:
            rows.append((host, "", "", f"not asked: {first_line((result or {}).get('msg'))}"))
            continue
        for routine in [name for name in ROUTINES if only in ("", name)]:
            found = known.get(routine)
            if not found:
                rows.append((host, routine, "", "has not run yet"))
                continue
            rows.append((host, routine, moment(float(found["at"])), summary(found)))
            for one in found["findings"]:
                if one["level"] != OK:
                    mend = f"; {one['mend']}" if one["mend"] else ""
                    line = f"{one['level']:<8} {host}: {one['check']}: {one['text']}{mend}"
                    details.append((LEVELS.index(one["level"]), line))
        bad = [one["check"] for found in known.values() for one in found["findings"] if one["level"] == PROBLEM]
        if bad:
            problems[host] = f"the routine found: {', '.join(bad)}"
    told = [line for _level, line in sorted(details, key=lambda item: item[0])]
    return {"lines": [*aligned(rows), *(["", *told] if told else [])], "document": document, "problems": problems}


def summary(found: Mapping[str, Any]) -> str:
    counts = [(level, sum(one["level"] == level for one in found["findings"])) for level in LEVELS]
    told = ", ".join(f"{number} {level}" for level, number in counts if number)
    return told or "nothing to look at"
