"""What a restore came to, for the playbook that carries it out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.catalogue import stamp

Hosts = Mapping[str, Mapping[str, Any]]


def restore_problem(names: Iterable[str], hostvars: Hosts, step: str = "__restore_step") -> str:
    """The first failure of the step that just ran, or of the one that was registered as STEP; or nothing."""
    for name in names:
        result = hostvars[name].get(step)
        if not isinstance(result, Mapping):
            continue
        if result.get("unreachable"):
            return f"{name} cannot be reached"
        if result.get("failed"):
            return f"{name}: {told(result)}"
    return ""


def told(result: Mapping[str, Any]) -> str:
    """What a step that failed says; of a loop, the item that did."""
    for item in result.get("results", ()):
        if isinstance(item, Mapping) and item.get("failed"):
            path = (item.get("item") or {}).get("path", "") if isinstance(item.get("item"), Mapping) else ""
            return f"the restored service does not answer {path} with 200 ({item.get('status', 'no answer')})"
    return str(result.get("msg") or "it gave no reason").splitlines()[0]


def restore_lines(plan: Mapping[str, Any], done: Mapping[str, Any], redis: Mapping[str, Any]) -> list[str]:
    """What was restored, and until when it has data."""
    lines = []
    if done:
        until = done.get("until")
        last = f"; its last transaction is of {stamp(until)}" if until else ""
        lines.append(f"PostgreSQL is as of {plan['words']}{last} ({done.get('seconds', 0):.0f} s)")
        if not done.get("reached", True):
            lines.append("nothing was written between that and the moment that was asked for, as far as the log goes")
    if redis.get("label"):
        lines.append(f"Redis is as of snapshot {redis['label']}, {stamp(redis['at'])}")
    return [*lines, "a new backup is being made"]


def restore_undone(names: Iterable[str], hostvars: Hosts) -> list[str]:
    """Where what was there before answers again, and where it does not."""
    lines = []
    for name in names:
        result = hostvars[name].get("__restore_back")
        if not isinstance(result, Mapping) or result.get("skipped"):
            continue
        if result.get("unreachable") or result.get("failed"):
            lines.append(f"{name}: what was there before is NOT back ({result.get('msg', 'it cannot be reached')})")
        elif result.get("changed"):
            lines.append(f"{name}: what was there before answers again")
    return lines or ["nothing was changed"]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "restore_problem": restore_problem,
            "restore_lines": restore_lines,
            "restore_undone": restore_undone,
        }
