"""Who may fetch what between the hosts, for backups: the lines of SSH's files and of sudo's. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

MARK = "agentfleet-backup"
USER = "agentfleet-backup"
PROGRAMS = "/usr/local/lib/agentfleet/backup"
SETTINGS = "/etc/agentfleet/backup"
# What a key is let in for is one command: no terminal, no forwarding, from one address.
SOURCE = f'sudo -n {PROGRAMS}/agentfleet-backup-source \\"$SSH_ORIGINAL_COMMAND\\"'
PEER = f"{PROGRAMS}/only-pgbackrest"
SUDO = (
    "# Managed by Agentfleet (role backup)\n"
    f"Defaults:{USER} !requiretty\n"
    f"{USER} ALL=(root) NOPASSWD: {PROGRAMS}/agentfleet-backup-source *\n"
)


def authorized(command: str, address: str, key: str) -> str:
    """A line of authorized_keys."""
    return f'restrict,from="{address}",command="{command}" {" ".join(key.split()[:2])} {MARK}'


def with_line(text: str, line: str) -> str:
    """The text of authorized_keys with LINE as the only one that is ours; people's own stay."""
    others = [old for old in text.splitlines() if not old.rstrip().endswith(f" {MARK}")]
    return "".join(f"{one}\n" for one in [*others, line])


def known_line(address: str, port: int, key: str) -> str:
    name = address if port == 22 else f"[{address}]:{port}"
    return f"{name} {' '.join(key.split()[:2])}"


def known_hosts(text: str, wanted: Iterable[Mapping[str, Any]]) -> str:
    """The text of known_hosts for the WANTED hosts; one that gave no key this time keeps the one that is known."""
    before = {line.split()[0]: line for line in text.splitlines() if len(line.split()) >= 3}
    lines = []
    for host in wanted:
        line = known_line(host["address"], int(host["port"]), host["key"] or "- -")
        name = line.split()[0]
        if host["key"]:
            lines.append(line)
        elif name in before:
            lines.append(before[name])
    return "".join(f"{line}\n" for line in dict.fromkeys(lines))


def ssh_config(key: str, known: str) -> str:
    """How this host's programs reach the others: by one key, to hosts that are known, without a question."""
    options: Sequence[tuple[str, str]] = (
        ("IdentityFile", key),
        ("IdentitiesOnly", "yes"),
        ("UserKnownHostsFile", known),
        ("StrictHostKeyChecking", "yes"),
        ("BatchMode", "yes"),
        ("ConnectTimeout", "10"),
        # A host whose power is gone says nothing more.
        ("ServerAliveInterval", "15"),
        ("ServerAliveCountMax", "3"),
        ("LogLevel", "ERROR"),
    )
    return "# Managed by Agentfleet (role backup)\nHost *\n" + "".join(f"  {name} {value}\n" for name, value in options)
