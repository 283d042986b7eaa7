#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: report
short_description: Show lines to the user, and a document to programs
description:
  - The callback P(agentfleet.vm.fleet#callback) prints the lines as they are; every other shows them as C(msg).
  - Where the playbook runs with C(status_format=json), that callback prints the document and nothing else.
options:
  text:
    description: A text, or a list of lines.
    type: raw
    required: true
  document:
    description: The same as data.
    type: raw
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Show the result
  agentfleet.vm.report:
    text:
      - "release  shop-1a2b3c4d5e6f"
      - "traffic  100 %"
    document:
      release: shop-1a2b3c4d5e6f
"""

RETURN = r"""
msg:
  description: The lines.
  type: list
  elements: str
  returned: always
document:
  description: The document.
  type: raw
  returned: when given
"""
