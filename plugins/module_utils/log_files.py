"""Lines of Nginx's, PostgreSQL's and Redis's own files, as the log host keeps them: whose moment, level and words."""

from __future__ import annotations

import datetime
import re

from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, from_access

# What a sender calls a file (roles/logs/vars), the component, and how its lines begin and say how grave they are.
FORMS = {
    "nginx-error": ("edge", "%Y/%m/%d %H:%M:%S", re.compile(r"(\d{4}/\S+ \S+) \[(\w+)\] (.*)", re.DOTALL)),
    "postgresql": (
        "postgres",
        "%Y-%m-%d %H:%M:%S.%f",
        re.compile(r"(\d{4}-\S+ \S+\.\d+) \S+ \[\d+\] (?:\S+@\S+ )?([A-Z]+\d?):\s+(.*)", re.DOTALL),
    ),
    "redis-server": (
        "redis",
        "%d %b %Y %H:%M:%S.%f",
        re.compile(r"\d+:\w (\d+ \w+ \d{4} \S+) ([.*#-]) (.*)", re.DOTALL),
    ),
}
LEVELS = {
    **{"emerg": "emergency", "crit": "critical", "warn": "warning"},
    **{"PANIC": "critical", "FATAL": "error", "ERROR": "error", "WARNING": "warning", "NOTICE": "notice"},
    **{"#": "warning", "*": "notice", "-": "info", ".": "debug"},
    **{level: level for level in ("alert", "error", "notice", "info", "debug")},
}


def from_file(name: str, text: str, read: datetime.datetime) -> Entry | None:
    """An entry of a file's line; READ says when the sender read it, and the zone that the file's own moments are in."""
    if name == "nginx-access":
        return from_access(text)
    if name not in FORMS or not text.strip():
        return None
    component, form, line = FORMS[name]
    found = line.fullmatch(text)
    if not found:
        # It goes on with the line before.
        return Entry(read.timestamp(), component, "info", text.strip(), kind=component)
    at = datetime.datetime.strptime(found[1], form).replace(tzinfo=read.tzinfo).timestamp()
    return Entry(at, component, LEVELS.get(found[2], "info"), found[3].strip(), kind=component)
