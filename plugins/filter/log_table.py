"""The lines of all hosts in one order."""

from __future__ import annotations

DOCUMENTATION = r"""
name: log_table
short_description: The lines of all hosts in one order
description:
  - Reads what M(agentfleet.vm.log_lines) returned on each host, registered as C(__log_lines).
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
  description: The lines, and after them the hosts that could not be read.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, in_order, shown


def log_table(names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], lines: int) -> list[str]:
    entries: list[Entry] = []
    silent: list[str] = []
    for name in map(str, names):
        result = hostvars[name].get("__log_lines") or {}
        if result.get("skipped"):
            continue
        if "entries" not in result:
            silent.append(f"{name} was not read: {str(result.get('msg') or 'it said nothing').splitlines()[0]}")
        entries += [Entry(**{**entry, "host": name}) for entry in result.get("entries", [])]
    return [*(shown(in_order(entries, int(lines))) or ["no lines"]), *silent]


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"log_table": log_table}
