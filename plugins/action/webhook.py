"""Tells a webhook, and never fails; see modules/webhook.py for the options."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.plugin_utils.webhook import send


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "url": {"type": "str", "required": True, "no_log": True},
                "message": {"type": "dict", "required": True},
            },
        )[1]
        result: dict[str, Any] = {**super().run(tmp, task_vars), "changed": False}
        if self._task.check_mode:
            return {**result, "problem": ""}
        problem = send(str(wanted["url"]), wanted["message"])
        if problem:
            self._display.warning(f"fleet_webhook_url was not told of the {wanted['message'].get('event')}: {problem}")
        return {**result, "problem": problem}
