"""What the hosts of a fleet wrote about requests: read from the journal and Nginx's log, in one order and one form."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

SINCE = re.compile(r"(\d+)\s*([smhd])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# As the edge takes them from a client (roles/edge); everything else never was a request's id.
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{8,64}")
# The numbers of syslog.
PRIORITIES = ("emergency", "alert", "critical", "error", "warning", "notice", "info", "debug")
# A request's way, for lines of the same moment.
WAY = ("edge", "director", "balancer")
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

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


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


def refuse_id(request_id: str) -> str:
    """Why no request can have this id; empty where one can."""
    if not request_id or REQUEST_ID.fullmatch(request_id):
        return ""
    return f"request_id={request_id}: an id is 8 to 64 letters, digits, dots, dashes or underscores"


def component_of(unit: str, service: str) -> str:
    """The part of the fleet that a unit is: an instance of the service by its slot and number."""
    name = unit.removesuffix(".service")
    if name == "agentfleet-director":
        return "director"
    name = name.replace(f"{service}-worker@", "worker-", 1) if name.startswith(f"{service}-worker@") else name
    return {"haproxy": "balancer", "nginx": "edge"}.get(name, name.removeprefix(f"{service}@") or service)


def from_journal(record: Mapping[str, Any], service: str) -> Entry | None:
    """An entry from `journalctl -o json`; None where it has no text."""
    message = record.get("MESSAGE")
    if not isinstance(message, str) or not message.strip():
        return None
    at = int(record.get("_SOURCE_REALTIME_TIMESTAMP") or record.get("__REALTIME_TIMESTAMP") or 0) / 1e6
    unit = str(record.get("UNIT") or record.get("_SYSTEMD_UNIT") or "")
    component = component_of(unit, service)
    try:
        said = json.loads(message)
    except ValueError:
        said = None
    if isinstance(said, dict):
        level = str(said.get("level", "info"))
        return Entry(at, component, level, words(said), str(said.get("request_id", "")))
    priority = str(record.get("PRIORITY", "6"))
    level = PRIORITIES[int(priority)] if priority.isdigit() and int(priority) < len(PRIORITIES) else "info"
    return Entry(at, component, level, message.strip())


def words(said: Mapping[str, Any]) -> str:
    """A JSON line as a person reads it: the event, then what is known of it."""
    rest = [f"{name}={value(known)}" for name, known in said.items() if name not in SAID]
    return " ".join([str(said.get("event") or said.get("message") or ""), *rest]).strip()


def value(known: Any) -> str:
    text = known if isinstance(known, str) else json.dumps(known, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if isinstance(known, str) and (" " in text or not text) else text


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
    # Nginx notes when a request ended, and only to the second.
    return Entry(at, "edge", level_of(status), text, request_id)


def level_of(status: int) -> str:
    return "error" if status >= 500 else "warning" if status >= 400 else "info"


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
