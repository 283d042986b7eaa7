#!/usr/bin/python
"""Collect what tells why a host is not well."""

from __future__ import annotations

DOCUMENTATION = r"""
module: diagnosis
short_description: Collect what tells why a host is not well, with secrets removed
description:
  - Processes, memory, disks, ports, units, errors, probes, versions, certificate, names and clock, as text by section
    and as facts. Changes nothing.
  - Each command has O(seconds); one that fails or hangs says so in its section, and the others go on.
  - Secrets are removed on the host; the action plugin of this name removes those that only the controller knows.
options:
  name:
    description: Name of the service.
    type: str
    required: true
  groups:
    description: Groups of the host.
    type: list
    elements: str
    default: []
  address:
    description: The host's address inside the fleet, at which the service listens.
    type: str
    default: 127.0.0.1
  public_address:
    description: The address by which the controller reaches the host.
    type: str
    default: ""
  site:
    description: The name under which users come.
    type: str
    default: ""
  certificate:
    description: The edge's certificate.
    type: path
    default: ""
  seconds:
    description: How long each command may take.
    type: float
    default: 10
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Look at a host
  agentfleet.vm.diagnosis:
    name: agent
    groups: "{{ group_names }}"
"""

RETURN = r"""
sections:
  description: Each with C(name), C(title) and C(text).
  type: list
  elements: dict
  returned: always
facts:
  description: What the findings are made of; null where it is not known.
  type: dict
  returned: always
"""

import contextlib
import http.client
import json
import os
import shlex
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.agentfleet.vm.plugins.module_utils import (
    backup_view,
    diagnosis,
    edge_view,
    host_facts,
    host_view,
    observation,
    systemd,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis import Section
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service
from ansible_collections.agentfleet.vm.plugins.module_utils.status import is_up

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "groups": {"type": "list", "elements": "str", "default": []},
    "address": {"type": "str", "default": "127.0.0.1"},
    "public_address": {"type": "str", "default": ""},
    "site": {"type": "str", "default": ""},
    "certificate": {"type": "path", "default": ""},
    "seconds": {"type": "float", "default": 10},
}
# The end of a text is what happened last.
LONGEST = 200_000
KILLED = "killed by the OOM killer|Out of memory: Killed process"


def said(command: Iterable[str], seconds: float) -> str:
    """What a command wrote, and why it did not get to its end."""
    words = list(command)
    head = f"$ {shlex.join(words)}\n"
    try:
        running = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C.UTF-8", "SYSTEMD_COLORS": "0", "COLUMNS": "200"},
        )
    except OSError as error:
        return f"{head}(not run: {error.strerror})\n"
    try:
        output = running.communicate(timeout=seconds)[0]
        end = ""
    except subprocess.TimeoutExpired:
        os.killpg(running.pid, signal.SIGKILL)
        output = running.communicate()[0]
        end = f"(ended after {seconds:g} s)\n"
    text = output.decode(errors="replace")
    if len(text) > LONGEST:
        text = f"(the last {LONGEST} characters)\n{text[-LONGEST:]}"
    return f"{head}{text or '(nothing)'}\n{end}"


def section(wanted: Section, seconds: float) -> dict[str, str]:
    text = "\n".join(said(command, seconds) for command in wanted.commands)
    return {"name": wanted.name, "title": wanted.title, "text": text}


def ask_site(name: str, certificate: str, seconds: float) -> dict[str, Any]:
    """What a user gets from this edge, by its own certificate or one of an authority."""
    context = ssl.create_default_context()
    with contextlib.suppress(OSError, ssl.SSLError):
        context.load_verify_locations(certificate)
    found: dict[str, Any] = {"name": name, "status": 0, "said": ""}
    try:
        with (
            socket.create_connection(("127.0.0.1", 443), timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=name) as channel,
        ):
            channel.sendall(f"GET /health HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n".encode())
            answer = http.client.HTTPResponse(channel)
            answer.begin()
            found |= {"status": answer.status, "said": " ".join(answer.read(300).decode(errors="replace").split())}
    except (OSError, http.client.HTTPException) as error:
        found["said"] = str(error) or type(error).__name__
    return found


def addresses_of(name: str) -> list[str]:
    try:
        return sorted({str(entry[4][0]) for entry in socket.getaddrinfo(name, 443, proto=socket.IPPROTO_TCP)})
    except OSError:
        return []


def own_addresses() -> list[str]:
    with contextlib.suppress(systemd.CommandError, ValueError):
        shown = json.loads(systemd.run("ip", "-json", "address"))
        return [entry["local"] for link in shown for entry in link.get("addr_info", [])]
    return []


def killed(seconds: float) -> list[str]:
    words = ("journalctl", "--no-pager", "--quiet", "--output=cat", "--since=-24h", f"--grep={KILLED}")
    done = subprocess.run(words, capture_output=True, text=True, errors="replace", check=False, timeout=seconds)
    return done.stdout.splitlines()[-5:]


def of_agent(wanted: Mapping[str, Any]) -> dict[str, Any]:
    service = Service(wanted["name"], Path("/opt") / wanted["name"])
    units = observation.unit_states(service)
    probes = []
    for instance, port in host_facts.instances(service):
        for path in ("/health", "/ready"):
            status, text = host_facts.ask(
                wanted["address"], port, path, wanted["seconds"], host_facts.authority_of(service)
            )
            probe = {"unit": service.unit(instance), "port": port, "path": path, "status": status}
            probes.append({**probe, "said": " ".join(text.split())[:300]})
    return {
        "slots": {slot: observation.observe_slot(service, slot, None, False, units) for slot in SLOTS},
        "restarts": {service.unit(name): int(unit.get("NRestarts") or 0) for name, unit in units.items()},
        "probes": probes,
    }


def of_edge(wanted: Mapping[str, Any]) -> dict[str, Any]:
    seen, problems = edge_view.observe(wanted["name"], Path(wanted["certificate"]))
    servers = (seen["traffic"] or {}).values()
    found = {
        **{name: seen[name] for name in ("release", "lease", "rollout", "history", "certificate")},
        "problems": problems,
        "edge": True,
        "servers": list(servers),
        "servers_down": [server for server in servers if server["weight"] and not is_up(server)],
    }
    if wanted["site"]:
        found["site"] = ask_site(wanted["site"], wanted["certificate"], wanted["seconds"])
        own = [*own_addresses(), wanted["address"], wanted["public_address"]]
        found["dns"] = {"name": wanted["site"], "addresses": addresses_of(wanted["site"]), "own": own}
    return found


def gather(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """The facts; what cannot be known is null, with why."""
    facts: dict[str, Any] = {"unknown": []}
    looks: dict[str, Callable[[], dict[str, Any]]] = {
        "disks": lambda: {"disks": host_facts.disks()},
        "memory": host_facts.memory,
        "clock": lambda: {"clock_synchronized": host_facts.clock()},
        "units": lambda: {"failed_units": host_facts.failed_units()},
        "killed processes": lambda: {"oom": killed(wanted["seconds"])},
        # Only the backup host remembers any.
        "backups": lambda: {"backups": list(backup_view.problems(host_view.backup_of(host_view.BACKUPS)))},
        "system": lambda: {"os": host_view.operating_system(Path("/etc/os-release").read_text())},
    }
    if "agents" in wanted["groups"]:
        looks["slots"] = lambda: of_agent(wanted)
    if "edge" in wanted["groups"]:
        looks["edge"] = lambda: of_edge(wanted)
    for name, look in looks.items():
        try:
            facts |= look()
        except (systemd.CommandError, OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            facts["unknown"].append(f"{name}: {error}")
    return facts


def secrets_here() -> set[str]:
    """Values of all credentials that lie on this host, of any service, and of variables that say that they are such."""
    found: set[str] = set()
    for root in Path("/opt").glob("*/slots"):
        service = Service(root.parent.name, root.parent)
        for slot in SLOTS:
            with contextlib.suppress(OSError, systemd.CommandError):
                found |= set(observation.read_secrets(service, slot).values())
                found |= set(diagnosis.secret_variables(observation.read_environment(service, slot)))
    for path in ("/etc/haproxy/agentfleet-route-key",):
        with contextlib.suppress(OSError):
            found.add(Path(path).read_text().strip())
    return {secret for secret in found if secret.strip()}


def as_section(name: str, title: str, document: Any) -> dict[str, str]:
    return {"name": name, "title": title, "text": json.dumps(document, indent=2, ensure_ascii=False) + "\n"}


def look(wanted: Mapping[str, Any]) -> dict[str, Any]:
    began = time.monotonic()
    sections = [section(one, wanted["seconds"]) for one in diagnosis.sections(wanted["groups"], wanted["name"])]
    facts = gather(wanted)
    facts["seconds"] = round(time.monotonic() - began, 1)
    sections.append(as_section("facts", "What the findings are made of", facts))
    # Here, and not where it arrives: what never leaves cannot be lost on the way.
    clean: dict[str, Any] = diagnosis.redact_all({"sections": sections, "facts": facts}, secrets_here())
    return clean


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    # A module's environment is the caller's; over SSH with sudo, /usr/sbin may be missing from it.
    os.environ["PATH"] = f"{os.environ.get('PATH', '')}:/usr/local/bin:/usr/sbin:/sbin"
    module.exit_json(changed=False, **look(module.params))


if __name__ == "__main__":
    main()
