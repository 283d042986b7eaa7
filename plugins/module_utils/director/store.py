"""The edge's store of releases: an artifact and its description for each, by which a host gets a release again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path("/var/lib/agentfleet")


def read_json(path: Path) -> dict[str, Any] | None:
    try:
        value = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def kept(store: Path) -> dict[str, dict[str, Any]]:
    """Descriptions of the artifacts in the store, oldest first; one without its artifact does not count."""
    found = [path for path in (store / "artifacts").glob("*.tar.gz") if not path.name.startswith(".")]
    artifacts = {}
    for path in sorted(found, key=lambda path: path.stat().st_mtime):
        name = path.name.removesuffix(".tar.gz")
        description = read_json(path.with_name(f"{name}.json"))
        if description:
            artifacts[name] = description
    return artifacts


def removable(ordered: Sequence[str], used: Iterable[str], keep: int) -> list[str]:
    """Releases to remove, of ORDERED oldest first: beyond the newest KEEP, and used by nothing."""
    newest = set(ordered[-keep:]) if keep else set()
    return [name for name in ordered if name not in newest and name not in set(used)]
