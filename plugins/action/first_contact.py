"""Look at a host that nothing of ours is on yet; see modules/first_contact.py for the options."""

from __future__ import annotations

import socket
from typing import Any

from ansible_collections.agentfleet.vm.plugins.action.preflight import ActionModule as Preflight
from ansible_collections.agentfleet.vm.plugins.module_utils.first_contact import OF_USERS, judge_doors
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import Evaluation, find_place
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known

SECONDS = 5


class ActionModule(Preflight):
    """Judges the host as preflight does, and the ways to it besides."""

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "groups": {"type": "list", "elements": "str", "required": True},
                "inventory": {"type": "path", "required": True},
            },
        )[1]
        known = load_known()
        self._vars = task_vars or {}
        self._host = str(self._vars["inventory_hostname"])
        self._groups = [str(group) for group in wanted["groups"]]
        self._place = find_place(wanted["inventory"])
        self._evaluation = Evaluation(self._templar, self._vars)
        findings = self._judge_host(known)
        reached = not any(finding.text.startswith("unreachable") for finding in findings)
        if reached and "edge" in self._groups:
            address = self._access().address
            findings += judge_doors(self._host, address, {port: _door(address, port) for port in OF_USERS})
        return {"changed": False, "findings": [finding.to_dict() for finding in findings]}


def _door(address: str, port: int) -> str:
    try:
        socket.create_connection((address, port), timeout=SECONDS).close()
    except ConnectionError:
        return "closed"
    except OSError:
        return "silent"
    return "open"
