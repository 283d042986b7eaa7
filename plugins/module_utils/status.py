"""The fleet's status as one document, from what each host said of itself or an edge knows of it. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import backup_view as backups
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, host_and_slot, place_of

# In this order in the table and the document; other groups are the user's own.
GROUPS = ("edge", "agents", "postgres", "redis", "monitoring", "backup")
CERTIFICATE_MINIMUM_DAYS = 7
DISK_MINIMUM_PERCENT = 10
HISTORY_LINES = 5
# Below so many requests a few failures say nothing of the service.
MINIMUM_SAMPLE = 20
DEGRADED_ERROR_RATE = 0.05
# Who was asked.
HOSTS, EDGE = "hosts", "edge"

Seen = Mapping[str, Any]


@dataclass(frozen=True)
class Host:
    """One host: its groups, and what it said, or why it said nothing."""

    name: str
    groups: tuple[str, ...]
    seen: Seen = field(default_factory=dict)
    unreachable: str = ""
    failed: str = ""


def read_host(name: str, groups: Iterable[str], result: Seen | None) -> Host:
    """A host from what the observing task returned there."""
    known = tuple(group for group in GROUPS if group in set(groups))
    said = first_line(result.get("msg")) if result else ""
    if not result or result.get("skipped"):
        return Host(name, known, failed="it was not looked at")
    if result.get("unreachable"):
        return Host(name, known, unreachable=said.rpartition("reached over ssh: ")[2].removeprefix("Task failed: "))
    if result.get("failed"):
        return Host(name, known, failed=said)
    return Host(name, known, seen=result)


def first_line(text: Any) -> str:
    return (str(text or "").strip().splitlines() or ["no reason given"])[0]


@dataclass(frozen=True)
class Traffic:
    """The balancer's servers by slot; `known` is false where no edge could tell."""

    slots: Mapping[str, Sequence[Seen]] = field(default_factory=dict)
    known: bool = False

    @cached_property
    def total(self) -> int:
        """The weight of all that counts."""
        return sum(self.serving(*host_and_slot(place)) for place in self.slots)

    def weight(self, host: str, slot: str) -> int | None:
        if not self.known:
            return None
        return sum(int(server["weight"]) for server in self.slots.get(f"{host}-{slot}", ()))

    def serving(self, host: str, slot: str) -> int:
        """The weight that counts: of servers that HAProxy sends users to."""
        return sum(int(server["weight"]) for server in self.slots.get(f"{host}-{slot}", ()) if is_up(server))

    def down(self, host: str, slot: str) -> list[Seen]:
        """Servers that should answer and cannot."""
        return [server for server in self.slots.get(f"{host}-{slot}", ()) if server["weight"] and not is_up(server)]


def is_up(server: Seen) -> bool:
    """Whether it gets users. Its last check is not asked: one that is under way has no result for a moment."""
    return bool(server["state"] == "up")


def traffic_of(hosts: Iterable[Host]) -> Traffic:
    """What the first edge that can tell says."""
    for host in hosts:
        servers = host.seen.get("traffic")
        if servers is not None:
            slots: dict[str, list[Seen]] = {}
            for name, server in sorted(servers.items()):
                slots.setdefault(place_of(name), []).append(server)
            return Traffic(slots, known=True)
    return Traffic()


def release_of(host: Host, slot: str) -> str | None:
    slots = host.seen.get("slots") or {}
    release = (slots.get(slot) or {}).get("release")
    return str(release) if release else None


def shares(hosts: Sequence[Host], traffic: Traffic) -> dict[str, float] | None:
    """The part of the traffic that each release answers, or None where it is not known."""
    if not traffic.known:
        return None
    placed = told(hosts, "placed") or {}
    answered: dict[str, int] = {}
    for host in hosts:
        for slot in SLOTS:
            weight = traffic.serving(host.name, slot)
            if weight:
                # Of a host that is silent the director knows what it put there.
                release = release_of(host, slot) or placed.get(f"{host.name}-{slot}") or "unknown"
                answered[release] = answered.get(release, 0) + weight
    total = sum(answered.values())
    return {release: round(weight / total, 4) for release, weight in sorted(answered.items())}


def current_release(hosts: Sequence[Host], answered: Mapping[str, float] | None) -> str | None:
    """The release that the edge notes as current; before it notes one, the only one that answers."""
    for host in hosts:
        if host.seen.get("release"):
            return str(host.seen["release"])
    return next(iter(answered)) if answered and len(answered) == 1 else None


FIGURES = ("requests", "error_rate", "p95_seconds")


def slots_of(host: Host, traffic: Traffic, figures: Seen) -> dict[str, dict[str, Any]] | None:
    seen = host.seen.get("slots")
    if seen is None:
        return None
    slots = {}
    for slot in SLOTS:
        state = str(seen[slot]["state"])
        if state == "running" and traffic.down(host.name, slot):
            state = "unhealthy"
        slots[slot] = {
            "release": release_of(host, slot),
            "state": state,
            "weight": traffic.weight(host.name, slot),
            **slot_numbers(host, slot, traffic, figures),
        }
    return slots


def slot_numbers(host: Host, slot: str, traffic: Traffic, figures: Seen) -> dict[str, Any]:
    """How a slot of a host does: instances that answer, its part of the traffic, what users got of it."""
    servers = traffic.slots.get(f"{host.name}-{slot}", ())
    total = traffic.total
    numbers = (figures.get("slots") or {}).get(f"{host.name}-{slot}") or {}
    return {
        "instances": len(servers) if traffic.known else None,
        "answering": sum(is_up(server) for server in servers) if traffic.known else None,
        "share": round(traffic.serving(host.name, slot) / total, 4) if total else 0.0 if traffic.known else None,
        **{name: numbers.get(name) for name in FIGURES},
    }


def compose(fleet: str, hosts: Sequence[Host], made_at: float | None = None, made_from: str = HOSTS) -> dict[str, Any]:
    """The document. Null stands for what is not known."""
    traffic = traffic_of(hosts)
    answered = shares(hosts, traffic)
    current = current_release(hosts, answered)
    days = [int(host.seen["certificate_days"]) for host in hosts if host.seen.get("certificate_days") is not None]
    kept = told(hosts, "backup") or {}
    figures = told(hosts, "figures") or {}
    certificates = [host.seen["certificate"] for host in hosts if host.seen.get("certificate")]
    return {
        "fleet": fleet,
        "state": state_of(hosts, traffic, figures),
        "made_at": stamp(time.time() if made_at is None else made_at),
        "made_from": made_from,
        "release": current,
        "traffic": answered,
        "figures": {name: figures.get(name) for name in ("seconds", *FIGURES)} if figures else None,
        "hosts": [
            {
                "name": host.name,
                "groups": list(host.groups),
                "reachable": reachable(host),
                "os": host.seen.get("os"),
                "slots": slots_of(host, traffic, figures),
                "disk_free_percent": host.seen.get("disk_free_percent"),
                "drift": drift_of(host, hosts, current),
                "attention": list(problems_of(host, traffic)),
            }
            for host in hosts
        ],
        "lease": told(hosts, "lease"),
        "rollout": told(hosts, "rollout"),
        "history": list((told(hosts, "history") or [])[-HISTORY_LINES:]),
        "certificate_days": min(days, default=None),
        "certificate": min(certificates, key=lambda certificate: int(certificate["days"]), default=None),
        "last_backup_hours": backups.oldest_hours(kept),
        "backups": backups.document(kept),
        "alerts": next((host.seen["alerts"] for host in hosts if host.seen.get("alerts") is not None), None),
    }


def stamp(moment: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def reachable(host: Host) -> bool | None:
    """An edge alone cannot tell of every host."""
    if host.unreachable:
        return False
    return True if host.seen or host.failed else None


def state_of(hosts: Sequence[Host], traffic: Traffic, figures: Seen) -> str | None:
    """What users have of it, in a word: up, degraded, down or maintenance."""
    if any(host.seen.get("maintenance") for host in hosts):
        return "maintenance"
    if not traffic.known:
        return None
    places = [host_and_slot(place) for place in traffic.slots]
    if not any(traffic.serving(*place) for place in places):
        return "down"
    many = int(figures.get("requests") or 0) >= MINIMUM_SAMPLE
    failing = many and float(figures.get("error_rate") or 0) >= DEGRADED_ERROR_RATE
    return "degraded" if failing or any(traffic.down(*place) for place in places) else "up"


def drift_of(host: Host, hosts: Sequence[Host], current: str | None) -> list[str] | None:
    """What on a host is not as the fleet left it; null where nobody looked."""
    seen = host.seen.get("drift")
    if seen is None:
        return None
    found = [str(line) for line in seen]
    held = {release_of(host, slot) for slot in SLOTS}
    if current and current not in held and host.seen.get("slots"):
        found.append(f"it lacks the current release {current}; site.yml brings it")
    newest, wrote = told(hosts, "generation"), host.seen.get("host_generation")
    if newest is not None and wrote is not None and int(wrote) > int(newest):
        found.append(f"lease {wrote} wrote here, and the edge knows of {newest} at most: was the edge restored?")
    return found


def told(hosts: Sequence[Host], name: str) -> Any:
    """What the first edge that knows says."""
    return next((host.seen[name] for host in hosts if host.seen.get(name)), None)


def problems(hosts: Sequence[Host]) -> dict[str, str]:
    """What makes the status a failure, by the host that has it.

    A host that cannot be reached is a row like any other, unless it is the one that knows where the traffic goes.
    """
    traffic = traffic_of(hosts)
    found = {}
    for host in hosts:
        if host.unreachable and (traffic.known or "edge" not in host.groups):
            continue
        told = list(problems_of(host, traffic))
        if told:
            found[host.name] = "; ".join(told)
    return found


def problems_of(host: Host, traffic: Traffic) -> Iterable[str]:
    if host.unreachable:
        yield f"cannot be reached ({host.unreachable}); try: ansible {host.name} -m ansible.builtin.ping"
    if host.failed:
        yield f"could not be observed: {host.failed}"
    yield from host.seen.get("problems") or ()
    for slot in SLOTS:
        for server in traffic.down(host.name, slot):
            yield f"{server['name']} should answer and is {server['state']} ({server['check'] or 'no check yet'})"
    days, disk = host.seen.get("certificate_days"), host.seen.get("disk_free_percent")
    if days is not None and days < CERTIFICATE_MINIMUM_DAYS:
        yield f"its certificate ends in {days} days; renew it with: ansible-playbook playbooks/site.yml --limit edge"
    kept = (host.seen.get("certificate") or {}).get("problem")
    if kept:
        yield f"no new certificate: {kept}; try again with: ansible-playbook playbooks/site.yml --limit edge"
    yield from backups.problems(host.seen.get("backup") or {})
    if disk is not None and disk < DISK_MINIMUM_PERCENT:
        yield f"{disk} % of a disk is free; see: df -h"
