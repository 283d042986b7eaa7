#!/usr/bin/python
"""Have a package from a repository that is not Debian's."""

from __future__ import annotations

DOCUMENTATION = r"""
module: signed_package
short_description: Have a package from a repository that is not Debian's
description:
  - Asks the repository, verified by the one key that is named, and installs the package with what it needs of Debian's.
  - The host's own package lists never know the repository, so that nothing else fails while it is away.
  - A repository that cannot be reached is no failure but told in RV(problem). One that another key signed is a failure.
options:
  name:
    description: Name of the package.
    type: str
    required: true
  version:
    description: Its version; empty for the newest where none is installed.
    type: str
    default: ""
  repository:
    description: Address of the repository.
    type: str
    required: true
  suite:
    description: Its suite.
    type: str
    default: stable
  component:
    description: Its component.
    type: str
    default: main
  key:
    description: Its public key, or the address that the key is fetched from.
    type: str
    required: true
  fingerprint:
    description: The key's fingerprint.
    type: str
    required: true
author:
  - Agentfleet (@agentfleet)
"""

EXAMPLES = r"""
- name: Install Grafana
  agentfleet.vm.signed_package:
    name: grafana
    repository: https://apt.grafana.com
    key: https://apt.grafana.com/gpg.key
    fingerprint: B53AE77BADB630A683046005963FA27710458545
"""

RETURN = r"""
version:
  description: The version that is installed; in check mode the one that would be. Empty for none.
  type: str
  returned: always
problem:
  description: Why the repository cannot be had; empty where it was not needed, or answered.
  type: str
  returned: always
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible.module_utils.urls import open_url
from ansible_collections.agentfleet.vm.plugins.module_utils.signed_package import (
    SECONDS,
    Away,
    PackageError,
    chosen,
    options,
    refuse_key,
    refused,
    source,
    versions,
)

QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
# Its configuration is left to whoever changed it.
INSTALL = ["-y", "--no-install-recommends", "-o", "DPkg::Lock::Timeout=300"]
INSTALL += ["-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold"]


class Repository:
    """The repository as this run sees it, in a directory that goes with the run."""

    def __init__(self, module: AnsibleModule, directory: Path) -> None:
        self._module = module
        self._params: dict[str, Any] = module.params
        self._directory = directory

    def read(self) -> None:
        address, key = self._params["repository"], self._directory / "key.asc"
        text = self._key()
        refuse_key(text, self._params["fingerprint"], "the key")
        key.write_bytes(text)
        for name in ("parts", "lists", "cache"):
            (self._directory / name).mkdir()
        (self._directory / "source.list").write_text(
            source(address, self._params["suite"], self._params["component"], key)
        )
        # apt reads it as a user of its own.
        self._directory.chmod(0o755)
        status, output = self._run("apt-get", *options(self._directory), "update")
        if status:
            raise refused(output, address)

    def _key(self) -> bytes:
        given = self._params["key"]
        if not given.startswith(("http://", "https://")):
            return given.encode() if given.startswith("-----") else b""
        try:
            answer: bytes = open_url(given, timeout=SECONDS).read(1 << 20)
        except OSError as error:
            raise Away(f"{given}: {getattr(error, 'reason', error)}") from error
        return answer

    def version(self) -> str:
        name = self._params["name"]
        _status, output = self._run("apt-cache", *options(self._directory), "madison", name)
        return chosen(name, self._params["version"], versions(output), self._params["repository"])

    def install(self, version: str) -> None:
        name = self._params["name"]
        status, output = self._run("apt-get", *options(self._directory), "download", f"{name}={version}")
        if status:
            raise refused(output, self._params["repository"])
        packages = [str(path) for path in self._directory.glob("*.deb")]
        downgrades = ["--allow-downgrades"] if self._params["version"] else []
        status, output = self._run("apt-get", *INSTALL, *downgrades, "install", *packages)
        if status:
            said = [line for line in output.splitlines() if line.startswith("E: ")] or output.splitlines()[-1:]
            raise PackageError(f"{name} {version} cannot be installed: {' '.join(said).replace('E: ', '')}")

    def _run(self, *command: str) -> tuple[int, str]:
        status, out, err = self._module.run_command(
            list(command), cwd=str(self._directory), environ_update=QUIET, handle_exceptions=True
        )
        return status, f"{out}\n{err}"


def installed(module: AnsibleModule) -> str:
    """The version that is there, whole."""
    command = ["dpkg-query", "--show", "--showformat=${db:Status-Status} ${Version}", module.params["name"]]
    _status, out, _err = module.run_command(command)
    state, _space, version = str(out).partition(" ")
    return version if state == "installed" else ""


def settle(module: AnsibleModule) -> dict[str, Any]:
    there, wanted = installed(module), module.params["version"]
    result = {"changed": False, "version": there, "problem": ""}
    if there and wanted in ("", there):
        return result
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-package-"))
    repository = Repository(module, directory)
    try:
        repository.read()
        version = repository.version()
        if not module.check_mode:
            repository.install(version)
    except Away as error:
        return {**result, "problem": str(error)}
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    name = module.params["name"]
    before = f"{name} {there}\n" if there else ""
    return {**result, "changed": True, "version": version, "diff": {"before": before, "after": f"{name} {version}\n"}}


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "name": {"type": "str", "required": True},
            "version": {"type": "str", "default": ""},
            "repository": {"type": "str", "required": True},
            "suite": {"type": "str", "default": "stable"},
            "component": {"type": "str", "default": "main"},
            "key": {"type": "str", "required": True, "no_log": False},
            "fingerprint": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    try:
        result = settle(module)
    except PackageError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
