#!/usr/bin/python
"""Have a Redis hold a snapshot's data, and what it had before aside."""

from __future__ import annotations

DOCUMENTATION = r"""
module: redis_restore
short_description: Have a Redis hold a snapshot's data, and what it had before aside
description:
  - Reads the snapshot with a Redis of its own, which writes the append-only file; then Redis' files and these
    change places.
  - Keys are counted before and after. On any failure Redis has what it had, and runs.
  - A run that was ended, whenever, is undone by the next one before anything else.
options:
  state:
    description:
      - V(restored) has Redis hold the data of O(rdb); what it had lies aside in its directory.
      - V(put_back) has Redis hold what lies aside; V(kept) removes that.
      - V(observed) only tells whether anything lies aside.
    type: str
    choices: [observed, restored, put_back, kept]
    required: true
  name:
    description: What the restore is called; needed for V(restored), otherwise whichever lies aside if not given.
    type: str
    default: ""
  rdb:
    description: The snapshot, a file on the host; needed for V(restored).
    type: path
  generation:
    description: The number of the fleet's lease; an older one than the host has seen is refused.
    type: int
    default: 0
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Restore Redis
  agentfleet.vm.redis_restore:
    state: restored
    name: 1a2b3c4d
    rdb: /var/lib/agentfleet/restore/redis.rdb

- name: Remove what was there before
  agentfleet.vm.redis_restore:
    state: kept
    name: 1a2b3c4d
"""

RETURN = r"""
keys:
  description: How many keys Redis has, or the snapshot in a dry run.
  type: int
  returned: always
aside:
  description: Name of the restore whose former data lie aside; empty if none do.
  type: str
  returned: always
steps:
  description: What was done.
  type: list
  elements: str
  returned: always
"""

import os
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import installation
from ansible_collections.agentfleet.vm.plugins.module_utils.backup import redis_restore
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.redis_restore import Outcome
from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError


def carried_out(wanted: dict[str, Any], steps: list[str]) -> Outcome:
    name = wanted["name"]
    if wanted["state"] == "observed":
        return redis_restore.seen()
    installation.check_generation(wanted["generation"])
    if wanted["state"] == "put_back":
        return redis_restore.put_back(name, steps.append)
    if wanted["state"] == "kept":
        return redis_restore.keep(name, steps.append)
    return redis_restore.restore(Path(wanted["rdb"]), name, steps.append)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["observed", "restored", "put_back", "kept"], "required": True},
            "name": {"type": "str", "default": ""},
            "rdb": {"type": "path"},
            "generation": {"type": "int", "default": 0},
        },
        required_if=[("state", "restored", ("name", "rdb"))],
        supports_check_mode=True,
    )
    # A module's environment is the caller's; over SSH with sudo, /usr/sbin may be missing from it.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    os.umask(0o077)
    steps: list[str] = []
    try:
        if module.check_mode:
            outcome = redis_restore.foreseen(module.params["state"], module.params["name"], module.params["rdb"])
        else:
            outcome = carried_out(module.params, steps)
    except (BackupError, installation.HostError, OSError) as error:
        module.fail_json(msg=str(error), steps=steps)
    module.exit_json(changed=outcome.changed, keys=outcome.keys, aside=outcome.aside, steps=steps)


if __name__ == "__main__":
    main()
