"""The files of an inventory that init.yml makes, all at once, or changes, each at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret
from ansible_collections.agentfleet.vm.plugins.module_utils import first_inventory as first

PRIVATE = (first.VAULT, first.PASSWORD)


class _Loader(yaml.SafeLoader):
    """Leaves alone what only Ansible understands, such as a value that is a vault of its own."""


_Loader.add_multi_constructor("!", lambda _loader, _suffix, node: f"{node.tag} {node.value}")


def load(text: str) -> Any:
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(" ".join(str(error).split())) from error


def create(directory: Path, files: Mapping[str, str]) -> None:
    """The whole inventory, or nothing of it: whoever interrupts this leaves at most a hidden directory."""
    unfinished = directory.with_name(f".{directory.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    # First what keeps git from taking the password, should nothing come after it.
    for name, text in sorted(files.items(), key=lambda item: item[0] != first.IGNORED):
        path = unfinished / name
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700 if name == first.PASSWORD else 0o777)
        _write(path, text)
    try:
        unfinished.rename(directory)
    except OSError as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise AnsibleError(f"{directory} cannot be made: {error.strerror}") from error


def change(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        path = directory / name
        beside = path.with_name(f".{path.name}.new")
        _write(beside, text, path.stat().st_mode & 0o777 if path.exists() else None)
        beside.rename(path)


def _write(path: Path, text: str, mode: int | None = None) -> None:
    path.unlink(missing_ok=True)
    private = any(path.name in (Path(name).name, f".{Path(name).name}.new") for name in PRIVATE)
    wanted = mode if mode is not None else 0o600 if private else 0o644
    # Never readable by others, not even for the moment before a change of its mode.
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, wanted), "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


class Vault:
    """The vault's password: given to this run, or in the file that init.yml made."""

    def __init__(self, secrets: list[tuple[str, Any]], file: Path) -> None:
        self._secrets = list(secrets)
        if file.is_file():
            self._secrets.append(("default", VaultSecret(file.read_bytes().strip())))

    @property
    def given(self) -> bool:
        return bool(self._secrets)

    def encrypt(self, text: str) -> str:
        return _encrypt(text, self._secrets[0][1])

    def decrypt(self, text: str) -> str | None:
        """What is inside, or None where no password opens it."""
        try:
            return str(VaultLib(self._secrets).decrypt(text.encode()).decode())
        except AnsibleError:
            return None

    def encrypt_again(self, text: str, before: str) -> str:
        """The text with the password that opened BEFORE."""
        for name, secret in self._secrets:
            try:
                VaultLib([(name, secret)]).decrypt(before.encode())
            except AnsibleError:
                continue
            return _encrypt(text, secret)
        raise AnsibleError("no password opens the vault")


def _encrypt(text: str, secret: Any) -> str:
    return str(VaultLib().encrypt(text.encode(), secret=secret).decode())
