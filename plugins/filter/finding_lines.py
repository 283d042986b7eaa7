"""The lines of findings that one place tells for all hosts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import from_dict, lines_by_host

DOCUMENTATION = r"""
name: finding_lines
short_description: Findings about several hosts, one line each, in the hosts' order
positional: _input, hosts
options:
  _input:
    description: Findings, as M(agentfleet.vm.preflight) returns them.
    type: list
    elements: dict
    required: true
  hosts:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Say what has to be mended
  ansible.builtin.fail:
    msg: "{{ findings | agentfleet.vm.finding_lines(['edge1', 'agent1']) | join('\n') }}"
"""

RETURN = r"""
_value:
  description: Lines.
  type: list
  elements: str
"""


def finding_lines(findings: Iterable[Mapping[str, Any]], hosts: Sequence[str]) -> list[str]:
    names = [str(name) for name in hosts] or ["fleet"]
    told = lines_by_host([from_dict(raw) for raw in findings], names)
    return [line for name in names for line in told.get(name, [])]


class FilterModule:
    def filters(self) -> dict[str, Any]:
        return {"finding_lines": finding_lines}
