"""What a container may use, in Docker's words."""

from __future__ import annotations

DOCUMENTATION = r"""
name: container_limits
short_description: Options of Docker for limits as systemd writes them
description:
  - What is empty or V(infinity) is no limit.
positional: cpu_quota, memory_mb
options:
  _input:
    description: Most memory, as systemd's C(MemoryMax).
    type: str
    required: true
  cpu_quota:
    description: Most processor time, as systemd's C(CPUQuota).
    type: str
    required: true
  memory_mb:
    description: The host's memory, of which the first may be a percentage.
    type: int
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
# ['--memory=536870912', '--memory-swap=536870912', '--cpu-period=100000', '--cpu-quota=150000']
options: "{{ '512M' | agentfleet.vm.container_limits('150%', 4096) }}"
"""

RETURN = r"""
_value:
  description: The options.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.containers import limits


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"container_limits": limits}
