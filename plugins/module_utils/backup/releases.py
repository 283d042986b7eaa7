"""What a host's releases say of their own data: the query that a restored copy of their database must answer."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

ROOT = Path("/opt")
QUERY = "migrations/read_check.sql"
DATABASE = re.compile(r'(?m)^AGENT_DATABASE_NAME="?([^"\n]+)"?$')


def read_checks(root: Path = ROOT) -> list[dict[str, Any]]:
    """Name, database and query of each service's newest release that has one; of a host without a service none."""
    found = []
    for slots in sorted(root.glob("*/slots")):
        checks = [check for slot in sorted(slots.iterdir()) if (check := of_slot(slots.parent.name, slot))]
        # What was installed last is what will be run on restored data.
        found += sorted(checks, key=lambda check: float(check["at"]))[-1:]
    return found


def of_slot(service: str, slot: Path) -> dict[str, Any] | None:
    try:
        release = (slot / "release").resolve(strict=True)
        name = DATABASE.search((slot / "environment").read_text())
        query = (release / QUERY).read_text().strip()
    except OSError:
        return None
    if not name or not query:
        return None
    return {
        "name": f"{service} {release.name}",
        "database": name[1],
        "query": query,
        "at": release.stat().st_mtime,
    }
