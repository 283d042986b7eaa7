"""The status pages, written on the edge by a timer: from what it knows itself, and from Prometheus where there is one.

No other host is entered for it, so a page cannot tell more than that; what it cannot tell is empty.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import disk, edge_view, status, status_page
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.metrics import KINDS
from ansible_collections.agentfleet.vm.plugins.module_utils.prometheus import PrometheusError, firing, query
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS
from ansible_collections.agentfleet.vm.plugins.module_utils.status import Host

SETTINGS = Path("/etc/agentfleet/status")
PAGES = Path("/var/www/status")
DISKS = "/|/opt|/var"
QUERIES: Mapping[str, str] = {
    "up": 'up{job="node"}',
    "os": 'node_os_info{job="node"}',
    "disk": f'min by (host) (node_filesystem_avail_bytes{{mountpoint=~"{DISKS}"}} '
    f'/ node_filesystem_size_bytes{{mountpoint=~"{DISKS}"}})',
    "backup": "agentfleet_backup_last_success_timestamp_seconds",
    "drill_at": "agentfleet_backup_drill_timestamp_seconds",
    "drill_ok": "agentfleet_backup_drill_ok",
    "drift": "agentfleet_routine_drift > 0",
}
Series = Sequence[tuple[Mapping[str, str], float]]
Figures = Mapping[str, Series]


def ask_all(address: str) -> tuple[Figures, list[dict[str, Any]] | None]:
    """Prometheus' figures by name, and its alerts; nothing where it does not answer, or there is none."""
    if not address:
        return {}, None
    try:
        return {name: query(address, words) for name, words in QUERIES.items()}, firing(address)
    except PrometheusError:
        return {}, None


def hosts_of(
    names: Mapping[str, Sequence[str]],
    own: str,
    seen: Mapping[str, Any],
    figures: Figures,
    alerts: Sequence[Mapping[str, Any]] | None,
    now: float,
) -> list[Host]:
    """The fleet's hosts as an edge, of the name OWN, sees them. NAMES are their groups by name."""
    answers = {labels["host"]: value > 0 for labels, value in figures.get("up", ()) if "host" in labels}
    hosts = []
    for name, groups in names.items():
        known = tuple(group for group in status.GROUPS if group in groups)
        servers = servers_of(seen, f"{name}-")
        lives = name == own or answers.get(name) or any(map(status.is_up, servers))
        if not lives and (name in answers or servers):
            who = "Prometheus" if name in answers else "HAProxy"
            hosts.append(Host(name, known, unreachable=f"it does not answer {who}"))
            continue
        told = of_figures(name, figures, now) if lives else {}
        if "agents" in known and lives:
            told["slots"] = slots_of(name, seen)
        if "monitoring" in known and alerts is not None:
            told["alerts"] = alerts
        hosts.append(Host(name, known, seen={**told, **(seen if name == own else {})}))
    return hosts


def servers_of(seen: Mapping[str, Any], start: str) -> list[Mapping[str, Any]]:
    """The balancer's servers whose names begin so, with a number or a slot after it."""
    return [one for name, one in (seen["traffic"] or {}).items() if name.startswith(start)]


def of_figures(name: str, figures: Figures, now: float) -> dict[str, Any]:
    """What Prometheus knows of a host, as the host itself would say it."""

    def mine(figure: str) -> list[tuple[Mapping[str, str], float]]:
        return [(labels, value) for labels, value in figures.get(figure, ()) if labels.get("host") == name]

    told: dict[str, Any] = {"problems": []}
    for labels, _value in mine("os"):
        words = (labels.get("name", "").split(" ")[0], labels.get("version_id", ""))
        told["os"] = " ".join(word for word in words if word)
    for _labels, value in mine("disk"):
        told["disk_free_percent"] = int(value * 100)
    made = {labels["what"]: {"at": value} for labels, value in mine("backup") if labels.get("what") in KINDS}
    if made:
        drill_at, drill_ok = mine("drill_at"), mine("drill_ok")
        drill = {"at": drill_at[0][1], "ok": bool(drill_ok[0][1])} if drill_at and drill_ok else None
        told["backup"] = {"now": now, **made, "drill": drill}
    drift = [labels["what"] for labels, _value in mine("drift") if "what" in labels]
    if drift:
        told["drift"] = drift
    return told


def slots_of(host: str, seen: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """A host's slots as the director filled them and HAProxy sees them."""
    slots = {}
    for slot in SLOTS:
        release = (seen["placed"] or {}).get(f"{host}-{slot}")
        runs = any(status.is_up(server) or server["weight"] for server in servers_of(seen, f"{host}-{slot}-"))
        slots[slot] = {"release": release, "state": "running" if runs else "stopped" if release else "empty"}
    return slots


def document_of(wanted: Mapping[str, Any], now: float) -> dict[str, Any]:
    """The status of one service, from its settings."""
    seen, problems = edge_view.observe(str(wanted["service"]), Path(wanted["certificate"]))
    figures, alerts = ask_all(str(wanted["prometheus"]))
    usage = shutil.disk_usage("/")
    own = {**seen, "disk_free_percent": usage.free * 100 // max(usage.total, 1), "problems": problems}
    hosts = hosts_of(wanted["hosts"], str(wanted["host"]), own, figures, alerts, now)
    return status.compose(str(wanted["fleet"]), hosts, made_at=now, made_from=status.EDGE)


def write(directory: Path, document: Mapping[str, Any], operators: bool) -> None:
    """The pages; the one with details only where a login is before it."""
    inside = directory / "operations"
    inside.mkdir(parents=True, exist_ok=True)
    if operators:
        disk.write(inside / "status.json", json.dumps(document, ensure_ascii=False).encode() + b"\n", 0o644)
        disk.write(inside / "index.html", status_page.page(document).encode(), 0o644)
    short = status_page.short(document)
    disk.write(directory / "public.json", json.dumps(short).encode() + b"\n", 0o644)
    disk.write(directory / "public.html", status_page.public_page(short).encode(), 0o644)


def main() -> int:
    failed = []
    for path in sorted(SETTINGS.glob("*.json")):
        try:
            wanted = json.loads(path.read_text())
            write(PAGES / str(wanted["service"]), document_of(wanted, time.time()), bool(wanted["operators"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            # Of several services one that is half-removed must not keep the others from having pages.
            failed.append(f"{path}: {error or type(error).__name__}")
    for line in failed:
        print(line, file=sys.stderr)
    return 1 if failed else 0
