#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Look for what would make a playbook fail, before it changes anything
description:
  - Judges a host's inventory variables, the playbook's options and the shape of the fleet on the controller.
  - Runs one shell script on the host, which needs no Python, and judges what it reports.
  - Finds and does not fail, so that all hosts' findings are told at once, by M(agentfleet.vm.preflight_findings).
options:
  playbook:
    description: The playbook that asks, by its name without V(.yml); its options are in C(meta/options.yml).
    type: str
    required: true
  host:
    description: Whether to look at the host itself, too.
    type: bool
    default: true
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
- name: Look at the variables and the host
  agentfleet.vm.preflight:
    playbook: site
  register: __preflight
"""

RETURN = r"""
findings:
  description: What is wrong, where and how to mend it.
  returned: always
  type: list
  elements: dict
  contains:
    host:
      description: The host concerned; empty for the fleet as a whole.
      type: str
    text:
      description: What is wrong, naming the variable or the thing. Never a secret's value.
      type: str
    mend:
      description: The command or the edit that mends it.
      type: str
encrypted:
  description: Whether what the hosts of the fleet tell each other is encrypted.
  returned: on the first host of the play
  type: bool
"""
