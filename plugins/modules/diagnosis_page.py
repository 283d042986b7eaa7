#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnosis_page
short_description: Write what was found on a fleet's hosts into a folder with one page
description:
  - Reads what M(agentfleet.vm.diagnosis) returned on each host, registered as C(__diagnosis).
  - Writes a text a section and one page, C(index.html), into a new folder that nobody else may read.
options:
  directory:
    description: Where the folder is made.
    type: path
    required: true
  fleet:
    description: Name of the fleet.
    type: str
    required: true
  service:
    description: Name of the service.
    type: str
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Write the page
  agentfleet.vm.diagnosis_page:
    directory: diagnosis
    fleet: production
    service: agent
  register: __diagnosis_page
"""

RETURN = r"""
path:
  description: The page.
  type: str
  returned: success
lines:
  description: What needs attention, with what mends it.
  type: list
  elements: str
  returned: success
"""
