"""A slot's release run from a virtual environment: `agent_runtime: venv`."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import disk, systemd
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import MANIFEST, REQUIREMENTS
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service

UV_CACHE = "/var/cache/agentfleet/uv"
AUTHORITIES = "/etc/ssl/certs/ca-certificates.crt"
# Written last: a venv without it was left half-made.
COMPLETE = ".complete"


def same_interpreter(python: str) -> bool:
    """Whether this very process runs PYTHON."""
    return Path(python).resolve() == Path(sys.executable).resolve()


def interpreter_tag(python: str) -> str:
    """ABI and machine, for which compiled dependencies are good."""
    if same_interpreter(python):
        major, minor = sys.version_info[:2]
        return f"cp{major}{minor}-{platform.machine()}"
    code = "import sys, platform; print('cp%d%d-' % sys.version_info[:2] + platform.machine())"
    return systemd.run(python, "-c", code).decode().strip()


def version_of(python: str) -> str:
    """Such as 3.11.2."""
    if same_interpreter(python):
        return platform.python_version()
    return systemd.run(python, "-c", "import platform; print(platform.python_version())").decode().strip()


def lock_of(service: Service, release: str) -> str:
    """The id of a release's locked dependencies."""
    return str(json.loads((service.releases / release / MANIFEST).read_text())["lock"])


@dataclass(frozen=True)
class Venvs:
    """Dependencies in a directory each, which all releases with the same lock share."""

    service: Service
    python: str

    def prepared(self) -> bool:
        return self.service.uv.exists()

    def python_version(self) -> str:
        return version_of(self.python)

    def digests(self) -> dict[str, str]:
        return {}

    def clear_unfinished(self) -> None:
        for path in self._all():
            if not (path / COMPLETE).exists():
                shutil.rmtree(path)

    def make(self, release: str) -> list[str]:
        name = self._name(release)
        if (self.service.venvs / name / COMPLETE).exists():
            return []
        self._install(release, name)
        return ["venv"]

    def attach(self, slot: str, release: str, variables: Iterable[str], instances: Iterable[str]) -> dict[str, str]:
        name = self._name(release)
        disk.link(self.service.slot(slot) / "venv", f"../../venvs/{name}")
        return {"venv": name}

    def detach(self, slot: str) -> None:
        (self.service.slot(slot) / "venv").unlink(missing_ok=True)

    def whole(self, slot: str, record: Mapping[str, Any]) -> bool:
        return (self.service.slot(slot) / "venv" / COMPLETE).exists()

    def processes(self, instances: Iterable[str]) -> set[int]:
        """Besides the units' own."""
        return set()

    def prune(self, releases: Iterable[str], check: bool) -> list[str]:
        needed = set()
        for slot in SLOTS:
            link = self.service.slot(slot) / "venv"
            if link.is_symlink():
                needed.add(os.readlink(link).rsplit("/", 1)[-1])
        for release in releases:
            with contextlib.suppress(OSError, ValueError, KeyError):
                needed.add(self._name(release))
        unneeded = [path for path in self._all() if path.name not in needed]
        for path in unneeded if not check else []:
            shutil.rmtree(path)
        return [f"venvs/{path.name}" for path in unneeded]

    def _all(self) -> list[Path]:
        return list(self.service.venvs.iterdir()) if self.service.venvs.is_dir() else []

    def _name(self, release: str) -> str:
        return f"{lock_of(self.service, release)}-{interpreter_tag(self.python)}"

    def _install(self, release: str, name: str) -> None:
        """The release's dependencies, each verified by its hash; where it will stay, since a venv knows its path."""
        venv = self.service.venvs / name
        settings = {
            "UV_CACHE_DIR": UV_CACHE,
            "UV_PYTHON_DOWNLOADS": "never",
            "UV_NO_PROGRESS": "1",
            "SSL_CERT_FILE": AUTHORITIES,
        }
        uv = str(self.service.uv)
        systemd.run(uv, "venv", "--quiet", "--no-project", "--python", self.python, str(venv), environment=settings)
        systemd.run(
            uv,
            "pip",
            "install",
            "--quiet",
            "--python",
            str(venv / "bin" / "python"),
            "--require-hashes",
            "--compile-bytecode",
            "--requirement",
            str(self.service.releases / release / REQUIREMENTS),
            environment=settings,
        )
        disk.sync(venv)
        disk.write(venv / COMPLETE, b"", 0o644)
