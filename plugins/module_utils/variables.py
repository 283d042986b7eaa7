"""Judges a host's inventory variables before anything changes. Pure: values come in evaluated, findings go out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.server_urls import password_in
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import (
    SECRET_MINIMUM,
    Option,
    mismatch,
    placeholder,
    suggest,
)

# Which roles site.yml gives the hosts of a group; a unit test compares this with the playbook.
ROLES_OF_GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": ("base", "firewall", "exporters", "routine", "logs", "backup"),
    "edge": ("tls", "balancer", "edge"),
    "postgres": ("postgres",),
    "redis": ("redis",),
    "agents": ("agent",),
    "monitoring": ("prometheus", "alertmanager", "grafana"),
    "backup": (),
}
# Required all the same, so that nobody gets an offline model without having said so.
MAY_BE_EMPTY = frozenset({"agent_model_key"})
# A password for nobody: the service says by an empty host that it has no such server, or its URL has one.
SERVERS = {"agent_database_password": "agent_database", "agent_redis_password": "agent_redis"}
OWN_PREFIXES = ("my_", "vault_", "_")
MAGIC = frozenset(
    (
        *("environment", "groups", "group_names", "hostvars", "inventory_dir", "inventory_file"),
        *("inventory_hostname", "inventory_hostname_short", "module_setup", "gather_subset", "omit", "play_hosts"),
        *("playbook_dir", "role_name", "role_names", "role_path", "vars"),
    )
)


@dataclass(frozen=True)
class Variable:
    """One variable as a host has it: where it is set, and its value or why it has none.

    `lacks` is the undefined name in its template, `broken` any other reason, fit to be shown; `vault` is the encrypted
    file that its value comes from, if it does; `later` says that it needs facts, so that nothing can be said now.
    """

    name: str
    where: str
    value: Any = None
    lacks: str = ""
    broken: str = ""
    vault: str = ""
    extra: bool = False
    later: bool = False


@dataclass(frozen=True)
class Place:
    """Where the inventory keeps its secrets, for the command that mends one."""

    inventory: str
    vault: str
    vault_is: str  # "encrypted", "plain" or "absent"


@dataclass(frozen=True)
class Known:
    """Every variable there is: of roles, of the fleet as a whole, and the options of each playbook."""

    roles: Mapping[str, Mapping[str, Option]]
    fleet: Mapping[str, Option]
    playbooks: Mapping[str, Mapping[str, Option]]

    def inventory(self) -> dict[str, Option]:
        """What may stand in an inventory; a playbook's option there is its default for this fleet."""
        merged: dict[str, Option] = {}
        for options in (*self.playbooks.values(), self.fleet, *self.roles.values()):
            merged.update(options)
        return merged

    def extra(self, playbook: str) -> dict[str, Option]:
        """What may follow -e on a playbook's command line."""
        merged: dict[str, Option] = {}
        for options in (self.fleet, *self.roles.values(), self.playbooks[playbook]):
            merged.update(options)
        return merged

    def secrets(self) -> dict[str, Option]:
        return {name: option for name, option in self.inventory().items() if option.secret}


def roles_of(groups: Iterable[str]) -> list[str]:
    """The roles of a host in these groups, in the order in which site.yml applies them."""
    members = {"all", *groups}
    return [role for group, roles in ROLES_OF_GROUPS.items() if group in members for role in roles]


def is_own(name: str) -> bool:
    """Whether the name is the user's, Ansible's or a fact: nothing for us to judge."""
    return name in MAGIC or name.startswith(("ansible_", *OWN_PREFIXES))


def judge_variables(
    host: str,
    groups: Iterable[str],
    variables: Mapping[str, Variable],
    unset: Mapping[str, str],
    known: Known,
    playbook: str,
    place: Place,
) -> list[Finding]:
    """All that is wrong with one host's variables.

    `unset` are options of the host's roles whose default needs a variable that is not set: option → that variable.
    """
    findings = []
    inventory, extra = known.inventory(), known.extra(playbook)
    for variable in variables.values():
        if is_own(variable.name) or _is_spared(variable.name, variables):
            continue
        option = (extra if variable.extra else inventory).get(variable.name)
        if option is None:
            findings.append(_unknown(host, variable, known, playbook))
        else:
            findings += _judge_value(host, variable, option, place)
    return findings + _judge_missing(host, groups, variables, unset, known, place)


def _is_spared(name: str, variables: Mapping[str, Variable]) -> bool:
    if name not in SERVERS:
        return False
    host, url = (variables.get(f"{SERVERS[name]}_{part}") for part in ("host", "url"))
    return (host is not None and host.value == "") or bool(url and url.value)


def _unknown(host: str, variable: Variable, known: Known, playbook: str) -> Finding:
    name, where = variable.name, variable.where
    if not variable.extra:
        meant = suggest(name, known.inventory())
        hint = f"; did you mean '{meant}'?" if meant else ""
        return Finding(
            f"unknown variable '{name}' in {where}{hint}",
            f"Correct it there; a variable of your own is named my_{name}",
            host,
        )
    options = known.playbooks[playbook]
    owners = [other for other, theirs in known.playbooks.items() if name in theirs]
    meant = suggest(name, known.extra(playbook))
    if owners:
        text = f"'{name}' is an option of {', '.join(f'{owner}.yml' for owner in owners)}, not of {playbook}.yml"
    else:
        text = f"unknown option -e {name}" + (f"; did you mean '{meant}'?" if meant else "")
    takes = ", ".join(options) if options else "no options of its own, only variables"
    return Finding(text, f"Correct the command line; {playbook}.yml takes {takes}")


def _judge_value(host: str, variable: Variable, option: Option, place: Place) -> list[Finding]:
    if variable.later:
        return []
    name, where = variable.name, variable.where
    about = "" if variable.extra else host
    label = f"-e {name}" if variable.extra else f"'{name}' in {where}"
    if variable.lacks:
        mend = _set_it(variable.lacks, place) if _in_vault(variable.lacks, option) else f"Set it in {place.inventory}"
        return [Finding(f"{label} needs '{variable.lacks}', which is not set", mend, about)]
    if variable.broken:
        return [Finding(f"{label} {variable.broken}", _mend_broken(variable), about)]
    wrong = mismatch(option, variable.value) or _empty(option, variable.value)
    if not wrong and option.secret:
        wrong = _judge_secret(option, variable.value)
    if not wrong:
        return []
    if option.secret:
        return [Finding(f"secret {label} {wrong}", _replace(variable, place), about)]
    return [Finding(f"{label} {wrong}", _correct(variable), about)]


def _empty(option: Option, value: Any) -> str:
    if not option.required or option.name in MAY_BE_EMPTY:
        return ""
    return "is empty" if isinstance(value, str) and not value.strip() else ""


def _judge_secret(option: Option, value: Any) -> str:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            wrong = placeholder(str(inner))
            if wrong:
                return f"key '{key}' {wrong}"
        return ""
    if isinstance(value, (list, tuple)):
        return ""
    # Of a URL only the password is a secret that somebody may have forgotten to replace.
    text = password_in(str(value)) if option.name.endswith("_url") else str(value)
    if not text:
        return ""
    # A key that somebody else issued has the length they gave it.
    ours = option.required and option.name not in MAY_BE_EMPTY
    return placeholder(text, minimum=SECRET_MINIMUM if ours else 0)


def _judge_missing(
    host: str,
    groups: Iterable[str],
    variables: Mapping[str, Variable],
    unset: Mapping[str, str],
    known: Known,
    place: Place,
) -> list[Finding]:
    everything = known.inventory()
    needed: list[str] = []
    for role in roles_of(groups):
        for name, option in known.roles.get(role, {}).items():
            if option.required:
                needed.append(name)
            elif unset.get(name) in everything:
                needed.append(unset[name])
    findings = []
    for name in dict.fromkeys(needed):
        if name in variables:
            continue
        secret = everything[name].secret
        text = f"{'secret ' if secret else ''}'{name}' is not set"
        findings.append(Finding(text, _set_it(name, place) if secret else f"Set it in {place.inventory}", host))
    return findings


def _in_vault(name: str, option: Option) -> bool:
    return name.startswith("vault_") or option.secret


def _set_it(name: str, place: Place) -> str:
    if place.vault_is == "encrypted":
        return f"Set it: ansible-vault edit {place.vault}"
    if place.vault_is == "absent":
        return f'Set it: ansible-vault create {place.vault} (a line "{name}: …"; openssl rand -hex 24 makes a value)'
    return f"Set it in {place.vault}, then: ansible-vault encrypt {place.vault}"


def _mend_broken(variable: Variable) -> str:
    if re.search(r"vault|decrypt", variable.broken):
        return "Give the vault's password: --vault-password-file FILE or --ask-vault-pass"
    return _correct(variable)


def _replace(variable: Variable, place: Place) -> str:
    if variable.extra or variable.vault:
        return _correct(variable)
    encrypt = f", then: ansible-vault encrypt {place.vault}" if variable.where.startswith(f"{place.vault}:") else ""
    return f"Replace it there (openssl rand -hex 24 makes one){encrypt}"


def _correct(variable: Variable) -> str:
    if variable.extra:
        return "Correct the command line"
    return f"Correct it: ansible-vault edit {variable.vault}" if variable.vault else "Correct it there"
