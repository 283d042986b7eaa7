"""What a new release is kept to by Prometheus's figures."""

from __future__ import annotations

DOCUMENTATION = r"""
name: gate_problem
short_description: Why a service's gates cannot be what its variables say
description:
  - What a release is kept to are shares of its unit's limits, so these have to be understood.
options:
  _input:
    description: The service's C(name), C(memory_max), C(cpu_quota), C(memory), C(cpu) and its own C(conditions).
    type: dict
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
# "agent_memory_max: 'much' is no size such as 512M or 2G, no percentage and not infinity"
problem: "{{ _agent_gates | agentfleet.vm.gate_problem }}"
"""

RETURN = r"""
_value:
  description: One line, empty where nothing is wrong.
  type: str
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.filter.fleet import fleet_sockets
from ansible_collections.agentfleet.vm.plugins.module_utils.gates import gate_problem


def prometheus_address(names: Sequence[str], hostvars: Mapping[str, Any]) -> str:
    """Where the first of the monitoring hosts answers the fleet, or nothing where there is none."""
    return next((f"http://{place['address']}" for place in fleet_sockets(names, hostvars, "prometheus_port", 9090)), "")


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"gate_problem": gate_problem, "prometheus_address": prometheus_address}
