"""The lines of all hosts in one order."""

from __future__ import annotations

DOCUMENTATION = r"""
name: log_table
short_description: The lines of all hosts in one order, or their figures
description:
  - Reads what M(agentfleet.vm.log_lines) returned on each host, or on the log host for all, registered as
    C(__log_lines).
positional: hostvars, lines
options:
  _input:
    description: Names of the hosts that were asked.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  lines:
    description: How many lines at most, the last ones.
    type: int
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
text: "{{ ansible_play_hosts_all | agentfleet.vm.log_table(hostvars, 200) }}"
"""

RETURN = r"""
_value:
  description:
    - The lines or figures, and after them the hosts that could not be read, or that have not sent all of theirs.
  type: list
  elements: str
"""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import log_summary, span_tree
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, ago, in_order, shown


def log_table(names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], lines: int) -> list[str]:
    entries: list[Entry] = []
    summaries: list[dict[str, Any]] = []
    below: list[str] = []
    trace, spans = "", []
    for name in map(str, names):
        result = hostvars[name].get("__log_lines") or {}
        if result.get("skipped"):
            continue
        if not {"entries", "summary", "spans"} & set(result):
            below.append(f"{name} was not read: {str(result.get('msg') or 'it said nothing').splitlines()[0]}")
        entries += [Entry(**{**entry, "host": entry["host"] or name}) for entry in result.get("entries", [])]
        if "summary" in result:
            summaries.append(log_summary.of_host(result["summary"], name))
        trace = result.get("trace", trace)
        spans += [(host or name, text) for host, text in result.get("spans", [])]
        below += [behind(host["host"], host["at"], time.time()) for host in result.get("late", [])]
    if summaries:
        return [*log_summary.table(log_summary.merged(summaries), **log_summary.period(summaries)), *below]
    if trace:
        return [
            *(span_tree.show(spans, trace) or [f"no spans of {trace}: AGENT_LOG_SPANS=true has them written"]),
            *below,
        ]
    return [*(shown(in_order(entries, int(lines))) or ["no lines"]), *below]


def behind(host: str, at: float, now: float) -> str:
    if not at:
        return f"{host} has sent no line yet"
    return f"{host} sent its last line {ago(now - at)} ago: it is away, or what it wrote since is still to come"


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"log_table": log_table}
