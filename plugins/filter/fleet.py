"""Addresses by which the hosts of the fleet reach each other, and what listens there."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_addresses
short_description: Addresses of several hosts inside the fleet
description:
  - The host variable C(fleet_address) where it is set, else C(ansible_host), else the host's name.
positional: hostvars
options:
  _input:
    description: Names of hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
# ['10.0.0.21', '10.0.0.22']
agents: "{{ groups['agents'] | agentfleet.vm.fleet_addresses(hostvars) }}"
"""

RETURN = r"""
_value:
  description: The addresses, in the order of the names.
  type: list
  elements: str
"""

import ipaddress
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.agentfleet.vm.plugins.module_utils.networks import crosses_public
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, WORKER_OFFSET, ports, server_names
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import TRUE_WORDS

PARTS = {"agent": "agents", "edge": "edge", "monitoring": "monitoring"}


def fleet_address(name: str, hostvars: Mapping[str, Any]) -> str:
    """Address of one host inside the fleet."""
    if name not in hostvars:
        raise AnsibleFilterError(f"fleet_address: the inventory has no host {name}")
    known = hostvars[name]
    for variable in ("fleet_address", "ansible_host"):
        # Each look is an evaluation.
        if address := known.get(variable):
            return str(address)
    return str(name)


def fleet_addresses(names: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Addresses of several hosts inside the fleet, in their order."""
    return [fleet_address(name, hostvars) for name in names]


def fleet_encrypted(names: Iterable[str], hostvars: Mapping[str, Any]) -> bool:
    """Whether these hosts, all of the fleet, encrypt what they tell each other.

    As the variable fleet_tls says, and without it where that crosses a network that is not private.
    """
    hosts = list(names)
    said = [hostvars[name]["fleet_tls"] for name in hosts if hostvars[name].get("fleet_tls") is not None]
    if said:
        return any(str(word).lower() in TRUE_WORDS for word in said)
    return crosses_public(fleet_addresses(hosts, hostvars))


def fleet_requests(names: Iterable[str], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What each host asks of the fleet's authority, once the task of that name ran there."""
    requests = []
    for name in names:
        asked = hostvars[name].get("__tls_fleet_asked")
        if isinstance(asked, Mapping) and "request" in asked:
            wanted = list(dict.fromkeys([fleet_address(name, hostvars), str(name)]))
            kept = {part: asked[part] for part in ("request", "certificate", "authority")}
            requests.append({"host": str(name), "names": wanted, **kept})
    return requests


def socket_address(address: str, port: int) -> str:
    """ADDRESS and PORT in one, with brackets around what has colons itself."""
    try:
        bracketed = ipaddress.ip_address(address).version == 6
    except ValueError:
        bracketed = False
    return f"[{address}]:{port}" if bracketed else f"{address}:{port}"


def slot_servers(names: Iterable[str], hostvars: Mapping[str, Any], port: int, instances: int) -> list[dict[str, str]]:
    """Every instance that the slots of the hosts may have: its name for the balancer, its address, and its worker's.

    PORT and INSTANCES count for hosts that do not say otherwise themselves.
    """
    servers = []
    for name in names:
        first = int(hostvars[name].get("agent_port", port))
        number = int(hostvars[name].get("agent_instances", instances))
        address = fleet_address(name, hostvars)
        for slot in SLOTS:
            for server, listening in zip(server_names(name, slot, number), ports(slot, first, number), strict=True):
                servers.append(
                    {
                        "name": server,
                        "address": socket_address(address, listening),
                        "worker": socket_address(address, listening + WORKER_OFFSET),
                        "host": str(name),
                    }
                )
    return servers


def fleet_sockets(names: Iterable[str], hostvars: Mapping[str, Any], variable: str, port: int) -> list[dict[str, str]]:
    """Where each host listens inside the fleet: at the port that VARIABLE says for it, or else at PORT."""
    ports = {name: int(hostvars[name].get(variable, port)) for name in names}
    return [
        {"host": str(name), "address": socket_address(fleet_address(name, hostvars), ports[name])} for name in ports
    ]


def balancer_figures(names: Iterable[str], hostvars: Mapping[str, Any]) -> list[str]:
    """Where the HAProxy of each edge shows its figures."""
    figures = fleet_sockets(names, hostvars, "balancer_metrics_port", 8405)
    return [f"http://{edge['address']}/metrics" for edge in figures]


def backup_host(groups: Mapping[str, Iterable[str]]) -> str:
    """The host that keeps the backups of all: one of its own, or else the one whose loss would hurt most."""
    for group in ("backup", "postgres", "redis", "edge", "all"):
        for name in groups.get(group, ()):
            return str(name)
    raise AnsibleFilterError("backup_host: the inventory has no host")


def parts_of(name: str, groups: Mapping[str, Iterable[str]]) -> list[str]:
    """What a host has of the fleet, as M(agentfleet.vm.agent_info) calls it."""
    parts = [part for part, group in PARTS.items() if name in groups.get(group, ())]
    return [*parts, "backup"] if name == backup_host(groups) else parts


def backup_sources(names: Iterable[str], hostvars: Mapping[str, Any], host: str) -> list[dict[str, Any]]:
    """Every host that the backup host HOST keeps something of, how it reaches it, and what that is."""
    sources = []
    for name in names:
        groups = hostvars[name]["group_names"]
        what = ["config", *(group for group in ("postgres", "redis", "agents") if group in groups)]
        reached = {"address": fleet_address(name, hostvars), "port": int(hostvars[name].get("ansible_port", 22))}
        sources.append({"host": str(name), **reached, "local": name == host, "what": what})
    return sources


def backup_host_keys(names: Iterable[str], hostvars: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Address, port and SSH's public key of each host; the key is empty for one that this run did not ask."""
    return [
        {
            "address": fleet_address(name, hostvars),
            "port": int(hostvars[name].get("ansible_port", 22)),
            "key": str((hostvars[name].get("__backup_source") or {}).get("host_key", "")),
        }
        for name in names
    ]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "backup_host": backup_host,
            "backup_host_keys": backup_host_keys,
            "backup_sources": backup_sources,
            "fleet_address": fleet_address,
            "fleet_addresses": fleet_addresses,
            "fleet_encrypted": fleet_encrypted,
            "fleet_requests": fleet_requests,
            "fleet_sockets": fleet_sockets,
            "balancer_figures": balancer_figures,
            "parts_of": parts_of,
            "slot_servers": slot_servers,
            "socket_address": socket_address,
        }
