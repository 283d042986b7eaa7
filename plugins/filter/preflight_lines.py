"""The lines that preflight prints under a host."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import from_dict, lines_by_host

DOCUMENTATION = r"""
name: preflight_lines
short_description: What preflight found, one line each, as each host of the play has to print it
description:
  - Merges what M(agentfleet.vm.preflight) found on all hosts; what concerns several is printed under the first of them.
positional: _input, hostvars
options:
  _input:
    description: Names of the play's hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable of this name.
    type: dict
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Gather what cannot work
  ansible.builtin.set_fact:
    lines: "{{ ansible_play_hosts_all | agentfleet.vm.preflight_lines(hostvars) }}"
"""

RETURN = r"""
_value:
  description: Lines by the host that prints them; none of hosts that have nothing to print.
  type: dict
"""


def preflight_lines(hosts: Sequence[str], hostvars: Mapping[str, Any]) -> dict[str, list[str]]:
    names = [str(name) for name in hosts]
    findings = [from_dict(raw) for name in names for raw in _findings(hostvars[name], name)]
    return lines_by_host(findings, names)


def _findings(variables: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    result = variables.get("__preflight", {})
    if "findings" in result:
        return list(result["findings"])
    # A host that was not looked at is not fine.
    return [{"host": name, "text": "preflight did not look at this host", "mend": "Run again with -vvv"}]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"preflight_lines": preflight_lines}
