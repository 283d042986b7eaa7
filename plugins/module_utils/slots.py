"""What a service is called on a host, where its parts lie and which ports its slots have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

SLOTS = ("blue", "green")
# Distance between the ports of both slots, and so the most instances that a slot can have.
GREEN_OFFSET = 50
# From an instance's port to the one where its worker shows figures.
WORKER_OFFSET = 400
SERVICE_NAME = re.compile(r"^[a-z][a-z0-9-]{0,30}$")
RELEASE_ID = re.compile(r"^[a-z0-9][a-z0-9.+-]{0,63}-[0-9a-f]{12}$")
VARIABLE = re.compile(r"^[A-Za-z_][A-Za-z0-9_]*$")
# Set by the slot or the release themselves.
RESERVED = frozenset({"PORT", "AGENT_RELEASE", "AGENT_SLOT"})


def other(slot: str) -> str:
    """The slot that is not SLOT."""
    return SLOTS[1 - SLOTS.index(slot)]


def ports(slot: str, port: int, instances: int) -> list[int]:
    """The ports on which the instances of SLOT listen."""
    first = port + GREEN_OFFSET * SLOTS.index(slot)
    return list(range(first, first + instances))


def instance_names(slot: str, instances: int) -> list[str]:
    """blue-1, blue-2 …: instances of the template unit."""
    return [f"{slot}-{number}" for number in range(1, instances + 1)]


def server_names(host: str, slot: str, instances: int) -> list[str]:
    """What the balancer calls the instances of one slot of one host."""
    return [f"{host}-{name}" for name in instance_names(slot, instances)]


def place_of(server: str) -> str:
    """The slot, as <host>-<slot>, to which a server of the balancer belongs."""
    return server.rpartition("-")[0]


def host_and_slot(place: str) -> tuple[str, str]:
    """Both of <host>-<slot>."""
    host, _, slot = place.rpartition("-")
    return host, slot


@dataclass(frozen=True)
class Service:
    """One service on one host."""

    name: str
    root: Path

    @property
    def releases(self) -> Path:
        return self.root / "releases"

    @property
    def venvs(self) -> Path:
        return self.root / "venvs"

    @property
    def uv(self) -> Path:
        return self.root / "tools" / "bin" / "uv"

    @property
    def docker(self) -> Path:
        return Path("/usr/bin/docker")

    @property
    def lock(self) -> Path:
        return Path("/run/lock") / f"agentfleet-{self.name}.lock"

    def slot(self, slot: str) -> Path:
        return self.root / "slots" / slot

    def unit(self, instance: str) -> str:
        return f"{self.name}@{instance}.service"

    def slot_pattern(self, slot: str) -> str:
        """Every unit that a slot may have, whatever number of instances it was started with."""
        return f"{self.name}@{slot}-*.service"

    def worker_unit(self, instance: str) -> str:
        return f"{self.name}-worker@{instance}.service"

    def units_of_slot(self, slot: str) -> tuple[str, str]:
        """Patterns of what serves and of what works."""
        return self.slot_pattern(slot), f"{self.name}-worker@{slot}-*.service"

    def migrate_unit(self, slot: str) -> str:
        return f"{self.name}-migrate@{slot}.service"

    def stop_timer(self, slot: str) -> str:
        return f"{self.name}-stop-{slot}"

    @property
    def unit_file(self) -> Path:
        return Path("/etc/systemd/system") / f"{self.name}@.service"

    @property
    def worker_file(self) -> Path:
        """There only if each instance of the service has a worker beside it."""
        return self.unit_file.with_name(f"{self.name}-worker@.service")

    @property
    def migrate_file(self) -> Path:
        """There only if the service's releases have a migration."""
        return self.unit_file.with_name(f"{self.name}-migrate@.service")


def render_environment(variables: Mapping[str, str]) -> str:
    """VARIABLES as systemd's EnvironmentFile reads them back, sorted."""
    lines = []
    for name in sorted(variables):
        value = variables[name]
        for character in ("\\", '"', "`", "$"):
            value = value.replace(character, "\\" + character)
        lines.append(f'{name}="{value}"\n')
    return "".join(lines)


def parse_environment(text: str) -> dict[str, str]:
    """What render_environment() wrote."""
    variables = {}
    for match in re.finditer(r'^([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"$', text, re.MULTILINE | re.DOTALL):
        variables[match[1]] = re.sub(r"\\(.)", r"\1", match[2], flags=re.DOTALL)
    return variables


def environment_problem(variables: Mapping[str, str]) -> str:
    """Why VARIABLES cannot be a service's environment, or nothing."""
    for name, value in variables.items():
        if not VARIABLE.match(name):
            return f"agent_environment: {name!r} is no name of a variable"
        if name in RESERVED:
            return f"agent_environment: {name} is set by the slot itself; take it out"
        if any(ord(character) < 32 and character not in "\n\t" for character in value):
            return f"agent_environment: {name} has control characters"
    return ""
