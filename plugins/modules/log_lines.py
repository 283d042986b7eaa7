#!/usr/bin/python
"""The lines that one host wrote about requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: log_lines
short_description: The lines that a host wrote about requests
description:
  - From the journal those of the service's instances, the director and the balancer, and from Nginx's log the edge's.
    Changes nothing.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  edge:
    description: Whether the host is an edge.
    type: bool
    default: false
  since:
    description: How far back to look, as V(90s), V(15m), V(2h), V(1d), or a moment as V(2026-01-31 12:00) in UTC.
    type: str
    default: 15m
  request_id:
    description: Only lines of this request.
    type: str
    default: ""
  lines:
    description: How many lines at most, the last ones.
    type: int
    default: 200
  position:
    description: What an earlier call returned as RV(position); only what came after it is read.
    type: dict
    default: {}
  access_log:
    description: Nginx's log of requests.
    type: path
    default: /var/log/nginx/access.log
  follow:
    description: Whether to go on showing lines as they come, until interrupted.
    type: bool
    default: false
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: See what became of a request
  agentfleet.vm.log_lines:
    name: agent
    since: 1h
    request_id: 0f8fad5bd9cb469fa165
"""

RETURN = r"""
entries:
  description: The lines, each with C(at), C(component), C(level), C(text) and C(request_id).
  type: list
  elements: dict
  returned: always
position:
  description: Where reading ended.
  type: dict
  returned: always
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import log_lines
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, LogError

EDGE_UNITS = ("agentfleet-director.service", "haproxy.service")
ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "edge": {"type": "bool", "default": False},
    "since": {"type": "str", "default": "15m"},
    "request_id": {"type": "str", "default": ""},
    "lines": {"type": "int", "default": 200},
    "position": {"type": "dict", "default": {}},
    "access_log": {"type": "path", "default": "/var/log/nginx/access.log"},
    "follow": {"type": "bool", "default": False},
}


def journal(wanted: dict[str, Any], since: float) -> tuple[list[Entry], str]:
    """What the units said, oldest first, and the cursor behind it."""
    units = [f"{wanted['name']}{kind}@*.service" for kind in ("", "-worker", "-migrate")]
    units += EDGE_UNITS if wanted["edge"] else ()
    cursor = str(wanted["position"].get("cursor") or "")
    command = ["journalctl", "--no-pager", "--quiet", "--output=json"]
    # Debian 12's journalctl takes the first lines of a time, unless it begins at the end.
    command += (
        [f"--after-cursor={cursor}"] if cursor else ["--reverse", f"--lines={wanted['lines']}", f"--since=@{since:.6f}"]
    )
    command += [f"--grep={wanted['request_id'].replace('.', '[.]')}"] if wanted["request_id"] else []
    done = subprocess.run(
        [*command, *(f"--unit={unit}" for unit in units)], capture_output=True, text=True, errors="replace", check=False
    )
    records = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    if not cursor:
        records.reverse()
    entries = [entry for record in records if (entry := log_lines.from_journal(record, wanted["name"]))]
    return entries, str(records[-1]["__CURSOR"]) if records else cursor


def newest_first(path: Path) -> Iterator[str]:
    """The lines of a log and of the one before it, the last one first."""
    for file in (path, path.with_name(f"{path.name}.1")):
        if file.exists():
            with subprocess.Popen(["tac", str(file)], stdout=subprocess.PIPE, text=True, errors="replace") as reading:
                assert reading.stdout
                try:
                    yield from reading.stdout
                finally:
                    reading.terminate()


def access(wanted: dict[str, Any], since: float) -> list[Entry]:
    """Requests since a moment, as far as the log of today and yesterday has them."""
    entries: list[Entry] = []
    for line in newest_first(Path(wanted["access_log"])):
        entry = log_lines.from_access(line)
        if entry and entry.at < since - 1:
            break
        if entry and wanted["request_id"] in ("", entry.request_id):
            entries.append(entry)
        if len(entries) >= wanted["lines"]:
            break
    return entries


def appended(path: Path, position: dict[str, Any]) -> tuple[list[str], dict[str, int]]:
    """The whole lines that a log got since a position; all of it where it was begun anew meanwhile."""
    if not path.exists():
        return [], {}
    inode, offset = path.stat().st_ino, int(position.get("offset", 0))
    with path.open("rb") as file:
        file.seek(offset if inode == position.get("inode") and offset <= path.stat().st_size else 0)
        text = file.read()
        whole = text[: text.rfind(b"\n") + 1]
        end = file.tell() - len(text) + len(whole)
    return whole.decode(errors="replace").splitlines(), {"inode": inode, "offset": end}


def look(wanted: dict[str, Any], now: float) -> dict[str, Any]:
    since = log_lines.moment(wanted["since"], now)
    wrong = log_lines.refuse_id(wanted["request_id"])
    if wrong:
        raise LogError(wrong)
    before = wanted["position"]
    position: dict[str, Any] = {}
    log = Path(wanted["access_log"])
    entries: list[Entry] = []
    if wanted["edge"]:
        if before:
            lines, position = appended(log, before)
            read = (log_lines.from_access(line) for line in lines)
            entries += [entry for entry in read if entry and wanted["request_id"] in ("", entry.request_id)]
        else:
            # What comes between the two is read twice rather than never, so the position is taken first.
            size = log.stat().st_size if log.exists() else 0
            position = {"inode": log.stat().st_ino, "offset": size} if log.exists() else {}
            entries += access(wanted, since)
    told, position["cursor"] = journal(wanted, since)
    found = log_lines.in_order([*entries, *told], wanted["lines"])
    return {"entries": [entry.to_dict() for entry in found], "position": position}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **look(module.params, time.time()))
    except (LogError, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
