"""The lines a host wrote, once or as they come; see modules/log_lines.py for the options."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Mapping
from typing import Any, NoReturn

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, show
from ansible_collections.agentfleet.vm.plugins.modules.log_lines import ARGUMENTS

Result = dict[str, Any]
LOOK_SECONDS = 1.0


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)[1]
        super().run(tmp, task_vars)
        host = str((task_vars or {})["inventory_hostname"])
        result = self._read(wanted, task_vars)
        if wanted["follow"] and not result.get("failed"):
            # Ctrl-C is the playbook's, which then ends this process; one that dies by itself while it hands over a line
            # would leave the playbook waiting for the rest of it.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            self._follow(wanted, result, host, task_vars)
        return result

    def _follow(
        self, wanted: Mapping[str, Any], result: Result, host: str, task_vars: dict[str, Any] | None
    ) -> NoReturn:
        while True:
            for line in told(result, host):
                Display().display(line)
            position = result["position"]
            result = {}
            while "entries" not in result:
                time.sleep(LOOK_SECONDS)
                # A host that reboots is asked again.
                with contextlib.suppress(AnsibleConnectionFailure):
                    result = self._read({**wanted, "position": position}, task_vars)

    def _read(self, wanted: Mapping[str, Any], task_vars: dict[str, Any] | None) -> Result:
        return dict(self._execute_module("agentfleet.vm.log_lines", module_args=dict(wanted), task_vars=task_vars))


def told(result: Mapping[str, Any], host: str) -> list[str]:
    return [show(Entry(**{**entry, "host": entry["host"] or host})) for entry in result["entries"]]
