#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: first_contact
short_description: Look at a host that nothing of ours is on yet
description:
  - Judges what M(agentfleet.vm.preflight) judges of a host, and whether ports 80 and 443
    of the edge can be reached from here.
  - Finds and does not fail, so that all hosts' findings are told at once.
options:
  groups:
    description: The host's groups in the inventory that is made.
    type: list
    elements: str
    required: true
  inventory:
    description: The directory of that inventory, for the commands that mend.
    type: path
    required: true
attributes:
  check_mode:
    description: Nothing is ever changed.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Look at the host
  agentfleet.vm.first_contact:
    groups: [edge, agents]
    inventory: inventories/shop
"""

RETURN = r"""
findings:
  description: What is wrong and how to mend it, as of M(agentfleet.vm.preflight).
  returned: always
  type: list
  elements: dict
"""
