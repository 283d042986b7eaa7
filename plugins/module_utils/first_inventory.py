"""From the answers of init.yml to the files of an inventory, and from an inventory back to its answers. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.first_answers import (
    DEFAULTS,
    OF_HOSTS,
    PARTS,
    SSH,
    Given,
    completed,
    split,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.networks import crosses_public
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import placeholder

HOSTS = "hosts.yml"
MAIN = "group_vars/all/main.yml"
VAULT = "group_vars/all/vault.yml"
IGNORED = ".gitignore"
PASSWORD = "credentials/vault_password"
GENERATED = ("agent_api_key", "agent_database_password", "agent_redis_password", "backup_key", "grafana_admin_password")
# Who logs in at /operations/ of the site.
OPERATOR = "operator"
# Where a certificate of one's own is looked for; git ignores it there.
CERTIFICATE = {"tls_certificate_file": "credentials/site.crt", "tls_key_file": "credentials/site.key"}
# What an own app has that may know nothing of this project; each is explained where it is written.
OF_AN_OWN_APP = {
    "agent_migrate_command": '""',
    "agent_notify": "false",
    "agent_probe_path": "/health",
    "agent_metrics_path": '""',
    "agent_smoke_requests": "[{path: /health}]",
}

Load = Callable[[str], Any]


@dataclass(frozen=True)
class Machine:
    """A host of the inventory, with the groups that it is in and the variables of SSH."""

    name: str
    address: str
    private: str = ""
    groups: tuple[str, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)


def machines_of(answers: Given) -> list[Machine]:
    addresses, private = split(answers["addresses"]), split(answers["private_addresses"])
    counts: dict[str, int] = {}
    machines = []
    for position, address in enumerate(addresses):
        parts = [part for part in PARTS if address in split(answers[part])]
        kind = "vm" if len(addresses) == 1 else parts[0].partition("_")[0]
        counts[kind] = counts.get(kind, 0) + 1
        machines.append(
            Machine(
                name=f"{kind}{counts[kind]}",
                address=address,
                private=private[position] if private else "",
                groups=tuple(group for part in parts for group in PARTS[part]),
                variables=ssh_variables(answers),
            )
        )
    return machines


def ssh_variables(answers: Given) -> dict[str, str]:
    """Ansible's variables for how SSH comes in, without those that are Ansible's own defaults."""
    variables = {"ansible_user": answers["ssh_user"]}
    if answers["ssh_port"] != DEFAULTS["ssh_port"]:
        variables["ansible_port"] = answers["ssh_port"]
    if answers["ssh_key_file"]:
        variables["ansible_ssh_private_key_file"] = answers["ssh_key_file"]
    return variables


def scalar(value: str) -> str:
    """The value as YAML reads it back, quoted only where it has to be."""
    plain = re.fullmatch(r"[A-Za-z~/][A-Za-z0-9_./@+-]*(:[A-Za-z0-9_]+)?|\d+(\.\d+){3}", value)
    word = value.lower() in ("y", "n", "yes", "no", "on", "off", "true", "false", "null", "~")
    return value if plain and not word else json.dumps(value, ensure_ascii=False)


def render_hosts(answers: Given) -> str:
    machines = machines_of(answers)
    lines = ["---"]
    if len(machines) == 1:
        lines.append("# One VM that does everything. It is reached over SSH at ansible_host.")
    else:
        lines += [
            "# Every host is reached over SSH at ansible_host; where the hosts share a private network, fleet_address",
            "# is a host's address in it and all traffic between hosts stays there.",
        ]
        if crosses_public(machine.private or machine.address for machine in machines):
            lines += [
                "# These have none, so what they tell each other is encrypted, by certificates of their own",
                "# (fleet_tls).",
            ]
    lines += ["all:", "  children:", "    machines:", "      hosts:"]
    for machine in machines:
        private = f", fleet_address: {scalar(machine.private)}" if machine.private else ""
        lines.append(f"        {machine.name}: {{ansible_host: {scalar(machine.address)}{private}}}")
    variables = ssh_variables(answers)
    lines += [
        "      vars:",
        "        # root, or a user with sudo (a cloud image's debian, for one).",
        f"        ansible_user: {scalar(variables['ansible_user'])}",
        "        # Port and private key of SSH, where they are not what ssh uses by itself.",
        f"        ansible_port: {variables['ansible_port']}"
        if "ansible_port" in variables
        else "        # ansible_port: 2222",
        f"        ansible_ssh_private_key_file: {scalar(variables['ansible_ssh_private_key_file'])}"
        if "ansible_ssh_private_key_file" in variables
        else "        # ansible_ssh_private_key_file: ~/.ssh/id_ed25519",
    ]
    for part, groups in PARTS.items():
        chosen = split(answers[part])
        names = [machine.name for address in chosen for machine in machines if machine.address == address]
        for group in groups:
            lines += [f"    {group}:", "      hosts:", *(f"        {name}:" for name in names)]
    lines += [
        "    # Prometheus and Alertmanager, which watch the fleet and tell people, and Grafana with its dashboards",
        "    # (docs/monitoring.md). The director asks Prometheus while it watches a new release, whose memory and",
        "    # processor time are not measured without. Every host sends its log lines there, too; without it each",
        "    # keeps its own alone.",
        "    # monitoring:",
        "    #   hosts:",
        f"    #     {machines[-1].name}:",
        "    # Backups; without it the host with PostgreSQL keeps its own, and they are lost with it. Best is a host",
        "    # of its own, with the same Debian as that one.",
        "    # backup:",
        "    #   hosts:",
        f"    #     {machines[0].name}:",
    ]
    return "\n".join(lines) + "\n"


def variables_of(answers: Given) -> dict[str, str]:
    """What the answers set in main.yml, as YAML."""
    values = {"edge_server_name": scalar(answers["domain"]), "tls_mode": scalar(answers["tls_mode"])}
    if answers["mail"]:
        values["tls_mail"] = scalar(answers["mail"])
    if answers["tls_mode"] == "files":
        values |= {name: scalar(path) for name, path in CERTIFICATE.items()}
    if answers["app_source"]:
        values |= {"agent_source": scalar(answers["app_source"]), "agent_app": scalar(answers["app"]), **OF_AN_OWN_APP}
    return values


def render_main(answers: Given) -> str:
    values = variables_of(answers)
    mail = f"tls_mail: {values['tls_mail']}" if "tls_mail" in values else "# tls_mail: you@example.com"
    own = "\n".join(f"{'' if name in values else '# '}{name}: {path}" for name, path in CERTIFICATE.items())
    if answers["app_source"]:
        app = f"""\
# What it runs: a git checkout on this machine, and the app in it as uvicorn takes it.
agent_source: {values["agent_source"]}
agent_app: {values["agent_app"]}
# The module that brings the database to a release's schema, such as "alembic upgrade head"; empty for none.
agent_migrate_command: {values["agent_migrate_command"]}
# Whether the app tells systemd that it is ready and alive (sd_notify).
agent_notify: {values["agent_notify"]}
# What a new release is asked while it is watched; it must cost nothing.
agent_probe_path: {values["agent_probe_path"]}
# Where it shows its figures to Prometheus; empty for an app that has none.
agent_metrics_path: {values["agent_metrics_path"]}
# What every new release must answer before it has users.
agent_smoke_requests: {values["agent_smoke_requests"]}
"""
    else:
        app = """\
# What it runs is the reference agent service. An app of your own, from a git checkout on this machine:
# agent_source: ~/shop
# agent_app: shop.main:app
"""
    return f"""\
---
# The name under which users reach the service.
edge_server_name: {values["edge_server_name"]}

# Its certificate: Let's Encrypt's, renewed by itself (certbot), one made on the edge (self_signed), or yours (files).
tls_mode: {values["tls_mode"]}
# Who is told when a certificate of certbot's is about to end.
{mail}
# Your own certificate with its chain, and its key, on this machine; a relative path is the inventory's.
{own}
# Further names that the certificate is good for; the first is the one above.
# tls_names: ["{{{{ edge_server_name }}}}", www.example.com]
# Let's Encrypt's staging service, to try things without its limits; browsers do not trust its certificates.
# tls_staging: true

# The service; another one on the same fleet is a file in services/. Every variable that starts with agent_ is listed in
# docs/reference/variables.md.
agent_name: agent
{app}\
# Processes a host and slot; one for each core is a good start.
agent_instances: 1
# The model. With an empty agent_model_key (vault.yml) the service answers offline, and says so.
agent_model: deepseek-v4-flash
agent_model_url: https://api.deepseek.com
"""


def render_vault(passwords: Mapping[str, Any], model_key: str) -> str:
    lines = [f"{name}: {json.dumps(value)}" for name, value in passwords.items()]
    return "\n".join(
        [
            "---",
            "# Secrets. This file is encrypted; ansible-vault edit shows it.",
            *lines,
            "# The model provider's key; empty for the offline model.",
            f"agent_model_key: {json.dumps(model_key)}",
            "",
        ]
    )


def passwords(random: Callable[[], str]) -> dict[str, Any]:
    """A password for each secret that is this fleet's own."""
    return {**{name: _password(random) for name in GENERATED}, "edge_operators": {OPERATOR: _password(random)}}


def _password(random: Callable[[], str]) -> str:
    # One in ten thousand has six equal characters in a row, which preflight takes for a placeholder.
    while placeholder(value := random(), minimum=16):
        pass
    return value


# Reading


def machines_in(inventory: Any) -> list[Machine]:
    """The hosts of a hosts.yml, in its order, whoever wrote it."""
    found: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]] = {}
    for name, group in _mapping(inventory).items():
        _walk(str(name), group, (), {}, found)
    machines = []
    for name, (groups, inherited, own) in found.items():
        variables = {key: str(value) for key, value in {**inherited, **own}.items() if value is not None}
        machines.append(
            Machine(
                name=name,
                address=variables.get("ansible_host", name),
                private=variables.get("fleet_address", ""),
                groups=tuple(dict.fromkeys(groups)),
                variables={key: value for key, value in variables.items() if key in SSH.values()},
            )
        )
    return machines


def _walk(
    name: str,
    group: Any,
    above: tuple[str, ...],
    inherited: Mapping[str, Any],
    found: dict[str, tuple[list[str], dict[str, Any], dict[str, Any]]],
) -> None:
    group = _mapping(group)
    path = (*above, name)
    variables = {**inherited, **_mapping(group.get("vars"))}
    for host, own in _mapping(group.get("hosts")).items():
        groups, of_groups, of_host = found.setdefault(str(host), ([], {}, {}))
        groups.extend(path)
        of_groups.update(variables)
        of_host.update(_mapping(own))
    for child, inner in _mapping(group.get("children")).items():
        _walk(str(child), inner, path, variables, found)


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def answers_in(name: str, inventory: Any, variables: Any) -> dict[str, str]:
    """The answers that an inventory holds, of which a person may have changed any."""
    machines, main = machines_in(inventory), _mapping(variables)

    def common(variable: str) -> str:
        return next((machine.variables[variable] for machine in machines if variable in machine.variables), "")

    answers = {
        "fleet_name": name,
        "addresses": ",".join(machine.address for machine in machines),
        "private_addresses": ",".join(machine.private for machine in machines if machine.private),
        "domain": str(main.get("edge_server_name", "")),
        "tls_mode": str(main.get("tls_mode", "self_signed")),
        "mail": str(main.get("tls_mail", "")),
        "app_source": str(main.get("agent_source", "")),
        "app": str(main.get("agent_app", "")),
    }
    for part, groups in PARTS.items():
        order = list(_members(inventory, groups[0]))
        chosen = sorted((one for one in machines if one.name in order), key=lambda one: order.index(one.name))
        answers[part] = ",".join(machine.address for machine in chosen)
    answers |= {option: common(variable) or DEFAULTS.get(option, "") for option, variable in SSH.items()}
    return answers


def _members(inventory: Any, wanted: str) -> Iterable[str]:
    for name, group in _mapping(inventory).items():
        group = _mapping(group)
        if name == wanted:
            yield from (str(host) for host in _mapping(group.get("hosts")))
            for child in _mapping(group.get("children")):
                yield from _members(group["children"], str(child))
        yield from _members(group.get("children"), wanted)


def merge(existing: Given, given: Given) -> dict[str, str]:
    """The answers of an inventory once what is GIVEN is changed in it."""
    merged = {**existing, **{name: value.strip() for name, value in given.items()}}
    if given.get("mail") and "tls_mode" not in given:
        merged["tls_mode"] = "certbot"
    if "addresses" in given:
        before, after = split(existing["addresses"]), split(given["addresses"])
        moved = dict(zip(before, after, strict=True)) if len(before) == len(after) else None
        for part in PARTS:
            if part not in given:
                merged[part] = ",".join(moved.get(one, one) for one in split(existing[part])) if moved else ""
        if moved is None and "private_addresses" not in given:
            merged["private_addresses"] = ""
    return completed(merged)


# Changing


@dataclass(frozen=True)
class Change:
    """A file's new text, or why it is left to a person."""

    text: str
    findings: tuple[Finding, ...] = ()


def change_main(text: str, before: Given, after: Given, load: Load, path: str) -> Change:
    """main.yml with other answers; what else stands in it stays, comments included."""
    old, new = variables_of(before), variables_of(after)
    if old == new:
        return Change(text)
    if text == render_main(before):
        return Change(render_main(after))
    gone = [name for name in old if name not in new and not name.startswith("tls_")]
    changed = text
    for name, value in new.items():
        if old.get(name) != value:
            changed = set_value(changed, name, value)
    wanted = {**_mapping(load(text)), **{name: load(value) for name, value in new.items() if old.get(name) != value}}
    if gone or _loaded(load, changed) != wanted:
        names = ", ".join(gone or [name for name in new if old.get(name) != new[name]])
        return Change(text, (Finding(f"{path} was edited so that {names} cannot be changed here", "Change it there"),))
    return Change(changed)


def change_hosts(text: str, before: Given, after: Given, load: Load, path: str) -> Change:
    """hosts.yml with other answers; what else stands in it stays, comments included."""
    if all(before[name] == after[name] for name in OF_HOSTS):
        return Change(text)
    if text == _rendered(before):
        return Change(render_hosts(after))
    refused = Change(
        text, (Finding(f"{path} was edited so that its hosts cannot be changed here", "Change them there"),)
    )
    changed = text
    old, new = machines_in(load(text)), machines_of(after)
    if len(old) != len(new):
        return refused
    for now, then in zip(old, new, strict=True):
        changed = set_inline(changed, now.name, "ansible_host", now.address, then.address)
        changed = set_inline(changed, now.name, "fleet_address", now.private, then.private)
    for option, variable in SSH.items():
        if before[option] != after[option]:
            value = after[option] if option == "ssh_port" else scalar(after[option])
            changed = set_value(changed, variable, value, beside="ansible_user")
    name = after["fleet_name"]
    reached = _loaded(load, changed)
    main = {"edge_server_name": after["domain"]}
    same = answers_in(name, reached, main)
    return Change(changed) if all(same[option] == after[option] for option in OF_HOSTS) else refused


def change_vault(text: str, model_key: str) -> str:
    return set_value(text, "agent_model_key", json.dumps(model_key))


def set_value(text: str, name: str, value: str, beside: str = "") -> str:
    """The text with `name: value` in place of the line that has it; else below a commented one, `beside` or the end."""
    line = re.compile(rf"(?m)^([ ]*){name}:[ ]*(\"[^\"\n]*\"|'[^'\n]*'|[^#\n]*?)([ ]+#[^\n]*)?$")
    if line.search(text):
        return line.sub(lambda found: f"{found[1]}{name}: {value}{found[3] or ''}", text, count=1)
    for place in (rf"(?m)^([ ]*)#[ ]?{name}:[^\n]*$", rf"(?m)^([ ]*){beside}:[^\n]*$" if beside else ""):
        found = re.search(place, text) if place else None
        if found:
            return f"{text[: found.end()]}\n{found[1]}{name}: {value}{text[found.end() :]}"
    return f"{text.rstrip(chr(10))}\n{name}: {value}\n"


def set_inline(text: str, host: str, variable: str, old: str, new: str) -> str:
    """The text with another value of a host's variable, in the line of the host or in those below it."""
    if old == new or not old or not new:
        return text
    pattern = rf"(?m)(^[ ]*{re.escape(host)}:[^#]*?{variable}:[ ]*[\"']?){re.escape(old)}(?![\w.-])"
    return re.sub(pattern, lambda found: f"{found[1]}{new}", text, count=1)


def _rendered(answers: Given) -> str:
    try:
        return render_hosts(answers)
    except (IndexError, ValueError):
        # Hosts that no answers describe.
        return ""


def _loaded(load: Load, text: str) -> Any:
    try:
        return load(text)
    except ValueError:
        return None
