"""Gather what preflight found on all hosts; see modules/preflight_findings.py for what it returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils.findings import from_dict, lines_by_host


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        self.validate_argument_spec(argument_spec={})
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        names = [str(name) for name in variables["ansible_play_hosts_all"]]
        told = {name: variables["hostvars"].raw_get(name).get("__preflight", {}) for name in names}
        findings = [from_dict(raw) for name in names for raw in _findings(told[name], name)]
        return {
            **result,
            "changed": False,
            "lines": lines_by_host(findings, names),
            "encrypted": bool(told[names[0]].get("encrypted", False)),
        }


def _findings(told: Mapping[str, Any], name: str) -> Iterable[Mapping[str, Any]]:
    if "findings" in told:
        return list(told["findings"])
    # A host that was not looked at is not fine.
    return [{"host": name, "text": "preflight did not look at this host", "mend": "Run again with -vvv"}]
