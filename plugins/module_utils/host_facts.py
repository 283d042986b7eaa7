"""Figures of one host that several look at: for a diagnosis, a routine, and who asks ad hoc. Reads only."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import ssl
import subprocess
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import observation, systemd
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service, parse_environment

# File systems that are no disk.
NO_DISK = ("tmpfs", "devtmpfs", "proc", "sysfs", "cgroup", "ramfs", "squashfs", "efivarfs", "autofs", "mqueue")
FLEET_AUTHORITY = "/etc/ssl/certs/agentfleet-fleet.pem"


def ask(address: str, port: int, path: str, seconds: float, authority: str = "") -> tuple[int, str]:
    """Status of an answer and its beginning; 0 and why where there was none.

    With an AUTHORITY, a file, whoever answers has to show that it is this host.
    """
    host = address.strip("[]")
    if authority:
        verifying = ssl.create_default_context(cafile=authority)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=seconds, context=verifying
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=seconds)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read(500).decode(errors="replace")
    except (OSError, http.client.HTTPException) as error:
        return 0, str(error) or type(error).__name__
    finally:
        connection.close()


def instances(service: Service) -> list[tuple[str, int]]:
    """Instances of slots that run, and the port of each."""
    found = []
    for name, unit in sorted(observation.unit_states(service).items()):
        port = port_of(service, name)
        if unit.get("ActiveState") in ("active", "activating") and port:
            found.append((name, port))
    return found


def port_of(service: Service, name: str) -> int | None:
    """The port of an instance, such as blue-1."""
    slot = name.partition("-")[0]
    file = service.slot(slot) / f"{name}.env"
    if slot not in SLOTS or not file.exists():
        return None
    port = parse_environment(file.read_text()).get("PORT", "")
    return int(port) if port.isdigit() else None


def authority_of(service: Service) -> str:
    """What verifies the service's instances, where they serve TLS."""
    serves = service.unit_file.exists() and "--ssl-certfile" in service.unit_file.read_text()
    return FLEET_AUTHORITY if serves else ""


def disks() -> list[dict[str, Any]]:
    """Each file system once, where it is mounted first."""
    found: dict[int, dict[str, Any]] = {}
    for line in Path("/proc/mounts").read_text().splitlines():
        _device, path, kind = line.split(" ")[:3]
        if kind.startswith(NO_DISK) or not os.path.isdir(path) or path.startswith(("/proc", "/sys", "/dev", "/run")):
            continue
        with contextlib.suppress(OSError):
            known, number = os.statvfs(path), os.stat(path).st_dev
            if known.f_blocks and number not in found:
                used, files = known.f_blocks - known.f_bfree, known.f_files
                found[number] = {
                    "path": path,
                    "used": round(100 * used / max(used + known.f_bavail, 1)),
                    "inodes": round(100 * (files - known.f_ffree) / files) if files else None,
                }
    return list(found.values())


def memory() -> dict[str, Any]:
    kilobytes = {
        name: int(value.split()[0])
        for name, _colon, value in (line.partition(":") for line in Path("/proc/meminfo").read_text().splitlines())
    }
    pressure = Path("/proc/pressure/memory")
    some = re.search(r"^some .*avg300=([0-9.]+)", pressure.read_text() if pressure.exists() else "", re.MULTILINE)
    return {
        "memory_free_percent": 100 * kilobytes["MemAvailable"] // max(kilobytes["MemTotal"], 1),
        "memory_pressure": float(some[1]) if some else None,
    }


def clock() -> bool | None:
    """Whether it is synchronized; a container has its host's."""
    if subprocess.run(["systemd-detect-virt", "--container", "--quiet"], check=False).returncode == 0:
        return None
    shown = systemd.run("timedatectl", "show", "--property=NTPSynchronized", "--value").decode().strip()
    return shown == "yes"


def failed_units() -> list[str]:
    shown = systemd.systemctl("list-units", "--failed", "--plain", "--no-legend", "--no-pager", "--full")
    return [line.split()[0] for line in shown.splitlines() if line.strip()]
