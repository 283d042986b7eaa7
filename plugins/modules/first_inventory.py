#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: first_inventory
short_description: Ask for what makes an inventory, and write it or change it
description:
  - Writes C(hosts.yml), C(group_vars/all/main.yml) and an encrypted C(group_vars/all/vault.yml) with
    passwords of its own, whole or not at all.
  - Of an inventory that is there only what is given is changed. Passwords, edits by hand and comments stay.
  - Asks for what is missing where there is a terminal, and refuses where there is none.
options:
  answers:
    description: The answers, by the names of the options of C(init.yml); what does not come by C(-e) was not given.
    type: dict
    required: true
  directory:
    description: Where the inventories are.
    type: path
    default: inventories
attributes:
  check_mode:
    description: Says what would be written.
    support: full
  diff_mode:
    description: Shows all but the secrets.
    support: full
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Write an inventory of one VM
  agentfleet.vm.first_inventory:
    answers:
      fleet_name: shop
      addresses: 192.0.2.10
      domain: agent.shop.example
      mail: you@shop.example
      model_key: ""
"""

RETURN = r"""
refused:
  description: Why nothing was written, one line each; not returned otherwise.
  returned: where something was refused
  type: list
  elements: str
lines:
  description: What was done.
  returned: where nothing was refused
  type: list
  elements: str
commands:
  description: The next two command lines.
  returned: where nothing was refused
  type: list
  elements: str
inventory:
  description: The inventory's directory.
  returned: where nothing was refused
  type: str
findings:
  description: What has to be mended before the service can work.
  returned: where nothing was refused
  type: list
  elements: dict
hosts:
  description: The inventory's hosts with their groups, and the variables by which SSH reaches them.
  returned: where nothing was refused
  type: list
  elements: dict
"""
