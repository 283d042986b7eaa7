"""Reads from the collection's own files which variables and options there are."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import read_options
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import Known

COLLECTION = Path(__file__).resolve().parents[2]


@functools.cache
def load_known(collection: Path = COLLECTION) -> Known:
    roles = {}
    for path in sorted(collection.glob("roles/*/meta/argument_specs.yml")):
        role = path.parent.parent.name
        roles[role] = read_options(role, _read_yaml(path)["argument_specs"]["main"].get("options") or {})
    options = _read_yaml(collection / "meta" / "options.yml")
    return Known(
        roles=roles,
        fleet=read_options("fleet", options["fleet"]),
        playbooks={name: read_options(name, taken or {}) for name, taken in options["playbooks"].items()},
    )


def _read_yaml(path: Path) -> Any:
    # The C loader reads all roles' specifications in a tenth of the time.
    return yaml.load(path.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
