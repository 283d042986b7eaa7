"""What the hosts of a fleet wrote about requests: read from the journal and Nginx's log, in one order and one form."""

from __future__ import annotations

import datetime
import functools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

SINCE = re.compile(r"(\d+)\s*([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# As the edge takes them from a client (roles/edge); everything else never was a request's id.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# By the numbers of syslog, from the gravest on.
LEVELS = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
# A request's way, for lines of the same moment.
WAY = ("edge", "director", "balancer")
# What -e component= takes, and the units of each; {} is the service. What is none of them is the system.
COMPONENTS = {
    "edge": r"nginx",
    "balancer": r"haproxy",
    "director": r"agentfleet-director",
    "agent": r"{}@(blue|green)(-\d+)?",
    "worker": r"{}-worker@.*",
    "migrate": r"{}-migrate@.*",
    "postgres": r"postgres.*",
    "redis": r"redis-server",
    "backup": r"agentfleet-(backup|drill).*|pgbackrest.*",
    "monitoring": r"(agentfleet-)?prometheus.*|alertmanager|grafana-server|agentfleet-logs.*",
    "system": r".*",
}
# Instances of another service that shares the hosts.
OTHERS = re.compile(r".+@(blue|green)(-\d+)?")
# Said by the columns before the text, or of use to programs alone.
SAID = frozenset({"event", "level", "timestamp", "request_id", "logger", "service", "instance", "slot", "release"})


class LogError(ValueError):
    """What was asked cannot be read."""


@dataclass(frozen=True)
class Entry:
    """A line: when in seconds since 1970, which part of the fleet wrote it, how grave it is, and what it says."""

    at: float
    component: str
    level: str
    text: str
    request_id: str = ""
    host: str = ""
    kind: str = ""  # of the component, as -e component= takes it

    def to_dict(self) -> dict[str, Any]:
        # Quicker than asdict, which copies each value: a day has a million of these.
        return dict(vars(self))


def moment(since: str, now: float) -> float:
    """The moment that SINCE means: `90s`, `15m`, `2h`, `1d` before now, or a date and time, in UTC unless it says."""
    ago = SINCE.fullmatch(since.strip())
    if ago:
        return now - int(ago[1]) * SECONDS[ago[2]]
    try:
        read = datetime.datetime.fromisoformat(since.strip())
    except ValueError as error:
        raise LogError(f"since={since}: write 90s, 15m, 2h, 1d, or a moment as 2026-01-31 12:00") from error
    return (read if read.tzinfo else read.replace(tzinfo=datetime.UTC)).timestamp()


def day(name: str) -> float:
    """When a day began, in UTC."""
    try:
        return datetime.datetime.combine(datetime.date.fromisoformat(name), datetime.time(), datetime.UTC).timestamp()
    except ValueError as error:
        raise LogError(f"day={name}: write a day as 2026-01-31") from error


def refuse_id(request_id: str) -> str:
    """Why no request can have this id; empty where one can."""
    if not request_id or REQUEST_ID.fullmatch(request_id):
        return ""
    return f"request_id={request_id}: an id is 8 to 64 letters, digits, dots, dashes or underscores"


@functools.lru_cache(maxsize=1024)
def component_of(unit: str, service: str) -> str:
    """The part of the fleet that a unit is: an instance of the service by its slot and number."""
    name = unit.removesuffix(".service")
    if name == "agentfleet-director":
        return "director"
    name = name.replace(f"{service}-worker@", "worker-", 1) if name.startswith(f"{service}-worker@") else name
    return {"haproxy": "balancer", "nginx": "edge"}.get(name, name.removeprefix(f"{service}@") or service)


@functools.lru_cache(maxsize=1024)
def kind_of(unit: str, service: str) -> str:
    """Which of COMPONENTS a unit belongs to; empty where it is another service's."""
    name = unit.removesuffix(".service")
    for kind, form in COMPONENTS.items():
        if kind == "system" and OTHERS.fullmatch(name):
            return ""
        if re.fullmatch(form.format(re.escape(service)), name):
            return kind
    return "system"


def from_journal(record: Mapping[str, Any], service: str) -> Entry | None:
    """An entry from `journalctl -o json`; None where it has no text."""
    at = int(record.get("_SOURCE_REALTIME_TIMESTAMP") or record.get("__REALTIME_TIMESTAMP") or 0) / 1e6
    unit = str(record.get("UNIT") or record.get("_SYSTEMD_UNIT") or "")
    return from_unit(at, unit, str(record.get("PRIORITY", "6")), record.get("MESSAGE"), service)


def from_unit(at: float, unit: str, priority: str, message: Any, service: str) -> Entry | None:
    """An entry of what a unit said: in JSON, or as text with the journal's priority."""
    if not isinstance(message, str) or not message.strip():
        return None
    component, kind = component_of(unit, service), kind_of(unit, service)
    try:
        said = json.loads(message) if message.startswith("{") else None
    except ValueError:
        said = None
    if isinstance(said, dict):
        level = str(said.get("level", "info"))
        return Entry(at, component, level, words(said), str(said.get("request_id", "")), kind=kind)
    level = LEVELS[int(priority)] if priority.isdigit() and int(priority) < len(LEVELS) else "info"
    return Entry(at, component, level, message.strip(), kind=kind)


def trace_of(text: str, spans_alone: bool = False) -> str:
    """The trace that a line in JSON is of, if it is of one."""
    try:
        said = json.loads(text)
        return str(said["trace_id"]) if not spans_alone or said["event"] == "span" else ""
    except (ValueError, KeyError, TypeError):
        return ""


def words(said: Mapping[str, Any]) -> str:
    """A JSON line as a person reads it: the event, then what is known of it."""
    rest = [f"{name}={value(known)}" for name, known in said.items() if name not in SAID]
    return " ".join([str(said.get("event") or said.get("message") or ""), *rest]).strip()


def value(known: Any) -> str:
    if isinstance(known, str) and known and " " not in known:
        return known
    return json.dumps(known, ensure_ascii=False)


def from_access(line: str) -> Entry | None:
    """An entry from a line of the edge's access log; None for a line that is none."""
    try:
        said = json.loads(line)
        at = datetime.datetime.fromisoformat(said["time"]).timestamp()
        status = int(said["status"])
        text = f"{said['method']} {said['path']} {status} in {float(said['seconds']):.3f} s, client {said['client']}"
        upstream = str(said.get("upstream_status") or "")
        if upstream and upstream != str(status):
            text += f", the balancer answered {upstream}"
        request_id = str(said["request_id"])
    except (ValueError, KeyError, TypeError):
        return None
    # Nginx notes when a request ended, and only to the second: where it began, it stands before what followed from it.
    return Entry(at - float(said["seconds"]), "edge", level_of(status), text, request_id, kind="edge")


def ended(line: str) -> float:
    """When the request of such a line was over."""
    return datetime.datetime.fromisoformat(json.loads(line)["time"]).timestamp()


def level_of(status: int) -> str:
    return "error" if status >= 500 else "warning" if status >= 400 else "info"


def gravity(level: str) -> int:
    """The smaller, the graver."""
    return LEVELS.index(level) if level in LEVELS else LEVELS.index("info")


def is_wanted(entry: Entry, wanted: Mapping[str, Any]) -> bool:
    """Whether a line is as grave as it has to be, and of the component that is asked for."""
    level, component = wanted["level"], wanted["component"]
    return (not level or gravity(entry.level) <= gravity(level)) and component in ("", entry.kind)


def distinct(entries: Iterable[Entry]) -> list[Entry]:
    """What a host sent twice, since it had no answer the first time, is one line."""
    return list(dict.fromkeys(entries))


def ago(seconds: float) -> str:
    """A span in the unit that fits it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{int(seconds // length)} {unit}"
    return f"{int(seconds)} s"


def in_order(entries: Iterable[Entry], lines: int) -> list[Entry]:
    """The last LINES, oldest first; at one moment in the order of a request's way."""

    def place(entry: Entry) -> tuple[float, int]:
        return entry.at, WAY.index(entry.component) if entry.component in WAY else len(WAY)

    return sorted(entries, key=place)[-lines:]


def shown(entries: Sequence[Entry]) -> list[str]:
    """A line each, with the columns in one width."""
    hosts = max((len(entry.host) for entry in entries), default=0)
    parts = max((len(entry.component) for entry in entries), default=0)
    return [show(entry, hosts, parts) for entry in entries]


def show(entry: Entry, hosts: int = 0, parts: int = 0) -> str:
    at = datetime.datetime.fromtimestamp(entry.at, datetime.UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
    ends = f"  {entry.request_id}" if entry.request_id else ""
    return f"{at}  {entry.host:<{hosts}}  {entry.component:<{parts}}  {entry.level:<8}  {entry.text}{ends}"
