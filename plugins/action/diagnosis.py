"""Look at a host, and leave out secrets that only the controller knows; see modules/diagnosis.py for the options."""

from __future__ import annotations

from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis import redact_all
from ansible_collections.agentfleet.vm.plugins.modules.diagnosis import ARGUMENTS
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import Evaluation
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known
from ansible_collections.agentfleet.vm.plugins.plugin_utils.secrets import inventory_secrets


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)[1]
        super().run(tmp, task_vars)
        known = task_vars or {}
        result = dict(self._execute_module("agentfleet.vm.diagnosis", module_args=dict(wanted), task_vars=task_vars))
        secrets = inventory_secrets(Evaluation(self._templar, known), load_known(), known)
        for part in ("sections", "facts", "msg"):
            if part in result:
                result[part] = redact_all(result[part], secrets)
        return result
