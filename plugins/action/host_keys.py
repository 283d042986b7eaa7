"""Have a person accept the SSH keys of hosts that are new; see modules/host_keys.py for the options."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.errors import AnsiblePromptInterrupt, AnsiblePromptNoninteractive
from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils import first_contact
from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.plugin_utils import host_keys

CHECK = "in the provider's console: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _requires_connection = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        wanted = self.validate_argument_spec(
            argument_spec={
                "hosts": {"type": "list", "elements": "dict", "required": True},
                "accept": {"type": "bool", "default": False},
            },
        )[1]
        result: dict[str, Any] = {**super().run(tmp, task_vars), "changed": False}
        findings: list[Finding] = []
        known: list[str] = []
        lines: list[str] = []
        with ThreadPoolExecutor() as pool:
            looked = list(pool.map(_look, wanted["hosts"]))
        for host, (client, pattern, shown, state) in zip(wanted["hosts"], looked, strict=True):
            name = str(host["name"])
            if not client.direct or not shown or state == "known":
                # Who cannot be reached is told by who tries next.
                known.append(name)
            elif state == "changed":
                findings.append(first_contact.changed_key(name, pattern, shown, client.files[0]))
            elif wanted["accept"] or self._accepts(name, client.address, shown[0]):
                if not self._task.check_mode:
                    host_keys.accept(client, first_contact.lines_for(pattern, shown))
                lines.append(f"{name}: accepted its SSH key {shown[0].fingerprint} into {client.files[0]}")
                known.append(name)
            else:
                findings.append(first_contact.unknown_key(name, client.address, shown, CHECK))
        result["changed"] = bool(lines)
        return {**result, "known": known, "lines": lines, "findings": [finding.to_dict() for finding in findings]}

    def _accepts(self, name: str, address: str, key: first_contact.HostKey) -> bool:
        question = (
            f"\n{name} at {address} shows the SSH key {key.fingerprint} ({key.kind}), which is not known yet."
            f"\nThe host's own says the same {CHECK}\nIs it this host? [yes/no]:"
        )
        try:
            while True:
                answer = self._display.prompt_until(question).decode(errors="replace").strip().lower()
                if answer in ("yes", "no"):
                    return bool(answer == "yes")
                question = "Please say yes or no:"
        except (AnsiblePromptNoninteractive, AnsiblePromptInterrupt):
            return False


def _look(host: dict[str, Any]) -> tuple[host_keys.Client, str, list[first_contact.HostKey], str]:
    variables = host["variables"]
    port, user = str(variables.get("ansible_port", "")), str(variables.get("ansible_user", "root"))
    client = host_keys.client_of(str(variables["ansible_host"]), port, user)
    pattern = first_contact.host_pattern(client.address, client.port)
    known = host_keys.known_of(client, pattern)
    shown = host_keys.shown_by(client, known) if client.direct else []
    return client, pattern, shown, first_contact.judge_keys(shown, known)
