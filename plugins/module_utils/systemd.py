"""The few commands of systemd that a release needs, and reading what it says."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path


class CommandError(Exception):
    """A command that failed: its name and the last it said."""


def run(*command: str, stdin: bytes | None = None, environment: Mapping[str, str] | None = None) -> bytes:
    """Output of COMMAND, which must succeed."""
    try:
        done = subprocess.run(
            command,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            check=False,
            env={**os.environ, "LC_ALL": "C.UTF-8", **(environment or {})},
        )
    except OSError as error:
        raise CommandError(f"{command[0]}: {error.strerror}") from error
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip()).decode(errors="replace")
        last = "\n".join(said.splitlines()[-15:]) or f"exit status {done.returncode}"
        raise CommandError(f"{Path(command[0]).name} {command[1] if len(command) > 1 else ''}: {last}")
    return done.stdout


def systemctl(*arguments: str) -> str:
    return run("systemctl", "--no-ask-password", *arguments).decode(errors="replace")


def parse_properties(text: str) -> list[dict[str, str]]:
    """What `systemctl show` says of one or more units."""
    units = []
    for block in text.strip().split("\n\n"):
        lines = (line.partition("=") for line in block.splitlines())
        units.append({name: value for name, _equals, value in lines})
    return [unit for unit in units if unit]


def show(units: Sequence[str], *properties: str) -> dict[str, dict[str, str]]:
    """Properties of each unit, by its name; a pattern stands for the loaded units that it matches."""
    text = systemctl("show", f"--property=Id,{','.join(properties)}", "--", *units)
    return {unit["Id"]: unit for unit in parse_properties(text) if "Id" in unit}


def journal(units: Sequence[str], since: float, lines: int) -> str:
    """The last LINES that the processes of UNITS said since a moment, without what systemd says of them."""
    matches = [f"_SYSTEMD_UNIT={unit}" for unit in units]
    output = run("journalctl", "--no-pager", "--quiet", "--output=cat", f"--since=@{since:.6f}", *matches)
    return "\n".join(output.decode(errors="replace").strip().splitlines()[-lines:])


# The TPM's state changes with the firmware, and a credential sealed to it would then keep the service from
# starting after a reboot. The host's key lies on its disk, readable by root alone.
ENCRYPT = ("systemd-creds", "encrypt", "--with-key=host")


def encrypt(name: str, secret: str) -> bytes:
    """SECRET as a credential that only this host can read, under this NAME."""
    return run(*ENCRYPT, f"--name={name}", "-", "-", stdin=secret.encode())


def decrypt(name: str, path: Path) -> str:
    """What encrypt() took."""
    return run("systemd-creds", "decrypt", f"--name={name}", str(path), "-").decode()
