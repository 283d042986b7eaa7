"""The way into a release: which slot it is, what of the service's unit it takes over, and what a person pastes."""

import importlib.machinery
import importlib.util
import shlex
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.action.console import ActionModule
from ansible_collections.agentfleet.vm.plugins.plugin_utils.access import CONSOLE, console_command

SCRIPT = Path(__file__).parents[2] / "roles/agent/files/agentfleet-console"
UNIT = """# Managed
[Unit]
Description=agent, slot %i
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
WatchdogSec=30
EnvironmentFile=/opt/agent/slots/%i/%i.env
ExecStart=/opt/agent/slots/%i/venv/bin/python -m uvicorn
TimeoutStopSec=315
KillMode=mixed
Restart=on-failure
RestartSec=5
User=agent
Environment=HOME=/tmp SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
LoadCredentialEncrypted=agent:/opt/agent/slots/%i/credentials
# why
ProtectSystem=strict
RemoveIPC=true
SystemCallFilter=@system-service
SystemCallFilter=~@privileged @resources

[Install]
WantedBy=multi-user.target
"""


@pytest.fixture(scope="module")
def console():
    loader = importlib.machinery.SourceFileLoader("agentfleet_console", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("agentfleet_console", loader))
    loader.exec_module(module)
    return module


def slots(console, blue="", green=""):
    """Of each slot's words `release`, `active` and `enabled`, those that hold."""

    def slot(words):
        given = words.split()
        return console.Slot("shop-1" if "release" in given else "", "venv", "active" in given, "enabled" in given)

    return {"blue": slot(blue), "green": slot(green)}


@pytest.mark.parametrize(
    ("blue", "green", "wanted", "chosen"),
    [
        ("release active enabled", "", "", "blue"),
        # The one before it is still warm.
        ("release active", "release active enabled", "", "green"),
        ("release active enabled", "release enabled", "", "blue"),
        # It serves no more, or not yet, but it is all there is.
        ("release enabled", "release", "", "blue"),
        ("release active enabled", "release", "green", "green"),
    ],
)
def test_the_slot_that_serves_is_chosen_unless_one_is_asked_for(console, blue, green, wanted, chosen):
    assert console.choose("agent", slots(console, blue, green), wanted) == chosen


@pytest.mark.parametrize(
    ("blue", "green", "wanted", "said"),
    [
        ("", "", "", "agent has no current release on this host; bring one with"),
        ("release", "release", "", "agent has no current release on this host"),
        ("active enabled", "", "", "agent has no current release on this host"),
        ("release active enabled", "", "green", "slot green of agent holds no release"),
        ("release active enabled", "release active enabled", "", "name one: blue or green"),
    ],
)
def test_without_one_slot_the_line_says_what_to_do(console, blue, green, wanted, said):
    with pytest.raises(console.Refusal, match=said):
        console.choose("agent", slots(console, blue, green), wanted)


def test_all_of_the_units_sandbox_is_taken_over_and_nothing_that_makes_it_a_service(console):
    assert console.properties(UNIT, "blue-1") == [
        "--property=EnvironmentFile=/opt/agent/slots/blue-1/blue-1.env",
        "--property=User=agent",
        "--property=Environment=HOME=/tmp SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
        "--property=LoadCredentialEncrypted=agent:/opt/agent/slots/blue-1/credentials",
        "--property=ProtectSystem=strict",
        "--property=SystemCallFilter=@system-service",
        "--property=SystemCallFilter=~@privileged @resources",
    ]


def test_a_commands_variables_are_left_to_it(console):
    words = console.outside("agent", "blue-1", UNIT, ["bash", "-c", "echo $AGENT_SLOT"], terminal=False)
    assert words[-4:] == ["--", "bash", "-c", "echo $$AGENT_SLOT"]
    assert "--pipe" in words
    assert "--pty" in console.outside("agent", "blue-1", UNIT, ["bash"], terminal=True)


def test_in_a_container_it_is_the_containers_python(console):
    words = console.in_container("agent", "blue-1", "python", "", terminal=True)
    assert words[:4] == ["docker", "exec", "--interactive", "--tty"]
    assert words[-3:] == ["agent-blue-1", "/opt/agent/venv/bin/python", "-q"]
    said = console.in_container("agent", "green-1", "shell", "id", terminal=False)
    assert "--tty" not in said
    assert said[-4:] == ["agent-green-1", "/bin/sh", "-c", "id"]


def test_psql_has_its_password_from_a_file_of_its_own(console, tmp_path, monkeypatch):
    (tmp_path / "agent_database_password").write_text("a:b\\c")
    monkeypatch.setattr(console, "PASSWORDS", tmp_path / "pgpass")
    given = {"AGENT_DATABASE_HOST": "10.0.0.31", "AGENT_DATABASE_PORT": "5432", "AGENT_DATABASE_USER": "agent"}
    environment = console.postgres(given, tmp_path)
    assert environment == {
        "PGHOST": "10.0.0.31",
        "PGPORT": "5432",
        "PGUSER": "agent",
        "PGPASSFILE": str(tmp_path / "pgpass"),
        "PGAPPNAME": "agentfleet-console",
    }
    assert (tmp_path / "pgpass").read_text() == "*:*:*:*:a\\:b\\\\c\n"
    assert (tmp_path / "pgpass").stat().st_mode & 0o777 == 0o600


def test_a_service_without_a_database_says_so(console, tmp_path):
    with pytest.raises(console.Refusal, match="agent_database_host is empty"):
        console.postgres({"AGENT_DATABASE_HOST": ""}, tmp_path)


@pytest.mark.parametrize(("user", "sudo"), [("root", ""), ("debian", "sudo "), ("your own", "sudo ")])
def test_what_is_pasted_asks_for_a_terminal_and_for_root(user, sudo):
    words = [CONSOLE, "agent", "python"]
    pasted = console_command("ssh -p 2222 debian@192.0.2.21", user, words)
    assert pasted == f"ssh -t -p 2222 debian@192.0.2.21 {sudo}{shlex.join(words)}"


def test_a_host_without_the_console_is_told_what_brings_it():
    reason = ActionModule._reason({"rc": 127, "stderr": "not found", "stdout": ""}, "agent1")
    assert reason.endswith("ansible-playbook playbooks/site.yml --limit agent1")
    said = {"rc": 3, "stderr": "agentfleet-console: both slots run", "stdout": ""}
    assert ActionModule._reason(said, "agent1") == "both slots run"
