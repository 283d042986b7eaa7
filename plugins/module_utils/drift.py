"""What on a host is not as what put it there left it: changed by hand, damaged, or older than its configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.identity import identity
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import (
    read_environment,
    read_record,
    read_secrets,
    release_intact,
    unit_digests,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import Service

# What roles put beside a unit; everything else there was added by hand.
OWN_ADDITIONS = ("runtime.conf",)
UNITS = Path("/etc/systemd/system")


def of_host(service: Service, slots: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line for each thing; SLOTS are the host's as they were observed."""
    used = [slot for slot, seen in slots.items() if seen["release"] and seen["state"] != "damaged"]
    found = [f"{slot} is damaged" for slot, seen in slots.items() if seen["state"] == "damaged"]
    for slot in used:
        found += [f"{slot}: {line}" for line in of_slot(service, slot)]
    return [*found, *additions(service)]


def of_slot(service: Service, slot: str) -> list[str]:
    record = read_record(service, slot)
    return judge(
        record,
        intact=release_intact(service, str(record.get("release"))),
        environment=read_environment(service, slot),
        secrets=read_secrets(service, slot),
        units=unit_digests(service),
    )


def judge(
    record: Mapping[str, Any],
    *,
    intact: bool,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
    units: Mapping[str, str],
) -> list[str]:
    """What of a slot is not what its RECORD says."""
    found = []
    release = str(record.get("release"))
    if not intact:
        found.append(f"the files of {release} are not those of its id")
    known = dict(record.get("units") or {})
    instances = int(record.get("instances", 0))
    if identity(release, environment, secrets, instances, known) != record.get("identity"):
        found.append("its variables or credentials were changed by hand")
    changed = [name for name, digest in units.items() if known.get(name) != digest]
    gone = [name for name in ("service", "worker") if name in known and name not in units]
    if changed or gone:
        found.append(f"the unit of its {' and '.join([*changed, *gone])} is another than it was started with")
    return found


def additions(service: Service) -> list[str]:
    """Files beside the service's units that nobody of us wrote."""
    found = sorted(
        str(path)
        for pattern in (f"{service.name}@*.service.d/*.conf", f"{service.name}-worker@*.service.d/*.conf")
        for path in UNITS.glob(pattern)
        if path.name not in OWN_ADDITIONS
    )
    return [f"{path} was added by hand" for path in found]
