"""Judges the shape of a fleet: its groups, and its hosts' addresses. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import suggest
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import ROLES_OF_GROUPS

ANSIBLE_GROUPS = ("all", "ungrouped")


@dataclass(frozen=True)
class Address:
    """Where a host is reached from the controller, and from inside the fleet."""

    ssh: str
    port: int
    fleet: str


def judge_topology(
    groups: Mapping[str, Sequence[str]], addresses: Mapping[str, Address], given: Collection[str], inventory: str
) -> list[Finding]:
    """`given` are the variables that are set on the agents: an explicit database host needs no group of ours."""
    findings = []
    mend = f"Correct the groups in {inventory}"
    for group, thing in (("edge", "to take requests"), ("agents", "to answer them")):
        if not groups.get(group):
            findings.append(Finding(f"group '{group}' has no host {thing}{_misspelt(group, groups)}", mend))
    for group, kind in (("postgres", "database"), ("redis", "redis")):
        url, host = f"agent_{kind}_url", f"agent_{kind}_host"
        if not groups.get(group) and url not in given and host not in given:
            text = f"group '{group}' has no host, and '{url}' is not set{_misspelt(group, groups)}"
            own = f'set {url} to a server of your own, or {host} to "" for none'
            findings.append(Finding(text, f"Name a host in {inventory}, or {own}"))
    return findings + _outsiders(groups, mend) + _duplicates(addresses, inventory)


def _misspelt(group: str, groups: Mapping[str, Sequence[str]]) -> str:
    others = [name for name in groups if name not in ROLES_OF_GROUPS and name not in ANSIBLE_GROUPS]
    meant = suggest(group, others)
    return f" (is '{meant}' misspelt?)" if meant else ""


def _outsiders(groups: Mapping[str, Sequence[str]], mend: str) -> list[Finding]:
    ours = [name for name in ROLES_OF_GROUPS if name != "all"]
    insiders = {host for group in ours for host in groups.get(group, ())}
    return [
        Finding(f"is in none of the groups {', '.join(ours)}", mend, host)
        for host in groups.get("all", ())
        if host not in insiders
    ]


def _duplicates(addresses: Mapping[str, Address], inventory: str) -> list[Finding]:
    findings = []
    hosts = list(addresses)
    for position, host in enumerate(hosts):
        same = filter(None, (_shared(addresses[host], addresses[other], other) for other in hosts[:position]))
        for text, variable in list(same)[:1]:
            findings.append(Finding(text, f"Give it its own {variable} in {inventory}", host))
    return findings


def _shared(one: Address, other: Address, name: str) -> tuple[str, str] | None:
    if (one.ssh, one.port) == (other.ssh, other.port):
        return f"has the same address as {name}: {one.ssh}", "ansible_host"
    if one.fleet == other.fleet:
        return f"has the same address inside the fleet as {name}: {one.fleet}", "fleet_address"
    return None
