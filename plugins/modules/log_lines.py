#!/usr/bin/python
"""The lines that one host wrote about requests."""

from __future__ import annotations

DOCUMENTATION = r"""
module: log_lines
short_description: The lines that a host wrote about requests
description:
  - From the journal those of the service's instances, the director and the balancer, and from Nginx's log the edge's;
    on a log host those that all hosts sent there. Changes nothing.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  edge:
    description: Whether the host is an edge.
    type: bool
    default: false
  store:
    description: The directory of what all hosts sent, on a log host; the host's own lines unless set.
    type: path
  hosts:
    description: Hosts that send lines to O(store), of which RV(late) tells.
    type: list
    elements: str
    default: []
  host:
    description: Of O(store) only lines of this host.
    type: str
    default: ""
  what:
    description: The lines, or their figures, or of O(request_id) the spans (the id may be a trace's as well).
    type: str
    choices: [lines, summary, trace]
    default: lines
  since:
    description: >-
      How far back to look, as V(90s), V(15m), V(2h), V(1d), or a moment as V(2026-01-31 12:00) in UTC. Unless set
      V(15m), all that O(store) has of a O(request_id), and V(1d) for a summary.
    type: str
    default: ""
  day:
    description: The day of a summary, as V(2026-01-31), in UTC; instead of O(since).
    type: str
    default: ""
  level:
    description: Only lines that are at least that grave.
    type: str
    default: ""
  component:
    description: Only lines of this part of the fleet.
    type: str
    default: ""
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
  description: The lines, each with C(at), C(component), C(level), C(text), C(request_id), C(host) and C(kind).
  type: list
  elements: dict
  returned: with what=lines
summary:
  description: The figures, by hour, component, host, level and kind of error, and the time that they are of.
  type: dict
  returned: with what=summary
spans:
  description: Host and words of each span.
  type: list
  elements: list
  returned: with what=trace
late:
  description: Hosts whose lines are not all on the log host, and the moment of the last one that is.
  type: list
  elements: dict
  returned: with store
position:
  description: Where reading ended.
  type: dict
  returned: with what=lines
"""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import log_lines, log_search, log_summary
from ansible_collections.agentfleet.vm.plugins.module_utils.log_lines import Entry, LogError
from ansible_collections.agentfleet.vm.plugins.module_utils.log_store import Vanished

EDGE_UNITS = ("agentfleet-director.service", "haproxy.service")
ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "edge": {"type": "bool", "default": False},
    "store": {"type": "path"},
    "hosts": {"type": "list", "elements": "str", "default": []},
    "host": {"type": "str", "default": ""},
    "what": {"type": "str", "choices": ["lines", "summary", "trace"], "default": "lines"},
    "since": {"type": "str", "default": ""},
    "day": {"type": "str", "default": ""},
    "level": {"type": "str", "default": ""},
    "component": {"type": "str", "default": ""},
    "request_id": {"type": "str", "default": ""},
    "lines": {"type": "int", "default": 200},
    "position": {"type": "dict", "default": {}},
    "access_log": {"type": "path", "default": "/var/log/nginx/access.log"},
    "follow": {"type": "bool", "default": False},
}


def records(wanted: dict[str, Any], since: float, text: str) -> list[dict[str, Any]]:
    """What the units said, with TEXT in it if there is one, oldest first."""
    units = [f"{wanted['name']}{kind}@*.service" for kind in ("", "-worker", "-migrate")]
    units += EDGE_UNITS if wanted["edge"] else ()
    cursor = str(wanted["position"].get("cursor") or "")
    command = ["journalctl", "--no-pager", "--quiet", "--output=json"]
    # Debian 12's journalctl takes the first lines of a time, unless it begins at the end.
    command += [f"--after-cursor={cursor}"] if cursor else ["--reverse", f"--since=@{since:.6f}"]
    # The service's own level and the component are known once a line is read.
    every = cursor or wanted["level"] or wanted["component"] or wanted["what"] != "lines"
    command += [] if every else [f"--lines={wanted['lines']}"]
    command += [f"--grep={text.replace('.', '[.]')}"] if text else []
    done = subprocess.run(
        [*command, *(f"--unit={unit}" for unit in units)], capture_output=True, text=True, errors="replace", check=False
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return found if cursor else found[::-1]


def journal(wanted: dict[str, Any], since: float) -> tuple[list[Entry], str]:
    """Entries of what the units said, and the cursor behind them."""
    found = records(wanted, since, wanted["request_id"])
    entries = [entry for record in found if (entry := log_lines.from_journal(record, wanted["name"]))]
    cursor = str(found[-1]["__CURSOR"]) if found else str(wanted["position"].get("cursor") or "")
    return [entry for entry in entries if log_lines.is_wanted(entry, wanted)], cursor


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
        # Lines are in the order in which requests were over, not in that in which they began.
        if entry and entry.at < since - 1 and log_lines.ended(line) < since - 1:
            break
        if entry and is_asked_for(entry, wanted):
            entries.append(entry)
        if wanted["what"] == "lines" and len(entries) >= wanted["lines"]:
            break
    return entries


def is_asked_for(entry: Entry, wanted: dict[str, Any]) -> bool:
    return wanted["request_id"] in ("", entry.request_id) and log_lines.is_wanted(entry, wanted)


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


def own(wanted: dict[str, Any], since: float) -> tuple[list[Entry], dict[str, Any]]:
    """What this host wrote."""
    before = wanted["position"]
    position: dict[str, Any] = {}
    log = Path(wanted["access_log"])
    entries: list[Entry] = []
    if wanted["edge"]:
        if before:
            lines, position = appended(log, before)
            read = (log_lines.from_access(line) for line in lines)
            entries += [entry for entry in read if entry and is_asked_for(entry, wanted)]
        else:
            # What comes between the two is read twice rather than never, so the position is taken first.
            size = log.stat().st_size if log.exists() else 0
            position = {"inode": log.stat().st_ino, "offset": size} if log.exists() else {}
            entries += access(wanted, since)
    told, position["cursor"] = journal(wanted, since)
    return [*entries, *told], position


def kept(wanted: dict[str, Any], since: float) -> tuple[list[Entry], dict[str, Any]]:
    """What all hosts sent here."""
    store = Path(wanted["store"])
    if wanted["position"]:
        return log_search.appended(store, wanted, wanted["position"])
    sizes = log_search.sizes(store) if wanted["follow"] else {}
    find = log_search.of_request if wanted["request_id"] else log_search.latest
    return find(store, wanted, since), sizes


def spans(wanted: dict[str, Any], since: float) -> list[tuple[str, str]]:
    """Host and words of the spans of a request or trace: those of the traces that lines with its id are of."""

    def look(text: str) -> list[tuple[str, str]]:
        if wanted["store"]:
            return log_search.texts(Path(wanted["store"]), wanted, since, text)
        return [("", str(record.get("MESSAGE"))) for record in records(wanted, since, text)]

    traces = dict.fromkeys(filter(None, (log_lines.trace_of(text) for _host, text in look(wanted["request_id"]))))
    found = (pair for trace in traces for pair in look(trace))
    return list(dict.fromkeys(pair for pair in found if log_lines.trace_of(pair[1], spans_alone=True) in traces))


def period(wanted: dict[str, Any], now: float) -> tuple[float, float]:
    """From when until when lines are looked at."""
    if wanted["day"]:
        since = log_lines.day(wanted["day"])
        return since, min(since + log_search.DAY, now)
    if wanted["request_id"] and wanted["store"] and not wanted["since"]:
        return 0.0, now
    return log_lines.moment(wanted["since"] or ("1d" if wanted["what"] == "summary" else "15m"), now), now


def look(wanted: dict[str, Any], now: float) -> dict[str, Any]:
    since, until = period(wanted, now)
    wrong = log_lines.refuse_id(wanted["request_id"])
    if wrong:
        raise LogError(wrong)
    late = {"late": log_search.late(Path(wanted["store"]), wanted["hosts"], now)} if wanted["store"] else {}
    if wanted["what"] == "summary":
        if wanted["store"]:
            counted = log_search.between(Path(wanted["store"]), wanted, since, until)
        else:
            counted = (entry for entry in own(wanted, since)[0] if since <= entry.at < until)
        return {"summary": {**log_summary.count(counted), "since": since, "until": until}, **late}
    if wanted["what"] == "trace":
        return {"spans": spans(wanted, since), "trace": wanted["request_id"], **late}
    read, position = kept(wanted, since) if wanted["store"] else own(wanted, since)
    found = log_lines.in_order(log_lines.distinct(read), wanted["lines"])
    return {"entries": [entry.to_dict() for entry in found], "position": position, **late}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        module.exit_json(changed=False, **look(module.params, time.time()))
    except (LogError, Vanished, OSError) as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
