"""What a host has and runs of one service; reads only, and answers on a bare host as well."""

from __future__ import annotations

import hashlib
import ipaddress
import json
import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import runtimes, systemd
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import (
    ArtifactError,
    content_digest,
    files_of_tree,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.identity import identity
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import (
    RESERVED,
    SLOTS,
    Service,
    instance_names,
    parse_environment,
    ports,
)

LISTENING = "0A"
# Of the newest lease that wrote on this host.
GENERATION = Path("/var/lib/agentfleet/generation")


@dataclass(frozen=True)
class Wanted:
    """What a slot shall run."""

    release: str
    environment: Mapping[str, str]
    secrets: Mapping[str, str]
    instances: int
    runtime: str = runtimes.VENV
    # Of agent_runtime docker alone.
    image: str = ""


def runtime_of(service: Service, wanted: Wanted, python: str = "") -> runtimes.Runtime:
    return runtimes.all_runtimes(service, python, wanted.image)[wanted.runtime]


def unit_digests(service: Service) -> dict[str, str]:
    """Limits and sandbox are part of what a slot runs."""
    files = {"service": service.unit_file, "worker": service.worker_file}
    return {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items() if path.exists()}


def units_of(service: Service, wanted: Wanted) -> dict[str, str]:
    """Digests of what says how the slot is run."""
    return unit_digests(service) | runtime_of(service, wanted).digests()


def wanted_identity(service: Service, wanted: Wanted) -> str:
    return identity(wanted.release, wanted.environment, wanted.secrets, wanted.instances, units_of(service, wanted))


def credential_name(file: str) -> str:
    """What systemd calls a file of the credentials directory, and what it is sealed under."""
    return f"agent_{file}"


def read_record(service: Service, slot: str) -> dict[str, Any]:
    """slot.json, written last: a slot without it was left half-written."""
    try:
        record = json.loads((service.slot(slot) / "slot.json").read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def read_secrets(service: Service, slot: str) -> dict[str, str]:
    """The slot's secrets, decrypted; one that this host cannot read counts as absent."""
    secrets = {}
    directory = service.slot(slot) / "credentials"
    for path in sorted(directory.iterdir()) if directory.is_dir() else []:
        try:
            secrets[path.name] = systemd.decrypt(credential_name(path.name), path)
        except systemd.CommandError:
            continue
    return secrets


def read_environment(service: Service, slot: str) -> dict[str, str]:
    """The slot's variables, without those that name the slot."""
    try:
        variables = parse_environment((service.slot(slot) / "environment").read_text())
    except OSError:
        return {}
    return {name: value for name, value in variables.items() if name not in RESERVED}


def linked(service: Service, slot: str, part: str) -> str:
    """The name of the part, such as the release, that a slot points at, if that is there."""
    link = service.slot(slot) / part
    return Path(os.readlink(link)).name if link.is_symlink() and link.exists() else ""


def holds(service: Service, slot: str, wanted: Wanted, intact: bool) -> bool:
    """Whether the slot is exactly what is wanted: by its record, and by what lies on the disk.

    INTACT tells whether the wanted release is on the host and whole.
    """
    record = read_record(service, slot)
    if not intact or record.get("identity") != wanted_identity(service, wanted):
        return False
    whole = runtimes.of_record(service, record).whole(slot, record)
    if not whole or linked(service, slot, "release") != wanted.release:
        return False
    return read_environment(service, slot) == dict(wanted.environment) and read_secrets(service, slot) == dict(
        wanted.secrets
    )


def differences(service: Service, slot: str, wanted: Wanted) -> list[str]:
    """What of a slot would be another, by name: that of a secret tells nothing of it."""
    record = read_record(service, slot)
    if not record:
        return []

    def named(kind: str, before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
        words = {True: "new", False: "gone"}
        return [
            f"{kind} {name} ({'new value' if name in before and name in after else words[name in after]})"
            for name in sorted({*before, *after})
            if before.get(name) != after.get(name)
        ]

    found = []
    if record.get("release") != wanted.release:
        found.append(f"release ({record.get('release')})")
    if record.get("instances") != wanted.instances:
        found.append(f"instances ({record.get('instances')})")
    if record.get("runtime", runtimes.VENV) != wanted.runtime:
        found.append(f"runtime ({record.get('runtime', runtimes.VENV)})")
    found += named("variable", read_environment(service, slot), wanted.environment)
    found += named("secret", read_secrets(service, slot), wanted.secrets)
    if record.get("units") != units_of(service, wanted):
        found.append("limits or sandbox")
    return found


def release_intact(service: Service, release: str) -> bool:
    """Whether a release's files are those that its id names."""
    try:
        return content_digest(files_of_tree(service.releases / release)) == release.rsplit("-", 1)[-1]
    except (ArtifactError, OSError):
        return False


def installed_releases(service: Service) -> list[str]:
    """Releases on the host, oldest first."""
    if not service.releases.is_dir():
        return []
    found = [path for path in service.releases.iterdir() if not path.name.startswith(".")]
    return [path.name for path in sorted(found, key=lambda path: path.stat().st_mtime)]


def unit_states(service: Service, unit: Callable[[str], str] | None = None) -> dict[str, dict[str, str]]:
    """Loaded units of the service's slots, by instance (blue-1 …); UNIT names others than those that serve."""
    patterns = [(unit or service.unit)(f"{slot}-*") for slot in SLOTS]
    shown = systemd.show(patterns, "ActiveState", "SubState", "NRestarts", "MainPID", "Result")
    return {name.split("@", 1)[1].removesuffix(".service"): state for name, state in shown.items()}


def enabled(service: Service, instance: str) -> bool:
    """Whether an instance starts at boot."""
    wants = service.unit_file.parent / "multi-user.target.wants"
    return (wants / service.unit(instance)).is_symlink()


def slot_state(states: Iterable[str], recorded: bool, whole: bool, begun: bool) -> str:
    """One word for a slot, from its instances' states."""
    active = list(states)
    if not recorded:
        return "damaged" if begun else "empty"
    if not whole:
        return "damaged"
    if active and all(state == "active" for state in active):
        return "running"
    if any(state == "failed" for state in active):
        return "failed"
    return "starting" if any(state != "inactive" for state in active) else "stopped"


def observe_slot(
    service: Service,
    slot: str,
    wanted: Wanted | None,
    intact: bool,
    units: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:
    record = read_record(service, slot)
    release = linked(service, slot, "release")
    whole = release == record.get("release") and runtimes.of_record(service, record).whole(slot, record)
    names = instance_names(slot, int(record.get("instances", 0)))
    states = [units.get(name, {}).get("ActiveState", "inactive") for name in names]
    mine = [name for name in units if name.startswith(f"{slot}-")]
    matches = bool(wanted and whole and holds(service, slot, wanted, intact))
    # Of what serves it is asked; of the other one nobody, and reading its secrets takes its time.
    started = bool(names) and all(enabled(service, name) for name in names)
    return {
        "release": release or None,
        "identity": record.get("identity"),
        "instances": int(record.get("instances", 0)),
        "matches": matches,
        "differs": differences(service, slot, wanted) if wanted and started and not matches else [],
        "state": slot_state(states, bool(record), whole, begun=bool(release)),
        "active": sorted(name for name in mine if units[name].get("ActiveState") not in ("inactive", "failed")),
        "enabled": started,
    }


def own_processes(service: Service, units: Mapping[str, Mapping[str, str]]) -> set[int]:
    found = {int(unit["MainPID"]) for unit in units.values() if unit.get("MainPID", "0") != "0"}
    for slot in SLOTS:
        mine = [name for name in units if name.startswith(f"{slot}-") and units[name].get("ActiveState") == "active"]
        found |= runtimes.of_record(service, read_record(service, slot)).processes(mine)
    return found


def observe(
    service: Service,
    address: str,
    port: int,
    instances: int,
    wanted: Wanted | None,
    runtime: str = runtimes.VENV,
    python: str = sys.executable,
) -> dict[str, Any]:
    """Everything that a plan needs to know of this host."""
    units = unit_states(service)
    disk = shutil.disk_usage(next(path for path in (service.root, *service.root.parents) if path.exists()))
    wanted_ports = [number for slot in SLOTS for number in ports(slot, port, instances)]
    venvs = service.venvs.iterdir() if service.venvs.is_dir() else ()
    intact = wanted is not None and release_intact(service, wanted.release)
    return {
        "prepared": service.unit_file.exists() and runtimes.all_runtimes(service)[runtime].prepared(),
        "migrates": service.migrate_file.exists(),
        "port": port,
        "instances": instances,
        "python": runtimes.all_runtimes(service, python)[runtime].python_version(),
        "wanted": wanted_identity(service, wanted) if wanted else None,
        "slots": {slot: observe_slot(service, slot, wanted, intact, units) for slot in SLOTS},
        "releases": installed_releases(service),
        "has_release": intact,
        "venvs": sorted(path.name for path in venvs if (path / ".complete").exists()),
        "disk_free_mb": disk.free // 2**20,
        "disk_free_percent": disk.free * 100 // max(disk.total, 1),
        "ports_taken": ports_taken(address, wanted_ports, own_processes(service, units)),
    }


def listeners(table: str) -> list[tuple[str, int, str]]:
    """Address, port and inode of each listening socket in a table of /proc/net."""
    found = []
    for line in table.splitlines()[1:]:
        field = line.split()
        if field[3] == LISTENING:
            number, port = field[1].split(":")
            words = [number[i : i + 8] for i in range(0, len(number), 8)]
            packed = b"".join(int(word, 16).to_bytes(4, sys.byteorder) for word in words)
            found.append((str(ipaddress.ip_address(packed)), int(port, 16), field[9]))
    return found


def collides(bound: str, address: str) -> bool:
    """Whether a socket bound to one address keeps another process from binding to ADDRESS."""
    taken = ipaddress.ip_address(bound)
    if taken.is_unspecified:
        return True
    mapped = getattr(taken, "ipv4_mapped", None)
    return str(mapped or taken) == address


def ports_taken(address: str, numbers: Iterable[int], own: Iterable[int]) -> dict[str, str]:
    """Ports of NUMBERS on which another process listens, each with that process."""
    wanted = set(numbers)
    sockets = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for bound, port, inode in listeners(Path(table).read_text()) if Path(table).exists() else []:
            if port in wanted and collides(bound, address):
                sockets[f"socket:[{inode}]"] = port
    for pid in own:
        for socket in open_sockets(pid):
            sockets.pop(socket, None)
    if not sockets:
        return {}
    taken = {str(port): "a process that cannot be named" for port in sockets.values()}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            for socket in open_sockets(int(entry.name)) & sockets.keys():
                taken[str(sockets[socket])] = f"{process_name(entry)} (process {entry.name})"
    return taken


def open_sockets(pid: int) -> set[str]:
    found = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            found.add(os.readlink(descriptor))
    except OSError:
        # The process ended, or closed what was being read: it holds no port any more.
        return found
    return {target for target in found if target.startswith("socket:")}


def process_name(entry: Path) -> str:
    try:
        return (entry / "comm").read_text().strip()
    except OSError:
        return "a process that has ended"
