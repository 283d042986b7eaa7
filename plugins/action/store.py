"""Sends an artifact to the edge's store."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.plugin_utils.shipping import shipped


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        local = arguments.pop("artifact", None)

        def call(remote: str) -> dict[str, Any]:
            final = {**arguments, "artifact": remote}
            return dict(self._execute_module("agentfleet.vm.store", module_args=final, task_vars=task_vars))

        result = call(str(local)) if self._task.check_mode else shipped(self, str(local), call)
        # This runs once, and where Ansible had to look for this host's Python, it would be every host's.
        result.pop("ansible_facts", None)
        return result
