"""Show lines to the user, and a document to programs; see modules/report.py for its options."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={"text": {"type": "raw", "required": True}, "document": {"type": "raw"}},
        )[1]
        result: dict[str, Any] = super().run(tmp, task_vars)
        text = wanted["text"]
        result["msg"] = [str(line) for line in text] if isinstance(text, list) else str(text).splitlines()
        if wanted["document"] is not None:
            result["document"] = wanted["document"]
        result["changed"] = False
        result["_ansible_verbose_always"] = True
        return result
