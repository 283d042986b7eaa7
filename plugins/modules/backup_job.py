#!/usr/bin/python
"""Have a host's own program for backups or restores do something, and show how far it is."""

from __future__ import annotations

DOCUMENTATION = r"""
module: backup_job
short_description: Run a command of the programs that role backup installs
description:
  - The command runs as a unit of its own on the host, so that it comes to its end whatever becomes of the controller.
  - What it says of its progress is shown while it runs.
options:
  words:
    description: The command and its options, such as V(run --what postgres).
    type: list
    elements: str
    required: true
  program:
    description: V(backup) is the backup host's, V(restore) that of a host with data.
    type: str
    choices: [backup, restore]
    default: backup
  changes:
    description: Whether it changes anything, so that a dry run leaves it out.
    type: bool
    default: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Back up everything
  agentfleet.vm.backup_job:
    words: [run]
"""

RETURN = r"""
lines:
  description: What it did, for people.
  type: list
  elements: str
  returned: when it ran
failed_parts:
  description: What did not hold, a line each.
  type: list
  elements: str
  returned: when it ran
told:
  description: All that the command answered.
  type: dict
  returned: when it ran
note:
  description: What people should know though it held.
  type: str
  returned: when it ran
"""

ARGUMENTS = {
    "words": {"type": "list", "elements": "str", "required": True},
    "program": {"type": "str", "choices": ["backup", "restore"], "default": "backup"},
    "changes": {"type": "bool", "default": True},
}
