"""What the director knows, as figures for node exporter's textfile collector. Pure but for `publish`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils.director.memory import Memory
from ansible_collections.agentfleet.vm.plugins.module_utils.director.rollout import BAKING
from ansible_collections.agentfleet.vm.plugins.module_utils.disk import write

FILE = Path("/var/lib/prometheus/node-exporter/agentfleet_director.prom")
HELP = {
    "agentfleet_lease_expires_timestamp_seconds": "When the lease ends unless renewed; 0 once it was given back",
    "agentfleet_rollout_active": "Whether a rollout is under way",
    "agentfleet_rollout_stage_timestamp_seconds": "When the rollout came to where it is",
    "agentfleet_rollout_stage_seconds": "How long it is to be watched there",
    "agentfleet_release_timestamp_seconds": "When the current release got all the traffic",
}


def lines(memory: Memory) -> Iterator[str]:
    """The text, a line at a time. Moments only, so that it is true for as long as nothing happens."""
    figures: dict[str, dict[str, float]] = {name: {} for name in HELP}
    figures["agentfleet_lease_expires_timestamp_seconds"][""] = memory.lease.expires
    for backend, work in memory.works.items():
        labels = label(service=backend)
        figures["agentfleet_rollout_active"][labels] = float(not work.over)
        if not work.over:
            watched = work.rollout.bake_seconds if work.state.phase == BAKING else 0.0
            figures["agentfleet_rollout_stage_timestamp_seconds"][labels] = work.state.since
            figures["agentfleet_rollout_stage_seconds"][labels] = watched
    for backend, record in memory.current.items():
        labels = label(service=backend, release=str(record["release"]))
        figures["agentfleet_release_timestamp_seconds"][labels] = float(record.get("at", 0))
    for name, values in figures.items():
        if values:
            yield from (f"# HELP {name} {HELP[name]}.", f"# TYPE {name} gauge")
            yield from (f"{name}{labels} {value}" for labels, value in values.items())


def label(**labels: str) -> str:
    """Names of services and releases have nothing that would want a backslash."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


def publish(memory: Memory, path: Path = FILE) -> None:
    """Write the figures, where a node exporter reads them; a full disk is no reason to stand still."""
    if path.parent.is_dir():
        with contextlib.suppress(OSError):
            write(path, "".join(f"{line}\n" for line in lines(memory)).encode(), 0o644)
