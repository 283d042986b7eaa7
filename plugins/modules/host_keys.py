#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_keys
short_description: Have a person accept the SSH keys of hosts that are new
description:
  - Shows the fingerprint of a host that is not known yet and asks whether it is the host's. Without a
    terminal nothing is accepted.
  - A key that is another than the one known is never accepted.
  - What is accepted is added to the file that ssh itself would use.
options:
  hosts:
    description: The hosts, as M(agentfleet.vm.first_inventory) returns them.
    type: list
    elements: dict
    required: true
  accept:
    description: Whether to accept keys that are not known yet unseen.
    type: bool
    default: false
attributes:
  check_mode:
    description: Nothing is added.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Accept the hosts' keys
  agentfleet.vm.host_keys:
    hosts:
      - name: vm1
        variables: {ansible_host: 192.0.2.10, ansible_user: root}
"""

RETURN = r"""
known:
  description: Names of the hosts that may be connected to.
  returned: always
  type: list
  elements: str
lines:
  description: Which keys were accepted.
  returned: always
  type: list
  elements: str
findings:
  description: Which keys were not, and how to accept them.
  returned: always
  type: list
  elements: dict
"""
