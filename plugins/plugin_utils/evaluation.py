"""Evaluates a host's variables before its play begins, and remembers where each was written."""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ansible._internal._datatag._tags import Origin
from ansible.errors import AnsibleError, AnsibleUndefinedVariable
from ansible.parsing.dataloader import DataLoader
from ansible.parsing.vault import is_encrypted_file
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import Place, Variable, is_own
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import COLLECTION

UNDEFINED = re.compile(r"'([A-Za-z_]\w*)' is undefined")


def shorten(path: str) -> str:
    """The path as a person in this directory would type it."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def is_encrypted(path: str | None) -> bool:
    if not path or not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return bool(is_encrypted_file(file))


def find_place(inventory_dir: str) -> Place:
    vault = os.path.join(inventory_dir, "group_vars", "all", "vault.yml")
    state = "encrypted" if is_encrypted(vault) else "plain" if os.path.exists(vault) else "absent"
    return Place(inventory=shorten(inventory_dir), vault=shorten(vault), vault_is=state)


@functools.cache
def role_variables() -> Mapping[str, Any]:
    """Defaults and vars of all roles."""
    loader = DataLoader()
    merged: dict[str, Any] = {}
    for kind in ("defaults", "vars"):
        for path in sorted(COLLECTION.glob(f"roles/*/{kind}/main.yml")):
            merged.update(loader.load_from_file(str(path), trusted_as_template=True) or {})
    return merged


class Evaluation:
    """One host's variables as the roles will see them: the inventory's over the roles' own."""

    def __init__(self, templar: Any, task_vars: Mapping[str, Any]) -> None:
        self._task_vars = task_vars
        self._all: dict[str, Any] = {**role_variables(), **task_vars}
        self._templar = templar.copy_with_new_env(available_variables=self._all)

    def inventory(self, host: str) -> dict[str, Variable]:
        """What the inventory and the command line give the host."""
        hostvars = self._task_vars["hostvars"]
        extra = hostvars._variable_manager.extra_vars
        return {
            str(name): self._variable(name, raw, name in extra)
            for name, raw in hostvars.raw_get(host).items()
            if not is_own(str(name))
        }

    def value(self, name: str, otherwise: Any = None) -> Any:
        """A variable's value; `otherwise` where it is not set or cannot be known yet."""
        if name not in self._all:
            return otherwise
        try:
            return self._templar.template(self._all[name])
        except AnsibleError:
            return otherwise

    def lacks(self, name: str) -> str:
        """The undefined variable that a role's default needs, if any."""
        raw = self._all.get(name)
        if _constant(raw):
            return ""
        try:
            self._templar.template(raw)
        except AnsibleUndefinedVariable as error:
            found = UNDEFINED.search(str(error))
            return found[1] if found else ""
        except AnsibleError:
            # A default that needs more than variables is the role's own business.
            return ""
        return ""

    def _variable(self, name: Any, raw: Any, extra: bool) -> Variable:
        value, lacks, broken, later = None, "", "", False
        try:
            value = raw if _constant(raw) else self._templar.template(raw)
        except AnsibleUndefinedVariable as error:
            found = UNDEFINED.search(str(error))
            # Facts are not gathered yet: what needs them is judged by the role that uses it.
            later = "ansible_" in str(raw) or found is None
            lacks = found[1] if found and not later else ""
        except AnsibleError as error:
            # The message may quote what the template worked on; the kind of its cause may not.
            kind = type(error.__cause__ or error).__name__
            broken = "cannot be decrypted" if "decrypt" in str(error) else f"cannot be evaluated ({kind})"
        path = _path(value) or _path(raw)
        return Variable(
            name=str(name),
            where="-e" if extra else _where(raw) or _where(name) or shorten(str(self._task_vars.get("inventory_dir"))),
            value=value,
            lacks=lacks,
            broken=broken,
            vault=shorten(path) if is_encrypted(path) else "",
            extra=extra,
            later=later,
        )


def _constant(raw: Any) -> bool:
    """What is itself, whatever other variables say: most are, and asking Ansible takes longer than all the rest."""
    return raw is None or isinstance(raw, (bool, int, float)) or (isinstance(raw, str) and "{" not in raw)


def _path(tagged: Any) -> str:
    origin = Origin.get_tag(tagged)
    return str(origin.path) if origin and origin.path else ""


def _where(tagged: Any) -> str:
    origin = Origin.get_tag(tagged)
    if not origin or not origin.path:
        return ""
    path = shorten(str(Path(origin.path)))
    return f"{path}:{origin.line_num}" if origin.line_num else path
