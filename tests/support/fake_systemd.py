"""A host's systemd, uv and Docker for tests: what the release module starts, answered from memory."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils.slots import Service
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError
from fake_docker import FakeDocker


class LocalService(Service):
    """A service whose units lie below its own directory, too."""

    @property
    def lock(self) -> Path:
        return self.root / "lock"

    @property
    def docker(self) -> Path:
        return self.root / "docker-client"

    @property
    def unit_file(self) -> Path:
        return self.root / "system" / f"{self.name}@.service"


def make_service(root: Path) -> LocalService:
    service = LocalService("agent", root)
    for directory in (service.releases, service.venvs, root / "slots", service.uv.parent, service.unit_file.parent):
        directory.mkdir(parents=True)
    (service.unit_file.parent / "multi-user.target.wants").mkdir()
    service.unit_file.write_text("[Service]\nMemoryMax=1G\n")
    service.migrate_file.write_text("[Service]\n")
    service.uv.write_text("")
    return service


def with_docker(service: LocalService) -> None:
    """As role agent prepares a host for containers."""
    service.docker.write_text("")
    (service.root / "docker").mkdir()
    for name in ("service", "migrate"):
        (service.root / "docker" / f"{name}.conf").write_text("[Service]\nType=exec\n")


@dataclass
class FakeSystemd:
    """Answers `systemd.run`."""

    service: LocalService
    states: dict[str, str] = field(default_factory=dict)
    restarts: dict[str, int] = field(default_factory=dict)
    starts_as: str = "active"
    journal: str = ""
    said: list[str] = field(default_factory=list)
    sealed: int = 0
    docker: FakeDocker = field(default_factory=FakeDocker)

    def run(self, *command: str, stdin: bytes | None = None, environment: Mapping[str, str] | None = None) -> bytes:
        words = [word for word in command if not word.startswith("--")]
        self.said.append(" ".join([Path(words[0]).name, *words[1:]]))
        name = Path(words[0]).name
        if name == "docker":
            return self.docker.run(command[1:])
        if name == "systemctl":
            return self.systemctl(words[1], words[2:]).encode()
        if name == "systemd-creds":
            label = next(word for word in command if word.startswith("--name=")).removeprefix("--name=")
            return self.seal(label, stdin or b"") if words[1] == "encrypt" else self.unseal(label, Path(words[2]))
        if name == "systemd-run":
            unit = next(word for word in command if word.startswith("--unit=")).removeprefix("--unit=")
            self.states[f"{unit}.timer"] = "active"
        if name == "uv" and words[1] == "venv":
            (Path(words[-1]) / "bin").mkdir(parents=True)
            (Path(words[-1]) / "bin" / "python").write_text("")
        if name == "journalctl":
            return self.journal.encode()
        return b""

    def seal(self, label: str, secret: bytes) -> bytes:
        # Ciphertext of the same secret differs each time, as systemd's does.
        self.sealed += 1
        return base64.b64encode(json.dumps([self.sealed, label, secret.decode()]).encode())

    def unseal(self, label: str, path: Path) -> bytes:
        try:
            _, name, secret = json.loads(base64.b64decode(path.read_bytes()))
        except ValueError as error:
            raise CommandError("systemd-creds decrypt: not a credential") from error
        if name != label:
            raise CommandError("systemd-creds decrypt: sealed under another name")
        return str(secret).encode()

    def systemctl(self, verb: str, units: list[str]) -> str:
        wants = self.service.unit_file.parent / "multi-user.target.wants"
        for unit in units:
            if verb == "start" and self.states.get(unit) != "active":
                self.states[unit] = self.starts_as
            elif verb in ("stop", "reset-failed"):
                for known in [name for name in self.states if fnmatch(name, unit)]:
                    if verb == "stop" or self.states[known] == "failed":
                        self.states[known] = "inactive"
            elif verb == "enable" and not (wants / unit).is_symlink():
                os.symlink("../agent@.service", wants / unit)
            elif verb == "disable":
                (wants / unit).unlink(missing_ok=True)
        return self.show(units) if verb == "show" else ""

    def show(self, patterns: list[str]) -> str:
        blocks = []
        for pattern in patterns:
            loaded = [name for name in self.states if fnmatch(name, pattern)]
            for name in loaded or ([pattern] if "*" not in pattern else []):
                state = self.states.get(name, "inactive")
                blocks.append(
                    f"Id={name}\nActiveState={state}\nSubState=x\nNRestarts={self.restarts.get(name, 0)}\n"
                    f"MainPID=0\nResult=exit-code\nNeedDaemonReload=no"
                )
        return "\n\n".join(blocks)
