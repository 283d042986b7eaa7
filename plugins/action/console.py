"""The way into the release that a host runs, or one command there; see modules/console.py for the options."""

from __future__ import annotations

import json
import shlex
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.plugin_utils.access import CONSOLE, access_to, console_command
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import Evaluation, find_place

NOT_THERE = 127


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "name": {"type": "str", "required": True},
                "what": {"type": "str", "choices": ["shell", "python", "psql"], "default": "shell"},
                "slot": {"type": "str", "choices": ["", "blue", "green"], "default": ""},
                "command": {"type": "str", "default": ""},
            },
        )[1]
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        host = str(known["inventory_hostname"])
        words = [CONSOLE, wanted["name"], wanted["what"], *(["--slot", wanted["slot"]] if wanted["slot"] else [])]
        looked = self._low_level_execute_command(shlex.join([*words, "--check"]))
        if looked["rc"]:
            return {**result, "failed": True, "msg": self._reason(looked, host)}
        access = access_to(host, Evaluation(self._templar, known), find_place(str(known.get("inventory_dir") or ".")))
        result |= json.loads(looked["stdout"])
        result["ssh"] = console_command(access.ssh, access.user, words)
        result["output"] = None
        result["changed"] = False
        if wanted["command"] and not self._task.check_mode:
            # The slot that was looked at, even if a deploy moves the traffic now.
            there = [CONSOLE, wanted["name"], wanted["what"], "--slot", result["slot"], "-c", wanted["command"]]
            done = self._low_level_execute_command(shlex.join(there))
            result["output"] = (done["stdout"] + done["stderr"]).splitlines()
            result["changed"] = True
            if done["rc"]:
                result |= {"failed": True, "msg": "\n".join([*result["output"], f"it ended with status {done['rc']}"])}
        return result

    @staticmethod
    def _reason(looked: dict[str, Any], host: str) -> str:
        if looked["rc"] == NOT_THERE:
            return f"{host} has no console yet; bring it with: ansible-playbook playbooks/site.yml --limit {host}"
        said = (looked["stderr"] or looked["stdout"]).strip().splitlines()
        return said[-1].removeprefix("agentfleet-console: ") if said else f"status {looked['rc']}"
