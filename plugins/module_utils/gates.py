"""What a deploy asks Prometheus of the slots that it gives traffic: the conditions of a rollout. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

# Stands in a user's query for the new slots' instances.
INSTANCES = "$instances"
# Six readings of an instance, and little of the time before it was ready.
CPU_WINDOW = "30s"
SIZE = re.compile(r"(\d+(?:\.\d+)?)([KMGTPE]?)")
PERCENT = re.compile(r"(\d+(?:\.\d+)?)%")
NO_LIMIT = ("", "infinity")
PREFIXES = " KMGTPE"


def conditions(servers: Iterable[str], gates: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What shall hold for each of SERVERS, which have the balancer's names; what has no limit has no condition.

    GATES has the service's `name`, its units' `memory_max` and `cpu_quota` as systemd writes them, the shares of these
    that may be used as `memory` and `cpu`, the seconds to a stream's `first_token`, and the user's own `conditions`.
    """
    instances = pattern(servers)
    selector = f'{{job="agent",service={json.dumps(str(gates["name"]))},instance=~"{instances}"}}'
    asked = [
        ("memory", memory_query(selector, str(gates["memory_max"])), gates["memory"]),
        ("cpu", cpu_query(selector, str(gates["cpu_quota"])), gates["cpu"]),
        ("first token seconds", first_token_query(selector) if gates["first_token"] else "", gates["first_token"]),
        *((own["name"], str(own["query"]).replace(INSTANCES, instances), own["limit"]) for own in gates["conditions"]),
    ]
    return [{"name": str(name), "query": query, "limit": float(limit)} for name, query, limit in asked if query]


def gate_problem(gates: Mapping[str, Any]) -> str:
    """Why these cannot be gates, or nothing."""
    memory, cpu = str(gates["memory_max"]), str(gates["cpu_quota"])
    if memory not in NO_LIMIT and not SIZE.fullmatch(memory) and not PERCENT.fullmatch(memory):
        return f"agent_memory_max: {memory!r} is no size such as 512M or 2G, no percentage and not infinity"
    if cpu not in NO_LIMIT and not PERCENT.fullmatch(cpu):
        return f"agent_cpu_quota: {cpu!r} is no percentage of one processor such as 150%"
    names = ["memory", "cpu", "first token seconds", *(str(own["name"]) for own in gates["conditions"])]
    twice = next((name for name in names if names.count(name) > 1), "")
    return f"agent_gate_conditions: the name {twice!r} is taken" if twice else ""


def pattern(servers: Iterable[str]) -> str:
    """A regular expression for the names; without a backslash, which a text in a query would want twice."""
    return "|".join(name.replace(".", "[.]") for name in sorted(servers))


def memory_query(selector: str, maximum: str) -> str:
    """The part that each process uses of what its unit may have; nothing where that is unlimited."""
    used = f"process_resident_memory_bytes{selector}"
    size, percent = SIZE.fullmatch(maximum), PERCENT.fullmatch(maximum)
    if size:
        return f"{used} / {float(size[1]) * 1024 ** PREFIXES.index(size[2] or ' '):.0f}"
    if percent:
        part = f'{float(percent[1]) / 100:g} * node_memory_MemTotal_bytes{{job="node"}}'
        return f"{used} / on (host) group_left () ({part})"
    return ""


def memory_bytes(maximum: str, total: int) -> int | None:
    """What systemd makes of MemoryMax=MAXIMUM on a host with TOTAL bytes; None is no limit."""
    size, percent = SIZE.fullmatch(maximum), PERCENT.fullmatch(maximum)
    if size:
        return int(float(size[1]) * 1024 ** PREFIXES.index(size[2] or " "))
    return int(total * float(percent[1]) / 100) if percent else None


def cpu_query(selector: str, quota: str) -> str:
    """The part that each process uses of the processor time that its unit may have."""
    percent = PERCENT.fullmatch(quota)
    if not percent:
        return ""
    return f"rate(process_cpu_seconds_total{selector}[{CPU_WINDOW}]) / {float(percent[1]) / 100:g}"


def first_token_query(selector: str) -> str:
    """What 95 of 100 streams of all the slots keep to. All that a new process has counted is of its own release."""
    return f"histogram_quantile(0.95, sum by (le) (rate(agent_first_token_seconds_bucket{selector}[5m])))"
