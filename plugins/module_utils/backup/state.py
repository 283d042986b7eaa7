"""What the backup host remembers: how each kind of backup and the drill went last. The repository has the rest."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.settings import STATE
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import write

FILE = STATE / "state.json"


def read(path: Path = FILE) -> dict[str, Any]:
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        # What is lost with it are figures; the repository tells the backups.
        return {}
    return known if isinstance(known, dict) else {}


def note(what: str, told: Mapping[str, Any], path: Path = FILE) -> None:
    """Remember TOLD of WHAT beside what is known of it."""
    replace(what, {**read(path).get(what, {}), **told}, path)


def replace(what: str, value: Any, path: Path = FILE) -> None:
    """Remember VALUE as all that is known of WHAT."""
    known = read(path)
    known[what] = value
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(known, indent=1, sort_keys=True).encode(), 0o644)
