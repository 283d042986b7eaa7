"""What one host says of itself, of one service: for the fleet's status, and for whoever asks ad hoc. Reads only."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Collection, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import drift, edge_view, host_facts, prometheus
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis import PACKAGES
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import (
    GENERATION,
    installed_releases,
    listeners,
    observe_slot,
    unit_states,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError

BACKUPS = Path("/var/lib/agentfleet/backup/state.json")
DISKS = ("/", "/opt", "/var")
HEALTH, HEALTH_SECONDS = "/health", 2
# What a host has of the fleet, and what tells that it does.
PARTS: Mapping[str, str] = {
    "agent": "/etc/systemd/system/{}@.service",
    "edge": "/etc/haproxy/agentfleet/2-{}.cfg",
    "backup": "/etc/systemd/system/agentfleet-backup.timer",
    "monitoring": "/etc/prometheus/agentfleet.yml",
}
UNKNOWN: Mapping[str, Any] = {
    "slots": None,
    "instances": None,
    "workers": None,
    "releases": None,
    "drift": None,
    "host_generation": None,
    "backup": None,
    "alerts": None,
    **edge_view.UNKNOWN,
}


def operating_system(release: str) -> str:
    """Name and version from the text of /etc/os-release."""
    known = dict(line.partition("=")[::2] for line in release.splitlines() if "=" in line)
    name = known.get("NAME", "").strip('"').split(" ")[0]
    return f"{name} {known.get('VERSION_ID', '').strip(chr(34))}".strip() or "unknown"


def disk_free_percent() -> int:
    usages = [shutil.disk_usage(path) for path in DISKS if Path(path).exists()]
    return min(usage.free * 100 // max(usage.total, 1) for usage in usages)


def parts_of(name: str) -> list[str]:
    """What the host has of the fleet, by what lies on its disk."""
    return [part for part, path in PARTS.items() if Path(path.format(name)).exists()]


def observe(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """WANTED has the `name`, the `certificate`, HAProxy's `socket`, Prometheus' address, and perhaps `parts`."""
    name = str(wanted["name"])
    parts = parts_of(name) if wanted["parts"] is None else list(wanted["parts"])
    seen: dict[str, Any] = {
        "os": operating_system(Path("/etc/os-release").read_text()),
        "disk_free_percent": disk_free_percent(),
        "parts": parts,
        **UNKNOWN,
        "versions": versions(PACKAGES),
        "problems": [],
    }
    if "agent" in parts:
        try:
            seen |= of_agent(Service(name, Path("/opt") / name))
        except (CommandError, OSError) as error:
            seen["problems"].append(f"its slots cannot be read: {error}")
    if "backup" in parts:
        seen["backup"] = backup_of(BACKUPS) or {"now": time.time()}
    if "edge" in parts:
        known, problems = edge_view.observe(name, Path(wanted["certificate"]), wanted["socket"])
        seen |= known
        seen["problems"] += problems
    if "monitoring" in parts:
        try:
            seen["alerts"] = prometheus.firing(str(wanted["prometheus"]))
        except prometheus.PrometheusError as error:
            seen["problems"].append(f"{error}; see: systemctl status prometheus")
    return seen


def of_agent(service: Service) -> dict[str, Any]:
    units = unit_states(service)
    slots = {slot: observe_slot(service, slot, None, False, units) for slot in SLOTS}
    workers = unit_states(service, service.worker_unit)
    return {
        "slots": slots,
        "instances": [instance(service, name, unit) for name, unit in sorted(units.items())],
        "workers": {service.worker_unit(name): unit["ActiveState"] for name, unit in sorted(workers.items())},
        "releases": installed_releases(service),
        "drift": drift.of_host(service, slots),
        "host_generation": generation(),
    }


def instance(service: Service, name: str, unit: Mapping[str, str]) -> dict[str, Any]:
    """One process of the service: its unit, its port, and whether it is alive."""
    port, active = host_facts.port_of(service, name), unit.get("ActiveState") == "active"
    return {
        "name": name,
        "unit": service.unit(name),
        "state": unit.get("ActiveState"),
        "restarts": int(unit.get("NRestarts") or 0),
        "port": port,
        "health": health(service, port) if active and port else None,
    }


def health(service: Service, port: int) -> str:
    """`ok`, or what it says instead."""
    bound = [address for address, number, _inode in sockets() if number == port]
    if not bound:
        return "does not listen"
    address = "127.0.0.1" if bound[0] in ("0.0.0.0", "::") else bound[0]
    status, said = host_facts.ask(address, port, HEALTH, HEALTH_SECONDS, host_facts.authority_of(service))
    return "ok" if status == HTTPStatus.OK else f"{status or 'no answer'}: {' '.join(said.split())[:200]}"


def sockets() -> list[tuple[str, int, str]]:
    tables = [Path("/proc/net/tcp"), Path("/proc/net/tcp6")]
    return [entry for table in tables if table.exists() for entry in listeners(table.read_text())]


def generation() -> int | None:
    """The newest lease that wrote on this host."""
    try:
        return int(GENERATION.read_text())
    except (OSError, ValueError):
        return None


def versions(packages: Collection[str]) -> dict[str, str]:
    """Debian's version of each of PACKAGES that is installed."""
    words = ("dpkg-query", "--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n", *packages)
    try:
        shown = subprocess.run(words, capture_output=True, text=True, check=False).stdout
    except OSError:
        return {}
    rows = [line.split(" ") for line in shown.splitlines()]
    return {row[1]: row[2] for row in rows if row[0] == "installed"}


def backup_of(path: Path) -> dict[str, Any]:
    """How the backups and their rehearsal went last, as the backup host remembers it; nothing before the first."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {"now": time.time(), **known} if isinstance(known, dict) else {}
