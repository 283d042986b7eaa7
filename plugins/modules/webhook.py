#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: webhook
short_description: Tell a webhook
description:
  - Sends one JSON object from the controller, whatever host the task names.
  - Never fails; what went wrong is a warning. It takes five seconds at most.
options:
  url:
    description: Address of the webhook, which may hold a token and is never shown.
    type: str
    required: true
  message:
    description: What to send.
    type: dict
    required: true
attributes:
  check_mode:
    description: Tells nobody.
    support: full
  diff_mode:
    description: There is nothing to show.
    support: none
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Tell people
  agentfleet.vm.webhook:
    url: "{{ fleet_webhook_url }}"
    message:
      event: start
      text: "The deploy begins"
"""

RETURN = r"""
problem:
  description: Why nobody was told; empty where somebody was.
  type: str
  returned: always
"""
