"""Sends a release's artifact to the hosts that report that they need it, and to no other."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.plugin_utils.shipping import shipped


class ActionModule(ActionBase):
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        given = arguments.pop("given", None) or {}
        arguments = {**given, **arguments}
        local = arguments.pop("artifact", None)

        def call(remote: str | None) -> dict[str, Any]:
            final = {**arguments, "artifact": remote} if remote else arguments
            return dict(self._execute_module("agentfleet.vm.release", module_args=final, task_vars=task_vars))

        sendable = bool(local) and arguments.get("state") in ("installed", "prepared") and not self._task.check_mode
        if sendable and not boolean(arguments.get("present", True)):
            return shipped(self, str(local), call)
        result = call(None)
        if arguments.get("state") == "observed":
            return {**result, "given": given}
        if not result.get("needs_artifact"):
            return result
        if sendable:
            return shipped(self, str(local), call)
        return {**result, "failed": True, "msg": f"release {arguments.get('release')} is not on the host: build it"}
