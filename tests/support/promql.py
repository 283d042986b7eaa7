"""Which metrics rules and dashboards name."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from .fleet import TOP

STRINGS = re.compile(r'"(?:[^"\\]|\\.)*"|\'(?:[^\'\\]|\\.)*\'')
# Labels, windows, and what is grouped or joined by: no metric is named in there.
INSIDE = re.compile(r"\{[^{}]*\}|\[[^\]]*\]|\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^()]*\)")
WORDS = frozenset(
    (
        *("and", "or", "unless", "bool", "offset", "by", "without", "on", "ignoring", "group_left", "group_right"),
        *("inf", "nan", "atan2", "start", "end"),
    )
)
# A Grafana variable in a window or a label value is gone with these; elsewhere it is a number.
VARIABLE = re.compile(r"\$\{?\w+(?::\w+)?\}?")


def metrics_in(query: str) -> set[str]:
    """The metrics that a query names."""
    rest = INSIDE.sub(" ", STRINGS.sub(" ", query))
    rest = VARIABLE.sub("1", rest)
    # A name that no parenthesis follows is no function; a duration begins with a digit.
    found = re.findall(r"(?<![\w:.])([a-zA-Z_:][\w:]*)(?!\s*\(|[\w:])", rest)
    return {name for name in found if name.lower() not in WORDS}


def queries_in(value: Any) -> Iterator[str]:
    """Every query of a dashboard, wherever it stands."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("expr", "query") and isinstance(inner, str):
                yield inner
            else:
                yield from queries_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from queries_in(inner)


def variables_query(query: str) -> str:
    """What is asked in label_values(…), which is Grafana's own."""
    asked = re.fullmatch(r"label_values\((.*),\s*\w+\)", query.strip())
    return asked[1] if asked else "" if query.startswith("label_values(") else query


def of_dashboards() -> dict[str, set[str]]:
    """The metrics of each dashboard by its file."""
    found = {}
    for path in sorted((TOP / "files/dashboards").glob("*.json")):
        queries = queries_in(json.loads(path.read_text(encoding="utf-8")))
        found[path.name] = set().union(*(metrics_in(variables_query(query)) for query in queries))
    return found


def of_rules(rules: list[dict[str, Any]]) -> dict[str, set[str]]:
    """The metrics of each rule by its name."""
    return {str(rule.get("alert") or rule["record"]): metrics_in(str(rule["expr"])) for rule in rules}
