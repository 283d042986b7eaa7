"""A person's own machine: a directory in which inventories come to be, and commands are typed as they are printed."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import subprocess
import termios
from collections.abc import Mapping
from pathlib import Path

import yaml

from .fleet import BIN, TOP, Result

# What is written when an answer is taken.
CLEARED = "\x1b[K"
# The names of this machine are left alone: commands see others in their place.
NAMED = 'mount --bind "$0" /etc/hosts && exec "$@"'


class Desk:
    """A directory of a person's own, in which inventories come to be."""

    def __init__(self, directory: Path, names: Mapping[str, str] | None = None) -> None:
        """NAMES are addresses by the name that leads to them on this machine alone."""
        self.directory = directory
        self.prefix: tuple[str, ...] = ()
        if names:
            lines = ["127.0.0.1 localhost", *(f"{address} {name}" for name, address in names.items())]
            (directory / "names").write_text("\n".join(lines) + "\n")
            self.prefix = ("unshare", "--mount", "sh", "-c", NAMED, str(directory / "names"))
        self.shop = directory / "inventories/shop"
        self.known_hosts = directory / "known_hosts"

    @property
    def environment(self) -> dict[str, str]:
        # The machine's own known_hosts is left alone.
        own = f"-o UserKnownHostsFile={self.known_hosts} -o IdentitiesOnly=yes"
        return {
            **os.environ,
            "ANSIBLE_CONFIG": str(TOP / "ansible.cfg"),
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_COMMON_ARGS": own,
        }

    def run(self, *command: str | Path, timeout: float = 300) -> Result:
        done = subprocess.run(
            [*self.prefix, *(str(word) for word in command)],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        return Result(done.returncode, done.stdout)

    def init(self, *options: str, **given: str) -> Result:
        answers = [word for name, value in given.items() for word in ("-e", f"{name}={value}")]
        return self.run(BIN / "ansible-playbook", TOP / "playbooks/init.yml", *answers, *options)

    def answer(self, replies: dict[str, str], *options: str) -> Result:
        """A run at a terminal: each reply is typed once the question that its key begins is on the screen."""
        command = [*self.prefix, str(BIN / "ansible-playbook"), str(TOP / "playbooks/init.yml"), *options]
        main, terminal = pty.openpty()
        process = subprocess.Popen(
            command,
            cwd=self.directory,
            env={**self.environment, "TERM": "dumb"},
            stdin=terminal,
            stdout=terminal,
            stderr=terminal,
            start_new_session=True,
            # Ansible reads from a terminal that is its own alone.
            preexec_fn=lambda: controlling(terminal),
        )
        os.close(terminal)
        screen, answered, reply, left = "", 0, "", dict(replies)
        while True:
            if not select.select([main], [], [], 60 if not reply else 2)[0]:
                # Ansible forgets what was typed until it listens, and does not say when it does.
                assert reply, screen
                os.write(main, reply.encode())
                continue
            try:
                screen += os.read(main, 4096).decode(errors="replace")
            except OSError:
                break
            if CLEARED in screen[answered:]:
                answered, reply = screen.rindex(CLEARED) + len(CLEARED), ""
            question = next((text for text in left if text in screen[answered:]), None)
            if not reply and question and screen.rstrip().endswith(":"):
                reply = f"{left.pop(question)}\r"
                settle(main)
                os.write(main, reply.encode())
        assert left == {}, screen
        return Result(process.wait(timeout=60), screen)

    def vault(self) -> dict[str, str]:
        password = self.shop / "credentials/vault_password"
        command = [BIN / "ansible-vault", "view", self.shop / "group_vars/all/vault.yml"]
        return yaml.safe_load(self.run(*command, "--vault-password-file", password).ok().stdout)

    def files(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in sorted(self.shop.rglob("*")) if path.is_file()}


def controlling(terminal: int) -> None:
    fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)


def settle(main: int) -> None:
    """Ansible forgets what was typed before it listens, which it does once it has turned the terminal's echo off."""

    def cooked() -> bool:
        return bool(termios.tcgetattr(main)[3] & termios.ICANON)

    while cooked():
        select.select([main], [], [], 0.05)


def told_by(result: Result) -> list[str]:
    told = result.stdout.partition("FAILED!\n")[2].partition("\n\n")[0].splitlines()
    return [line.replace("\r", "") for line in told]


def commands_of(result: Result) -> list[str]:
    return re.findall(r"(?m)^  (\S*ansible-playbook -i .*?)\r?$", result.stdout)
