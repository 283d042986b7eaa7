"""What was taken away from each host, and what is left."""

from __future__ import annotations

DOCUMENTATION = r"""
name: teardown_lines
short_description: What was taken away from each host, and what is left
description:
  - Reads what M(agentfleet.vm.teardown) returned on each host, registered as C(__teardown).
positional: hostvars, check
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  hostvars:
    description: The variable C(hostvars).
    type: dict
    required: true
  check:
    description: Whether it only would be taken away; then each thing is named.
    type: bool
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
text: "{{ groups['all'] | agentfleet.vm.teardown_lines(hostvars, ansible_check_mode) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.teardown import PACKAGES_STAY


def teardown_lines(names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], check: bool) -> list[str]:
    lines: list[str] = []
    touched = False
    for name in map(str, names):
        result = hostvars[name].get("__teardown") or {}
        steps = result.get("steps")
        if steps is None:
            lines.append(f"{name}: not taken away")
            continue
        touched = touched or bool(steps)
        if check:
            lines += [f"{name}: would {step}" for step in steps] or [f"{name}: nothing to take away"]
        else:
            lines.append(f"{name}: {len(steps)} things taken away" if steps else f"{name}: nothing to take away")
        lines += [f"{name}: {word}" for word in result.get("stays", [])]
    return [*lines, PACKAGES_STAY] if touched else lines


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"teardown_lines": teardown_lines}
