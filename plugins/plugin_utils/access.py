"""How a person reaches a host by hand, as the inventory says it."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from ansible_collections.agentfleet.vm.plugins.module_utils.host_check import Access
from ansible_collections.agentfleet.vm.plugins.module_utils.variables import Place
from ansible_collections.agentfleet.vm.plugins.plugin_utils.evaluation import Evaluation, shorten

# Installed by role agent.
CONSOLE = "/usr/local/lib/agentfleet/agentfleet-console"


def access_to(host: str, evaluation: Evaluation, place: Place) -> Access:
    def value(name: str, otherwise: str = "") -> str:
        return str(evaluation.value(f"ansible_{name}") or otherwise)

    address, port, user = value("host", host), value("port", "22"), value("user")
    words = ["ssh", *value("ssh_common_args").split(), *value("ssh_extra_args").split()]
    if value("ssh_private_key_file"):
        words += ["-i", shorten(value("ssh_private_key_file"))]
    if port != "22":
        words += ["-p", port]
    words.append(f"{user}@{address}" if user else address)
    return Access(
        address=address,
        port=int(port),
        user=user or "your own",
        ssh=shlex.join(words),
        ansible=f"ansible -i {shlex.quote(place.inventory)} {host}",
    )


def console_command(ssh: str, user: str, words: Sequence[str]) -> str:
    """What a person pastes to run WORDS as root, in a terminal, on a host that SSH, of an Access, reaches as USER."""
    there = list(words) if user == "root" else ["sudo", *words]
    return f"ssh -t{ssh.removeprefix('ssh')} {shlex.join(there)}"
