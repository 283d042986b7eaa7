"""console.yml: what it says to paste leads into the release that serves, with what the service has and no more."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import shlex
import struct
import subprocess
import termios
import threading

import pytest
from support.fleet import TOP, Fleet

# The other Debian release is soak's.
AGENTS = ("agent1", pytest.param("agent2", marks=pytest.mark.soak))


def given(**words: str) -> list[str]:
    return ["-e", json.dumps(words)]


def pasted(fleet: Fleet, host: str, what: str, prompt: str, *typed: str) -> str:
    """What a person sees who pastes the printed command into a terminal and types each line at the prompt."""
    said = fleet.playbook("console", *given(host=host, what=what)).ok().stdout
    command = next(line.strip() for line in said.splitlines() if line.startswith("    ssh -t "))
    person, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, 400, 0, 0))
    process = subprocess.Popen(
        shlex.split(command), cwd=TOP, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    screen, seen, left = "", 0, list(typed)
    patience = threading.Timer(90, process.kill)
    patience.start()
    try:
        while piece := read(person):
            screen += piece
            # What is typed before somebody listens is lost.
            if left and prompt in screen[seen:]:
                seen = len(screen)
                os.write(person, f"{left.pop(0)}\n".encode())
        assert process.wait() == 0, screen
        return screen
    finally:
        patience.cancel()
        os.close(person)


def read(person: int) -> str:
    try:
        return os.read(person, 65536).decode(errors="replace")
    except OSError:
        # The other end is closed.
        return ""


@pytest.mark.parametrize("host", AGENTS)
def test_python_has_the_service_and_its_settings(fleet: Fleet, host: str) -> None:
    command = (
        "from agent_service.core.settings import load_settings as l; s = l();"
        "print(s.slot, s.release, len(s.api_key.get_secret_value()), len(s.database_password.get_secret_value()))"
    )
    said = fleet.playbook("console", *given(host=host, what="python", command=command)).ok().stdout.split()
    assert said[0] in ("blue", "green")
    assert said[2:4] == [str(len(fleet.secret("api_key"))), str(len(fleet.secret("database_password")))]
    current = fleet.status()["release"]
    assert said[1] == current


@pytest.mark.soak
@pytest.mark.parametrize("host", AGENTS)
def test_a_shell_is_the_services_user_in_its_sandbox(fleet: Fleet, host: str) -> None:
    command = "id -un; pwd; command -v python; touch /opt/agent/x || echo shut; grep NoNewPrivs /proc/self/status"
    said = fleet.playbook("console", *given(host=host, command=command)).ok().stdout.splitlines()
    assert said[0] == "agent"
    assert said[1].startswith("/opt/agent/releases/")
    assert said[2].startswith("/opt/agent/slots/")
    assert "shut" in said
    assert any(line.split() == ["NoNewPrivs:", "1"] for line in said)


@pytest.mark.parametrize("host", AGENTS)
def test_psql_is_the_services_user_and_its_password_in_no_list(fleet: Fleet, host: str) -> None:
    said = fleet.playbook("console", *given(host=host, what="psql", command="select current_user")).ok().stdout
    assert "agent" in said.split()
    lists = "\\! cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ | tr '\\0' ' '"
    seen = pasted(fleet, host, "psql", "agent=> ", "select count(*) from conversations;", lists, "\\q")
    assert "(1 row)" in seen
    assert "PGPASSFILE=" in seen
    assert fleet.secret("database_password") not in seen


@pytest.mark.soak
def test_what_is_pasted_is_a_terminal(fleet: Fleet) -> None:
    said = pasted(fleet, "agent2", "shell", "$ ", "tty", "exit")
    assert "/dev/pts/" in said
    assert "agent, slot " in said


def test_each_use_is_in_the_journal(fleet: Fleet) -> None:
    fleet.playbook("console", *given(host="agent1", command="echo noted-$((6 * 7))")).ok()
    noted = fleet.on("agent1", "journalctl --no-pager -o cat -t agentfleet-console -n 1").ok().stdout
    assert noted.startswith(f"root from {fleet.prefix}.1: shell in agent, slot ")
    assert noted.strip().endswith("echo noted-$((6 * 7))")


@pytest.mark.soak
def test_nothing_is_left_of_it(fleet: Fleet) -> None:
    fleet.playbook("console", *given(host="agent1", command="true")).ok()
    assert fleet.on("agent1", "systemctl list-units --all --plain --no-legend '*-console-*'").ok().stdout == ""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"host": "edge1"}, "host=edge1: name one of agent1, agent2"),
        ({}, "name one of agent1, agent2"),
        ({"host": "agent1", "what": "irb"}, "shell, python, psql"),
        ({"host": "agent1", "command": "exit 7"}, "it ended with status 7"),
    ],
)
def test_what_cannot_be_is_refused_in_a_line(fleet: Fleet, words: dict[str, str], said: str) -> None:
    refused = fleet.playbook("console", *given(**words))
    assert refused.returncode
    assert said in refused.stdout


@pytest.mark.soak
def test_a_dry_run_carries_nothing_out(fleet: Fleet) -> None:
    said = fleet.playbook("console", "--check", *given(host="agent1", command="touch /tmp/x; echo done")).ok().stdout
    assert "done" not in shlex.split(said.splitlines()[0])
    assert "    ssh -t " in said
