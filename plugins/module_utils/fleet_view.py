"""The fleet as a plan sees it, from what the observing tasks returned on each host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.plan import FULL, Agent, Edge, Slot, first_line
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS

Result = Mapping[str, Any]


def problem_of(host: str, results: Sequence[Result | None]) -> str:
    """Why a host could not be observed, with the command that shows it again, or nothing."""
    for result in results:
        if not result or result.get("skipped"):
            return f"{host} was not looked at: run the playbook for the whole fleet, without --limit"
        if result.get("unreachable"):
            reason = first_line(result.get("msg"))
            return f"{host} cannot be reached: {reason}. See `ansible {host} -m ansible.builtin.ping`"
        if result.get("failed"):
            return f"{host} could not be observed: {str(result.get('msg', 'no reason given')).strip()}"
    return ""


def read_agent(host: str, result: Result | None, release: str, by_identity: bool) -> Agent:
    """One agent host; a slot matches by all that it runs, or by its release alone."""
    problem = problem_of(host, [result])
    if problem or not result:
        return Agent(host, problem=problem)
    seen = result["observed"]
    return Agent(
        name=host,
        prepared=bool(seen["prepared"]),
        migrates=bool(seen["migrates"]),
        port=int(seen["port"]),
        instances=int(seen["instances"]),
        slots={slot: read_slot(seen["slots"][slot], release, by_identity) for slot in SLOTS},
        has_release=bool(seen["has_release"]),
        disk_free_mb=int(seen["disk_free_mb"]),
        ports_taken={int(port): str(holder) for port, holder in seen["ports_taken"].items()},
    )


def read_slot(seen: Result, release: str, by_identity: bool) -> Slot:
    state = str(seen["state"])
    same_release = seen["release"] == release and state not in ("empty", "damaged")
    return Slot(
        release=str(seen["release"]) if seen["release"] else None,
        matches=bool(seen["matches"]) if by_identity else same_release,
        state=state,
        active=bool(seen["active"]),
        enabled=bool(seen["enabled"]),
    )


def read_edge(host: str, traffic: Result | None, store: Result | None) -> Edge:
    problem = problem_of(host, [traffic, store])
    if problem or not traffic or not store:
        return Edge(host, problem=problem)
    current = store["current"] or {}
    return Edge(
        name=host,
        weights={str(server): int(weight) for server, weight in traffic["after"].items()},
        artifacts=tuple(str(release) for release in store["artifacts"]),
        current=str(current["release"]) if current.get("release") else None,
    )


def shares(weights: Mapping[str, int]) -> dict[str, int]:
    """Percent of the traffic by slot (host-blue, host-green), of those that get any."""
    total = sum(weights.values())
    by_slot: dict[str, int] = {}
    for server, weight in weights.items():
        if weight:
            slot = server.rpartition("-")[0]
            by_slot[slot] = by_slot.get(slot, 0) + weight
    return {slot: round(weight * FULL / total) for slot, weight in sorted(by_slot.items())}
