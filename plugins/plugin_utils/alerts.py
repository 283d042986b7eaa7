"""Alert rules as files have them, with a fleet's own limits and pace filled in. Pure.

A rule writes a limit as `<< name >>`, which neither YAML, PromQL nor Prometheus's own templates know. PACE makes every
window and every wait of a rule shorter, so that a test sees in seconds what takes hours; 1 is what the files say.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

LIMIT = re.compile(r"<<\s*([a-z0-9_]+)\s*>>")
DURATION = re.compile(r"(?:\d+(?:ms|[smhdwy]))+")
PART = re.compile(r"(\d+)(ms|[smhdwy])")
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800, "y": 31536000}
# What a query has of time: windows in brackets, a subquery's step among them, and offsets.
WINDOW = re.compile(r"\[([^\]]*)\]")
OFFSET = re.compile(r"(\boffset\s+)((?:\d+(?:ms|[smhdwy]))+)")
WAITS = ("for", "keep_firing_for")
# Below a second nothing is read, and a window of one reading has no rate.
SHORTEST_SECONDS = 1


class AlertError(ValueError):
    """What is wrong with a file of rules or a limit, in one line."""


@dataclass(frozen=True)
class Rules:
    """One file of rules: where it is, for people, and its text."""

    name: str
    text: str


def render(files: Iterable[Rules], limits: Mapping[str, float], pace: float = 1.0) -> str:
    """All rules of FILES as one document for Prometheus."""
    groups: list[dict[str, Any]] = []
    for file in files:
        groups += read(file, limits)
    names = [group["name"] for group in groups]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise AlertError(f"two groups of alert rules are named '{twice}': give one another name")
    return yaml.safe_dump({"groups": [paced(group, pace) for group in groups]}, sort_keys=False, width=1000)


def read(file: Rules, limits: Mapping[str, float]) -> list[dict[str, Any]]:
    """The groups of one file."""
    unknown = sorted(set(LIMIT.findall(file.text)) - set(limits))
    if unknown:
        raise AlertError(
            f"{file.name} wants the limit '{unknown[0]}', which there is not; there are {', '.join(limits)}"
        )
    text = LIMIT.sub(lambda found: number(limits[found[1]]), file.text)
    try:
        document = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise AlertError(f"{file.name} is no YAML: {' '.join(str(error).split())}") from None
    if not isinstance(document, dict) or not isinstance(document.get("groups"), list):
        raise AlertError(f"{file.name} has no list 'groups', as a file of Prometheus's rules has")
    return list(document["groups"])


def number(value: float) -> str:
    """VALUE as PromQL reads it, without digits that nobody wrote."""
    return f"{float(value):.15g}"


def paced(group: Mapping[str, Any], pace: float) -> dict[str, Any]:
    """The group with its times at PACE."""
    if pace == 1:
        return dict(group)
    return {**group, "rules": [paced_rule(rule, pace) for rule in group["rules"]]}


def paced_rule(rule: Mapping[str, Any], pace: float) -> dict[str, Any]:
    waits = {key: shortened(str(rule[key]), pace) for key in WAITS if key in rule}
    return {**rule, "expr": paced_query(str(rule["expr"]), pace), **waits}


def paced_query(query: str, pace: float) -> str:
    def window(found: re.Match[str]) -> str:
        return f"[{DURATION.sub(lambda inner: shortened(inner[0], pace), found[1])}]"

    query = WINDOW.sub(window, query)
    return OFFSET.sub(lambda found: f"{found[1]}{shortened(found[2], pace)}", query)


def shortened(duration: str, pace: float) -> str:
    """DURATION, as 5m or 1h30m, times PACE."""
    seconds = sum(int(count) * SECONDS[unit] for count, unit in PART.findall(duration))
    if not seconds:
        return duration
    return f"{max(SHORTEST_SECONDS, round(seconds * pace))}s"


def limits_of(usual: Mapping[str, float], own: Mapping[str, float]) -> dict[str, float]:
    """The usual limits with the fleet's OWN in their place."""
    if unknown := sorted(set(own) - set(usual)):
        raise AlertError(f"prometheus_limits: there is no limit '{unknown[0]}'; there are {', '.join(usual)}")
    for name, value in own.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise AlertError(f"prometheus_limits: {name} must be a number, and is {value!r}")
    return {**usual, **own}
