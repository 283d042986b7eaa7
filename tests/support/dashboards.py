"""The queries of Grafana's dashboards, and what Grafana puts in place of their variables."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

# A range is the one that a dashboard opens with unless a test has other traffic.
VALUES = {"__rate_interval": "1m", "__interval": "15s", "__range": "6h", "service": "agent", "host": ".+"}


def load(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8")))


def expressions(dashboard: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each query with the name of what shows it: panels, then annotations."""
    for panel in dashboard["panels"]:
        for target in panel["targets"]:
            yield f"{panel['title']} {target['refId']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]


def filled(query: str, **values: str) -> str:
    """The query as Grafana sends it; longer names first, since one may begin with another."""
    for name, value in sorted({**VALUES, **values}.items(), key=lambda item: -len(item[0])):
        query = query.replace(f"${{{name}}}", value).replace(f"${name}", value)
    return query
