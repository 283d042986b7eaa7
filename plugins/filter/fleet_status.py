"""The status of the fleet from what the play's hosts said of themselves."""

from __future__ import annotations

DOCUMENTATION = r"""
name: fleet_status
short_description: Status of the fleet from what its hosts said of themselves
description:
  - Reads what M(agentfleet.vm.agent_info) returned on each host, registered as C(__status_host).
positional: hostvars, fleet
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
  fleet:
    description: Name of the fleet.
    type: str
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
status: "{{ ansible_play_hosts_all | agentfleet.vm.fleet_status(hostvars, 'production') }}"
"""

RETURN = r"""
_value:
  description: The C(document), the lines of a C(table), and by host the C(problems) that need attention.
  type: dict
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.status import compose, problems, read_host
from ansible_collections.agentfleet.vm.plugins.module_utils.status_table import table


def fleet_status(names: Iterable[str], hostvars: Mapping[str, Mapping[str, Any]], fleet: str) -> dict[str, Any]:
    hosts = [read_host(str(name), hostvars[name]["group_names"], hostvars[name].get("__status_host")) for name in names]
    return {"document": compose(str(fleet), hosts), "table": table(str(fleet), hosts), "problems": problems(hosts)}


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"fleet_status": fleet_status}
