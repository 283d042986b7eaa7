"""Write what was found into a folder with one page; see modules/diagnosis_page.py for the options."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis import finding_lines, fleet_findings
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis_page import page
from ansible_collections.agentfleet.vm.plugins.module_utils.status import first_line


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "directory": {"type": "path", "required": True},
                "fleet": {"type": "str", "required": True},
                "service": {"type": "str", "required": True},
            },
        )[1]
        result: dict[str, Any] = super().run(tmp, task_vars)
        known = task_vars or {}
        results = results_of(known["ansible_play_hosts_all"], known["hostvars"])
        found = fleet_findings(results, wanted["service"])
        now = time.gmtime()
        folder = Path(wanted["directory"]) / f"{wanted['fleet']}-{time.strftime('%Y%m%dT%H%M%SZ', now)}"
        text = page(wanted["fleet"], time.strftime("%Y-%m-%d %H:%M:%S", now), found, results)
        write(folder, text, results)
        return {**result, "changed": False, "path": str(folder / "index.html"), "lines": finding_lines(found)}


def results_of(names: Iterable[str], hostvars: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """What each host said, or why it said nothing."""
    found: dict[str, dict[str, Any]] = {}
    for name in map(str, names):
        said = hostvars[name].get("__diagnosis") or {}
        if "facts" in said:
            found[name] = {"facts": said["facts"], "sections": said["sections"]}
        else:
            found[name] = {"unreachable": bool(said.get("unreachable")), "why": first_line(said.get("msg"))}
    return found


def write(folder: Path, text: str, results: Mapping[str, Mapping[str, Any]]) -> None:
    folder.mkdir(parents=True, mode=0o700)
    files = {folder / "index.html": text}
    for host, result in results.items():
        for section in result.get("sections") or ():
            files[folder / safe(host) / f"{safe(section['name'])}.txt"] = str(section["text"])
    for path, content in files.items():
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
            file.write(content)


def safe(name: str) -> str:
    """A host's name as one part of a path."""
    return re.sub(r"[^A-Za-z0-9._-]", "_", name).lstrip(".") or "_"
