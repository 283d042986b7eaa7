#!/usr/bin/python
"""Documentation of the action plugin of the same name, which runs on the controller."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight_findings
short_description: Gather what preflight found on all hosts
description:
  - Merges what M(agentfleet.vm.preflight) found on all hosts of the play, registered there as C(__preflight); what
    concerns several is printed under the first of them.
  - Runs once for the fleet. A fact would not do for what it returns, since with ansible-core 2.21 a fact that is set
    once before others are gathered has all hosts share what is gathered then.
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
- name: Gather what cannot work
  agentfleet.vm.preflight_findings:
  run_once: true
  register: __preflight_all
"""

RETURN = r"""
lines:
  description: Lines by the host that prints them; none of hosts that have nothing to print.
  returned: always
  type: dict
encrypted:
  description: Whether what the hosts of the fleet tell each other is encrypted.
  returned: always
  type: bool
"""
