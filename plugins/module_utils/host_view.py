"""What one host says of itself: for the fleet's status, and for a diagnosis. Reads only."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import acme, haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils.director.control import DirectorError, ask
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import observe_slot, unit_states
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError

BACKUPS = Path("/var/lib/agentfleet/backup/state.json")
DISKS = ("/", "/opt", "/var")


def operating_system(release: str) -> str:
    """Name and version from the text of /etc/os-release."""
    known = dict(line.partition("=")[::2] for line in release.splitlines() if "=" in line)
    name = known.get("NAME", "").strip('"').split(" ")[0]
    return f"{name} {known.get('VERSION_ID', '').strip(chr(34))}".strip() or "unknown"


def disk_free_percent() -> int:
    usages = [shutil.disk_usage(path) for path in DISKS if Path(path).exists()]
    return min(usage.free * 100 // max(usage.total, 1) for usage in usages)


def slots(name: str) -> dict[str, Any]:
    service = Service(name, Path("/opt") / name)
    units = unit_states(service)
    return {slot: observe_slot(service, slot, None, False, units) for slot in SLOTS}


def observe(wanted: Mapping[str, Any]) -> dict[str, Any]:
    seen: dict[str, Any] = {
        "os": operating_system(Path("/etc/os-release").read_text()),
        "disk_free_percent": disk_free_percent(),
        "slots": None,
        "traffic": None,
        "release": None,
        "lease": None,
        "rollout": None,
        "history": [],
        "certificate_days": None,
        "certificate": None,
        "backup": None,
        "problems": [],
    }
    if wanted["agent"]:
        try:
            seen["slots"] = slots(wanted["name"])
        except (CommandError, OSError) as error:
            seen["problems"].append(f"its slots cannot be read: {error}")
    if wanted["backup"]:
        seen["backup"] = backup_of(BACKUPS) or {"now": time.time()}
    if wanted["edge"]:
        seen["certificate"] = certificate_of(Path(wanted["certificate"]), wanted["name"])
        seen["certificate_days"] = seen["certificate"] and seen["certificate"]["days"]
        try:
            servers = haproxy.Runtime(wanted["socket"]).servers(wanted["name"])
            seen["traffic"] = {name: server.as_dict() for name, server in servers.items()}
            seen |= told_by_director(wanted["name"])
        except (haproxy.HaproxyError, DirectorError) as error:
            seen["problems"].append(str(error))
    return seen


def backup_of(path: Path) -> dict[str, Any]:
    """How the backups and their rehearsal went last, as the backup host remembers it; nothing before the first."""
    try:
        known = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return {"now": time.time(), **known} if isinstance(known, dict) else {}


def certificate_of(path: Path, service: str) -> dict[str, Any] | None:
    found, last = certificates.read(path), acme.noted(acme.STATE, service)
    if found is None:
        return None
    return {
        "days": found.days_left(time.time()),
        "issuer": found.issuer or "itself",
        "problem": str(last.get("problem") or ""),
        "since": last.get("since"),
    }


def told_by_director(name: str) -> dict[str, Any]:
    """The current release, who has the lease, what is under way and what was done."""
    status = ask("status", backend=name)
    backend, lease = status["backends"][name], status["lease"]
    work = backend["rollout"]
    ends = round(lease["expires"] - status["now"])
    return {
        "release": (backend["current"] or {}).get("release"),
        "lease": {"holder": lease["holder"], "work": lease["work"], "ends_in": ends} if lease["live"] else None,
        "rollout": work if work and not work["over"] else None,
        "history": backend["history"],
    }
