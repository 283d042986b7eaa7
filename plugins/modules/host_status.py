#!/usr/bin/python
"""What one host says of itself for the fleet's status."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_status
short_description: What a host says of itself for the status of the fleet
description:
  - System, disk and, as far as the host has them, the service's slots, the balancer's servers, the current release and
    the certificate. Changes nothing.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  agent:
    description: Whether the host runs the service.
    type: bool
    default: false
  edge:
    description: Whether the host is an edge, with balancer, certificate and release store.
    type: bool
    default: false
  certificate:
    description: The edge's certificate.
    type: path
    default: /etc/agentfleet/tls/agent.crt
  socket:
    description: HAProxy's runtime socket.
    type: path
    default: /run/haproxy/admin.sock
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Look at an agent host
  agentfleet.vm.host_status:
    name: agent
    agent: true
"""

RETURN = r"""
os:
  description: The operating system.
  type: str
  returned: always
  sample: Debian 13
disk_free_percent:
  description: Free space of the fullest of the file systems of V(/), V(/opt) and V(/var).
  type: int
  returned: always
slots:
  description: Release and state of each slot; null on a host that does not run the service.
  type: dict
  returned: always
traffic:
  description: The balancer's servers; null on a host that is no edge, or when HAProxy does not answer.
  type: dict
  returned: always
release:
  description: The release that the edge's director knows as current.
  type: str
  returned: always
lease:
  description: Who has the fleet's lease, for what, and in how many seconds it ends; null when it is free.
  type: dict
  returned: always
rollout:
  description: What the director has under way; null when there is nothing.
  type: dict
  returned: always
history:
  description: Deploys and rollbacks, the latest last.
  type: list
  elements: dict
  returned: always
certificate_days:
  description: Days until the edge's certificate ends; null where there is none.
  type: int
  returned: always
certificate:
  description: >-
    Of the edge's certificate, C(days) until it ends, its C(issuer), and the C(problem) that keeps an authority from
    renewing it, with C(since) when; null where there is none.
  type: dict
  returned: always
problems:
  description: What could not be observed, and what mends it.
  type: list
  elements: str
  returned: always
"""

import shutil
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import acme, haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils.director.control import DirectorError, ask
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import observe_slot, unit_states
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError

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


def observe(wanted: dict[str, Any]) -> dict[str, Any]:
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
        "problems": [],
    }
    if wanted["agent"]:
        try:
            seen["slots"] = slots(wanted["name"])
        except (CommandError, OSError) as error:
            seen["problems"].append(f"its slots cannot be read: {error}")
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


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "agent": {"type": "bool", "default": False},
            "edge": {"type": "bool", "default": False},
            "certificate": {"type": "path", "default": "/etc/agentfleet/tls/agent.crt"},
            "socket": {"type": "path", "default": haproxy.SOCKET},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **observe(module.params))


if __name__ == "__main__":
    main()
