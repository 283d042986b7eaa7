#!/usr/bin/python
"""What came of a host's routine, and carrying it out now."""

from __future__ import annotations

DOCUMENTATION = r"""
module: routine
short_description: What came of a host's routine
description:
  - Reads the newest result of the daily, the weekly and the monthly part. With O(run) one of them is carried out
    before.
options:
  run:
    description: The part to carry out now; none unless set. A dry run carries out nothing.
    type: str
    choices: [daily, weekly, monthly]
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Look at the host now
  agentfleet.vm.routine:
    run: daily
"""

RETURN = r"""
routines:
  description: >-
    By the name of the part when it ran (C(at)), how many C(seconds) it took, and its C(findings), each with C(check),
    C(level) (V(ok), V(notice), V(problem), V(unknown)), C(text) and what mends it.
  type: dict
  returned: always
"""

import json
import os
import subprocess
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule

PROGRAM = "/usr/local/lib/agentfleet/routine/agentfleet-routine"
STATE = Path("/var/lib/agentfleet/routine")
ROUTINES = ("daily", "weekly", "monthly")


def main() -> None:
    module = AnsibleModule(
        argument_spec={"run": {"type": "str", "choices": list(ROUTINES)}},
        supports_check_mode=True,
    )
    run = module.params["run"]
    if not Path(PROGRAM).exists():
        module.fail_json(msg="this host has no routine yet; bring it with: ansible-playbook playbooks/site.yml")
    if run and not module.check_mode:
        path = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/sbin:/sbin"
        done = subprocess.run(
            [PROGRAM, run], capture_output=True, text=True, check=False, env={**os.environ, "PATH": path}
        )
        if done.returncode:
            module.fail_json(msg=f"agentfleet-routine {run}: {(done.stderr or done.stdout).strip()[-500:]}")
    routines = {}
    for name in ROUTINES:
        file = STATE / f"{name}.json"
        if file.exists():
            routines[name] = json.loads(file.read_text())
    module.exit_json(changed=bool(run) and not module.check_mode, routines=routines)


if __name__ == "__main__":
    main()
