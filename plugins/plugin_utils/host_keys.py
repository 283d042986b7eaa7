"""What OpenSSH knows of a host's key, and what the host shows; as Ansible's own connection would be made."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible import constants
from ansible_collections.agentfleet.vm.plugins.module_utils.first_contact import KINDS, HostKey, keys_in

SECONDS = 10
# What ssh-keyscan calls a kind of key.
TYPES = {kind: kind.removeprefix("ssh-").partition("-")[0] for kind in KINDS}


@dataclass(frozen=True)
class Client:
    """The settings by which ssh would connect."""

    address: str
    port: int
    files: tuple[str, ...]
    direct: bool


def client_of(address: str, port: str, user: str) -> Client:
    words = [word for name in ("ssh_args", "ssh_common_args", "ssh_extra_args") for word in shlex.split(_config(name))]
    done = _run(["ssh", "-G", *words, *(["-p", port] if port else []), "-l", user, "--", address])
    settings: dict[str, str] = {}
    for line in done.splitlines():
        name, _, value = line.partition(" ")
        settings.setdefault(name, value)
    files = tuple(os.path.expanduser(name) for name in settings.get("userknownhostsfile", "").split())
    return Client(
        # An alias of the user's own configuration is known by what it stands for.
        address=settings.get("hostkeyalias") or settings.get("hostname", address),
        port=int(settings.get("port", port or 22)),
        files=files or (os.path.expanduser("~/.ssh/known_hosts"),),
        direct=all(settings.get(name, "none") == "none" for name in ("proxyjump", "proxycommand")),
    )


def shown_by(client: Client, known: Sequence[HostKey]) -> list[HostKey]:
    """The key that the host shows of the best kind that is known of it, else of any; none where it cannot be reached.

    Each kind is a connection without a login, and today's sshd shuts out who makes many of them.
    """
    for kinds in [TYPES[known[0].kind]] if known else ["ed25519", "ecdsa,rsa"]:
        command = ["ssh-keyscan", "-T", str(SECONDS), "-t", kinds, "-p", str(client.port), client.address]
        if shown := keys_in(_run(command)):
            return shown
    return []


def known_of(client: Client, pattern: str) -> list[HostKey]:
    found = [_run(["ssh-keygen", "-F", pattern, "-f", name]) for name in client.files if os.path.exists(name)]
    return keys_in("\n".join(found))


def accept(client: Client, lines: str) -> None:
    path = Path(client.files[0])
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "w", encoding="utf-8") as file:
        file.write(("\n" if before and not before.endswith("\n") else "") + lines)


def _config(name: str) -> str:
    return str(constants.config.get_config_value(name, plugin_type="connection", plugin_name="ssh") or "")


def _run(command: list[str]) -> str:
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    return done.stdout
