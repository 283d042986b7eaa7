"""Ask for what makes an inventory, and write it or change it; see modules/first_inventory.py for the options."""

from __future__ import annotations

import secrets
import shlex
import shutil
import socket
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible import context
from ansible.errors import AnsibleError, AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.parsing.vault import VaultSecret, is_encrypted
from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils import first_answers as asked
from ansible_collections.agentfleet.vm.plugins.module_utils import first_inventory as first
from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding, lines_by_host
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import (
    Known,
    Place,
    Variable,
    is_own,
    judge_variables,
)
from ansible_collections.agentfleet.vm.plugins.plugin_utils import first_inventory as files
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import is_encrypted as is_vault
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import shorten
from ansible_collections.agentfleet.vm.plugins.plugin_utils.known import load_known


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "answers": {"type": "dict", "required": True, "no_log": True},
                "directory": {"type": "path", "default": "inventories"},
            },
        )[1]
        result: dict[str, Any] = {**super().run(tmp, task_vars), "changed": False}
        extra = (task_vars or {})["hostvars"]._variable_manager.extra_vars
        # What another fleet's inventory says, which may be this run's, is no answer.
        given = {name: _text(value) for name, value in wanted["answers"].items() if name in extra}
        self._inventories = Path(wanted["directory"])
        refused = _judge_options(extra)
        if not refused:
            refused = self._ask(given)
        if refused:
            return {**result, "refused": _lines(refused)}

        directory = self._inventories / given["fleet_name"]
        vault = files.Vault(getattr(self._loader._vault, "secrets", None) or [], directory / first.PASSWORD)
        made = self._change(directory, given, vault) if directory.exists() else self._create(directory, given, vault)
        return {**result, **made}

    # Questions

    def _ask(self, given: dict[str, str]) -> list[Finding]:
        """Complete what is GIVEN by asking; what cannot be known is told."""
        if self._exists(given):
            return []
        lacking = asked.missing(given)
        while lacking and not self._exists(given) and (question := asked.next_question(given)):
            try:
                given[question.name] = self._answer(question)
            except AnsiblePromptNoninteractive:
                mend = f"Add {' '.join(asked.missing(given))}"
                return [Finding("there is no terminal to ask at, and not all that is needed was given", mend)]
            except AnsiblePromptInterrupt as error:
                raise AnsibleError("interrupted; nothing was written") from error
        return []

    def _exists(self, given: Mapping[str, str]) -> bool:
        name = given.get("fleet_name", "")
        return not asked.wrong_answer("fleet_name", name) and (self._inventories / name).exists()

    def _answer(self, question: asked.Question) -> str:
        default = f" [{question.default}]" if question.default else ""
        while True:
            raw = self._display.prompt_until(f"\n{question.text}{default}:", private=question.secret)
            answer = raw.decode(errors="replace").strip() or question.default
            wrong = asked.wrong_answer(question.name, answer)
            if not wrong and answer and question.name in FILES:
                wrong = FILES[question.name](answer)
            if not wrong:
                # The terminal forgets what was typed.
                self._display.display(f"  {'(not shown)' if question.secret and answer else answer}")
                return answer
            self._display.display(f"  It {wrong}.")

    # Files

    def _create(self, directory: Path, given: dict[str, str], vault: files.Vault) -> dict[str, Any]:
        answers = asked.completed(given)
        refused = asked.judge(given, answers) or _judge_files(given)
        later: list[Finding] = []
        if not refused:
            refused, later = _judge_names(answers)
        if refused:
            return {"refused": _lines(refused)}
        made = {
            first.HOSTS: first.render_hosts(answers),
            first.MAIN: first.render_main(answers),
            # What must not travel with the inventory, wherever it is committed.
            first.IGNORED: "/credentials/\n",
        }
        if not vault.given:
            password = secrets.token_urlsafe(32)
            made[first.PASSWORD] = f"{password}\n"
            vault = files.Vault([("default", VaultSecret(password.encode()))], directory / first.PASSWORD)
        passwords = first.passwords(lambda: secrets.token_hex(24))
        made[first.VAULT] = vault.encrypt(first.render_vault(passwords, answers["model_key"]))
        if not self._task.check_mode:
            files.create(directory, made)
        shown = shorten(str(directory))
        lines = [f"{shown} is written: {first.HOSTS}, {first.MAIN}, {first.VAULT}"]
        if first.PASSWORD in made:
            lines.append(
                f"The vault's password is in {shown}/{first.PASSWORD}, which git ignores: keep a copy in a safe place"
            )
        if not self._task.check_mode:
            # Once: whoever loses it and the vault has lost all backups.
            lines.append(f"The backups' key is {passwords['backup_key']}: keep a copy of it where the fleet is not")
            place = f"https://{answers['domain']}/operations/"
            lines.append(f"The status page is at {place} for {first.OPERATOR}, whose password is in the vault")
        return self._done(directory, answers, lines, later, made, {})

    def _change(self, directory: Path, given: dict[str, str], vault: files.Vault) -> dict[str, Any]:
        try:
            texts = {name: (directory / name).read_text(encoding="utf-8") for name in (first.HOSTS, first.MAIN)}
            trees = {name: files.load(text) for name, text in texts.items()}
        except OSError as error:
            text = f"{shorten(str(directory))} exists and is no inventory of this: {error.strerror}: {error.filename}"
            return {"refused": _lines([Finding(text, "Take another fleet_name, or move it away")])}
        except ValueError as error:
            text = f"{shorten(str(directory))} cannot be read: {error}"
            return {"refused": _lines([Finding(text, "Correct it there")])}
        before = asked.completed(first.answers_in(directory.name, trees[first.HOSTS], trees[first.MAIN]))
        after = first.merge(before, given)
        refused = asked.judge(given, after) or _judge_files(given)
        later: list[Finding] = []
        if not refused:
            at_once, later = _judge_names(after)
            refused = at_once if {"domain", "addresses"} & set(given) else []
            later += [] if refused else at_once
        if refused:
            return {"refused": _lines(refused)}
        changes = {
            name: changed(texts[name], before, after, files.load, shorten(str(directory / name)))
            for name, changed in ((first.HOSTS, first.change_hosts), (first.MAIN, first.change_main))
        }
        made = {name: change.text for name, change in changes.items() if change.text != texts[name]}
        refused = [finding for change in changes.values() for finding in change.findings]
        if "model_key" in given and not refused:
            refused = self._change_key(directory, given["model_key"].strip(), vault, made)
        if refused:
            return {"refused": _lines(refused)}
        if made and not self._task.check_mode:
            files.change(directory, made)
        shown = shorten(str(directory))
        lines = [f"{shown} is changed: {', '.join(sorted(made))}" if made else f"{shown} is there; nothing is changed"]
        return self._done(directory, after, lines, later, made, texts)

    def _change_key(self, directory: Path, key: str, vault: files.Vault, made: dict[str, str]) -> list[Finding]:
        path = directory / first.VAULT
        shown = shorten(str(path))
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if not text:
            return [Finding(f"{shown} is not there", f"Make it: ansible-vault create {shown}")]
        encrypted = is_encrypted(text)
        inside = vault.decrypt(text) if encrypted else text
        if inside is None:
            return [Finding(f"no password opens {shown}", "Add --vault-password-file FILE or --ask-vault-pass")]
        changed = first.change_vault(inside, key)
        if files.load(changed) != files.load(inside):
            made[first.VAULT] = vault.encrypt_again(changed, text) if encrypted else changed
        return []

    def _done(
        self,
        directory: Path,
        answers: Mapping[str, str],
        lines: list[str],
        later: list[Finding],
        made: Mapping[str, str],
        texts: Mapping[str, str],
    ) -> dict[str, Any]:
        written = made.get(first.HOSTS) or texts[first.HOSTS]
        machines = [machine for machine in first.machines_in(files.load(written)) if _is_plain(machine)]
        later = [*later, *_judge_certificate(directory, files.load(made.get(first.MAIN) or texts[first.MAIN]))]
        return {
            "changed": bool(made),
            "lines": lines,
            "commands": _commands(directory, first.PASSWORD in made),
            "inventory": str(directory),
            "findings": [finding.to_dict() for finding in later],
            "hosts": [
                {
                    "name": machine.name,
                    "groups": list(machine.groups),
                    "variables": {"ansible_host": machine.address, **machine.variables},
                }
                for machine in machines
            ],
            "diff": [
                {"before_header": name, "after_header": name, "before": texts.get(name, ""), "after": made[name]}
                for name in (first.HOSTS, first.MAIN)
                if name in made
            ],
        }


def _text(value: Any) -> str:
    # As YAML's words, which is what the command line is made of.
    return str(value).lower() if isinstance(value, bool) else str(value)


def _is_plain(machine: first.Machine) -> bool:
    # What a template or a vault says is known to the playbooks that come next.
    return not any("{{" in value or value.startswith("!") for value in (machine.address, *machine.variables.values()))


def _lines(findings: Iterable[Finding]) -> list[str]:
    return lines_by_host(findings, ["fleet"]).get("fleet", [])


def _judge_options(extra: Mapping[str, Any]) -> list[Finding]:
    """What is wrong with the command line; a variable of a role has no meaning here."""
    everything = load_known()
    known = Known(roles={}, fleet={}, playbooks=everything.playbooks)
    given = {
        str(name): Variable(name=str(name), where="-e", value=value, extra=True)
        for name, value in extra.items()
        if not is_own(str(name))
    }
    return judge_variables("fleet", [], given, {}, known, "init", Place("inventories", "", "absent"))


def _no_directory(path: str) -> str:
    return "" if Path(path).expanduser().is_dir() else "is no directory on this machine. Clone it first"


def _no_key(path: str) -> str:
    try:
        private = "PRIVATE KEY" in Path(path).expanduser().read_text(errors="replace")[:100]
    except OSError as error:
        return f"cannot be read: {error.strerror}. Make one: ssh-keygen -t ed25519 -f {path}"
    return "" if private else "is no private key of SSH. Name the file without .pub"


FILES = {"app_source": _no_directory, "ssh_key_file": _no_key}


def _judge_files(given: Mapping[str, str]) -> list[Finding]:
    findings = []
    for name, judged in FILES.items():
        value = given.get(name, "").strip()
        if value and (wrong := judged(value)):
            text, _, mend = wrong.partition(". ")
            findings.append(Finding(f"{name} '{value}' {text}", mend))
    return findings


def _judge_certificate(directory: Path, variables: Any) -> list[Finding]:
    """Which files of a certificate of one's own are not there yet."""
    findings = []
    if isinstance(variables, Mapping) and variables.get("tls_mode") == "files":
        for name, what in (("tls_certificate_file", "the certificate with its chain"), ("tls_key_file", "its key")):
            path = str(variables.get(name, ""))
            if path and "{{" not in path and not (directory / Path(path).expanduser()).is_file():
                shown = shorten(str(directory / Path(path).expanduser()))
                findings.append(Finding(f"{shown} is not there, and tls_mode files needs it", f"Put {what} there"))
    return findings


def _judge_names(answers: Mapping[str, str]) -> tuple[list[Finding], list[Finding]]:
    """What does not resolve, at once or later."""
    refused = []
    for address in asked.split(answers["addresses"]):
        host = _resolved(address)
        if host.ipv6 and not host.ipv4:
            text = f"{address} has an IPv6 address alone ({host.ipv6[0]}), and hosts are reached over IPv4"
            refused.append(Finding(text, "Give the host an IPv4 address"))
        elif not host.ipv4:
            refused.append(Finding(f"{address} does not resolve", "Correct -e addresses"))
    if refused:
        return refused, []
    edges = [ip for address in asked.split(answers["edge_host"]) for ip in _resolved(address).ipv4]
    return asked.judge_domain(_resolved(answers["domain"]), edges, answers)


def _resolved(name: str) -> asked.Domain:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return asked.Domain(name)
    by_family = {family: tuple(dict.fromkeys(str(one[4][0]) for one in found if one[0] == family)) for family in FAMILY}
    return asked.Domain(name, by_family[socket.AF_INET], by_family[socket.AF_INET6])


FAMILY = (socket.AF_INET, socket.AF_INET6)


def _commands(directory: Path, new_password: bool) -> list[str]:
    """The next two command lines, as this one was typed."""
    typed = str(context.CLIARGS["args"][0])
    stem = typed.removesuffix(".yml").removesuffix("init")
    suffix = ".yml" if typed.endswith(".yml") else ""
    found = shutil.which("ansible-playbook")
    program = "ansible-playbook" if found == sys.argv[0] and "/.venv/" not in found else shorten(sys.argv[0])
    inventory = shorten(str(directory))
    words = ["-i", inventory]
    if context.CLIARGS.get("ask_vault_pass"):
        words.append("--ask-vault-pass")
    for option, values in (
        ("--vault-password-file", context.CLIARGS.get("vault_password_files") or ()),
        ("--vault-id", context.CLIARGS.get("vault_ids") or ()),
    ):
        for value in values:
            words += [option, shorten(value) if Path(value).is_file() else value]
    own = directory / first.PASSWORD
    if len(words) == 2 and (new_password or own.is_file()) and (new_password or is_vault(str(directory / first.VAULT))):
        words += ["--vault-password-file", shorten(str(own))]
    if context.CLIARGS.get("become_ask_pass"):
        words.append("--ask-become-pass")
    if become := context.CLIARGS.get("become_password_file"):
        words += ["--become-password-file", shorten(become)]
    return [shlex.join([program, *words[:2], f"{stem}{name}{suffix}", *words[2:]]) for name in NEXT]


NEXT = ("site", "deploy")
