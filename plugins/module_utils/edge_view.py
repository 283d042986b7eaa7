"""What an edge knows by itself: its certificate, HAProxy's servers, the director's releases and figures. Reads only."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import acme, haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils.director.control import DirectorError, ask

# There only while the service is in maintenance.
MAINTENANCE = "/var/www/maintenance/{}/page.json"
UNKNOWN: Mapping[str, Any] = {
    "traffic": None,
    "release": None,
    "lease": None,
    "generation": None,
    "rollout": None,
    "history": [],
    "figures": None,
    "placed": None,
    "maintenance": None,
    "certificate_days": None,
    "certificate": None,
}


def observe(name: str, certificate: Path, socket: str = haproxy.SOCKET) -> tuple[dict[str, Any], list[str]]:
    """What is known of the service NAME, and what keeps the rest from being known."""
    seen = {**UNKNOWN, "maintenance": Path(MAINTENANCE.format(name)).exists()}
    problems = []
    seen["certificate"] = certificate_of(certificate, name)
    seen["certificate_days"] = seen["certificate"] and seen["certificate"]["days"]
    try:
        servers = haproxy.Runtime(socket).servers(name)
        seen["traffic"] = {each: server.as_dict() for each, server in servers.items()}
        seen |= told_by_director(name)
    except (haproxy.HaproxyError, DirectorError) as error:
        problems.append(str(error))
    return seen, problems


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
    """The current release, who has the lease, what is under way and what was done, and what users get."""
    status = ask("status", backend=name)
    backend, lease = status["backends"][name], status["lease"]
    work = backend["rollout"]
    ends = round(lease["expires"] - status["now"])
    return {
        "release": (backend["current"] or {}).get("release"),
        "lease": {"holder": lease["holder"], "work": lease["work"], "ends_in": ends} if lease["live"] else None,
        "generation": lease["generation"],
        "rollout": work if work and not work["over"] else None,
        "history": backend["history"],
        "placed": backend["slots"],
        # A director that was not restarted yet measures nothing.
        "figures": backend.get("measured"),
    }
