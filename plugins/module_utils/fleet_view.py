"""The fleet as a plan sees it, from what the observing tasks returned on each host."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import FULL
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import Agent, Edge, Slot, first_line
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import schema_from
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, place_of

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


def read_agent(host: str, result: Result | None, release: str, by_identity: bool, only: Sequence[str] = ()) -> Agent:
    """One agent host; a slot matches by all that it runs, or by its release alone, narrowed to the slots of ONLY."""
    problem = problem_of(host, [result])
    if problem or not result:
        return Agent(host, problem=problem, unreachable=bool(result and result.get("unreachable")))
    seen = result["observed"]
    narrowed = any(f"{host}-{slot}" in only for slot in SLOTS)
    return Agent(
        name=host,
        prepared=bool(seen["prepared"]),
        migrates=bool(seen["migrates"]),
        port=int(seen["port"]),
        instances=int(seen["instances"]),
        slots={
            slot: read_slot(seen["slots"][slot], release, by_identity, not narrowed or f"{host}-{slot}" in only)
            for slot in SLOTS
        },
        has_release=bool(seen["has_release"]),
        disk_free_mb=int(seen["disk_free_mb"]),
        ports_taken={int(port): str(holder) for port, holder in seen["ports_taken"].items()},
    )


def read_slot(seen: Result, release: str, by_identity: bool, may_match: bool) -> Slot:
    state = str(seen["state"])
    same_release = seen["release"] == release and state not in ("empty", "damaged")
    return Slot(
        release=str(seen["release"]) if seen["release"] else None,
        matches=may_match and (bool(seen["matches"]) if by_identity else same_release),
        state=state,
        active=bool(seen["active"]),
        enabled=bool(seen["enabled"]),
    )


def read_edge(host: str, result: Result | None) -> Edge:
    """The edge as its director describes one backend."""
    problem = problem_of(host, [result])
    if problem or not result:
        return Edge(host, problem=problem)
    seen = result["backend"]
    current, work = seen["current"] or {}, seen["rollout"] or {}
    return Edge(
        name=host,
        weights={str(name): int(server["weight"]) for name, server in seen["servers"].items()},
        artifacts=tuple(str(release) for release in seen["artifacts"]),
        current=str(current["release"]) if current.get("release") else None,
        busy=f"{work['kind']} of {work['release']} is under way: {work['phase']}" if work and not work["over"] else "",
        floor=str(seen.get("floor") or ""),
        schemas={str(name): schema_from(stored.get("schema")) for name, stored in seen["artifacts"].items()},
    )


def shares(weights: Mapping[str, int]) -> dict[str, int]:
    """Percent of the traffic by slot (host-blue, host-green), of those that get any."""
    total = sum(weights.values())
    by_slot: dict[str, int] = {}
    for server, weight in weights.items():
        if weight:
            slot = place_of(server)
            by_slot[slot] = by_slot.get(slot, 0) + weight
    return {slot: round(weight * FULL / total) for slot, weight in sorted(by_slot.items())}
