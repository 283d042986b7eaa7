#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: console
short_description: A console inside the release that a host runs
description:
  - Gives the command that a person pastes to get there; nothing that waits for a person is started.
  - Carries out O(command) there instead, if it is given.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  what:
    description: A shell, the release's Python, or the client of the service's database.
    type: str
    choices: [shell, python, psql]
    default: shell
  slot:
    description: The slot to work in; the one that serves unless set.
    type: str
    choices: ["", blue, green]
    default: ""
  command:
    description: What the shell, Python or psql carries out, once.
    type: str
    default: ""
attributes:
  check_mode:
    description: O(command) is not carried out.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Get the way to Python inside the current release
  agentfleet.vm.console:
    name: agent
    what: python
  register: __console
"""

RETURN = r"""
slot:
  description: The slot it is.
  type: str
  returned: success
release:
  description: The release in it.
  type: str
  returned: success
ssh:
  description: What a person pastes.
  type: str
  returned: success
output:
  description: What O(command) wrote, by line; null where it was not carried out.
  type: list
  elements: str
  returned: success
"""
