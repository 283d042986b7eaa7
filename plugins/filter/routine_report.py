"""The report of all hosts' routines."""

from __future__ import annotations

DOCUMENTATION = r"""
name: routine_report
short_description: The report of all hosts' routines
description:
  - Reads what M(agentfleet.vm.routine) returned on each host, registered as C(__routine).
positional: hostvars
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
  only:
    description: The one part to show; the newest of each unless set.
    type: str
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
report: "{{ ansible_play_hosts_all | agentfleet.vm.routine_report(hostvars) }}"
"""

RETURN = r"""
_value:
  description: The C(lines) for people, the same as C(document), and by host the C(problems) that were found.
  type: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.routine.report import report


def routine_report(names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], only: str = "") -> dict[str, Any]:
    return report({str(name): hostvars[name].get("__routine") for name in names}, only)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"routine_report": routine_report}
