"""The fleet's status: one document and one table, from what each host said of itself. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import backup_view as backups
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, place_of

# In this order in the table and the document; other groups are the user's own.
GROUPS = ("edge", "agents", "postgres", "redis", "monitoring", "backup")
CERTIFICATE_MINIMUM_DAYS = 7
DISK_MINIMUM_PERCENT = 10
HISTORY_LINES = 5

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
    answered: dict[str, int] = {}
    for host in hosts:
        for slot in SLOTS:
            weight = traffic.serving(host.name, slot)
            if weight:
                release = release_of(host, slot) or "unknown"
                answered[release] = answered.get(release, 0) + weight
    total = sum(answered.values())
    return {release: round(weight / total, 4) for release, weight in sorted(answered.items())}


def current_release(hosts: Sequence[Host], answered: Mapping[str, float] | None) -> str | None:
    """The release that the edge notes as current; before it notes one, the only one that answers."""
    for host in hosts:
        if host.seen.get("release"):
            return str(host.seen["release"])
    return next(iter(answered)) if answered and len(answered) == 1 else None


def slots_of(host: Host, traffic: Traffic) -> dict[str, dict[str, Any]] | None:
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
        }
    return slots


def compose(fleet: str, hosts: Sequence[Host]) -> dict[str, Any]:
    """The document. Null stands for what is not known."""
    traffic = traffic_of(hosts)
    answered = shares(hosts, traffic)
    days = [int(host.seen["certificate_days"]) for host in hosts if host.seen.get("certificate_days") is not None]
    kept = told(hosts, "backup") or {}
    certificates = [host.seen["certificate"] for host in hosts if host.seen.get("certificate")]
    return {
        "fleet": fleet,
        "release": current_release(hosts, answered),
        "traffic": answered,
        "hosts": [
            {
                "name": host.name,
                "groups": list(host.groups),
                "reachable": not host.unreachable,
                "os": host.seen.get("os"),
                "slots": slots_of(host, traffic),
                "disk_free_percent": host.seen.get("disk_free_percent"),
            }
            for host in hosts
        ],
        "lease": told(hosts, "lease"),
        "rollout": told(hosts, "rollout"),
        "certificate_days": min(days, default=None),
        "certificate": min(certificates, key=lambda certificate: int(certificate["days"]), default=None),
        "last_backup_hours": backups.oldest_hours(kept),
        "backups": backups.document(kept),
    }


def told(hosts: Sequence[Host], name: str) -> Any:
    """What the first edge that knows says."""
    return next((host.seen[name] for host in hosts if host.seen.get(name)), None)


def problems(hosts: Sequence[Host]) -> dict[str, str]:
    """What needs attention, by the host that has it."""
    traffic = traffic_of(hosts)
    found = {}
    for host in hosts:
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


HEADINGS = ("host", "groups", "os", "slot", "release", "state", "traffic", "disk free", "certificate")


def table(fleet: str, hosts: Sequence[Host]) -> list[str]:
    """The same for people."""
    document = compose(fleet, hosts)
    traffic = traffic_of(hosts)
    total = sum(traffic.serving(host.name, slot) for host in hosts for slot in SLOTS)
    rows: list[tuple[str, ...]] = [HEADINGS]
    for host in hosts:
        rows += host_rows(host, slots_of(host, traffic), traffic, total)
    kept = backups.lines(told(hosts, "backup") or {})
    history = history_lines(told(hosts, "history") or [])
    return [headline(document), *under_way(document), *kept, "", *aligned(rows), *history]


def under_way(document: Seen) -> Iterable[str]:
    lease, rollout = document["lease"], document["rollout"]
    if lease:
        yield f"lease  {lease['holder']}, {lease['work']}, {lease['ends_in']} s left unless renewed"
    if rollout:
        share = percent(rollout["share"])
        what = f"{rollout['kind']} of {rollout['release']}"
        yield f"under way  {what}: {rollout['phase']}, stage {rollout['stage']}, {share}"


def history_lines(history: Sequence[Seen]) -> list[str]:
    """The last deploys and rollbacks."""
    if not history:
        return []
    rows: list[tuple[str, ...]] = [("when (UTC)", "what", "outcome", "release", "strategy", "seconds", "by")]
    for entry in history[-HISTORY_LINES:]:
        when = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(float(entry["began_at"])))
        seconds = f"{float(entry['seconds']):.0f}"
        row = (when, entry["kind"], entry["outcome"], entry["release"], entry["strategy"], seconds, entry["by"])
        rows.append(tuple(str(word) for word in row))
    lines = aligned(rows)
    reason = str(history[-1].get("reason") or "") if history[-1]["outcome"] != "promoted" else ""
    return ["", *lines, *([f"  why: {reason}"] if reason else [])]


def headline(document: Seen) -> str:
    answered = document["traffic"]
    if answered is None:
        serving = "traffic not known"
    elif not answered:
        serving = "no traffic"
    else:
        serving = "traffic " + ", ".join(f"{percent(share)} {release}" for release, share in answered.items())
    return f"fleet {document['fleet']}   release {document['release'] or 'none yet'}   {serving}"


def host_rows(host: Host, slots: Mapping[str, Seen] | None, traffic: Traffic, total: int) -> list[tuple[str, ...]]:
    if host.unreachable or host.failed:
        state = "unreachable" if host.unreachable else "not observed"
        return [(host.name, ",".join(host.groups), "", "", "", state, "", "", "")]
    disk, days = host.seen.get("disk_free_percent"), host.seen.get("certificate_days")
    issuer = (host.seen.get("certificate") or {}).get("issuer")
    begin = (host.name, ",".join(host.groups), str(host.seen.get("os") or ""))
    by = f" ({issuer})" if issuer else ""
    end = ("" if disk is None else f"{disk} %", "" if days is None else f"{days} days{by}")
    if slots is None:
        return [(*begin, "", "", "", "", *end)]
    rows: list[tuple[str, ...]] = []
    for slot, known in slots.items():
        share = percent(traffic.serving(host.name, slot) / total) if total else "0 %" if traffic.known else "?"
        row = (slot, known["release"] or "", known["state"], share)
        rows.append((*begin, *row, *end) if not rows else ("", "", "", *row, "", ""))
    return rows


def percent(share: float) -> str:
    return f"{share * 100:.3g} %"


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    used = [column for column, width in enumerate(widths) if any(row[column] for row in rows[1:])]
    return ["  ".join(row[column].ljust(widths[column]) for column in used).rstrip() for row in rows]
