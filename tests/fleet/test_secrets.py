"""No secret shows: not in a task's output at -vvv, a process list, a unit, the journal or a file others may read."""

from __future__ import annotations

import pytest
from support.fleet import BLAB, HOSTS, Fleet, Result
from support.secrets import shown, watching


@pytest.fixture(scope="module")
def watched(fleet: Fleet, provisioning: dict[str, Result], process_lists: list[str]) -> tuple[list[Result], str]:
    """site.yml (the session's) and a deploy at -vvv with diffs, while every process list is read over and over."""
    with watching(fleet, HOSTS, process_lists):
        # A lab that an earlier run left has not been provisioned in this session.
        site = provisioning.get("again") or fleet.playbook("site", "-vvv", "--diff")
        deploy = fleet.playbook("deploy", "-vvv", "--diff", "-e", "label=secrets")
    return [site, deploy], "\n".join(process_lists)


def test_output_at_highest_verbosity(watched: tuple[list[Result], str], values: dict[str, str]) -> None:
    for run in watched[0]:
        assert shown(run.ok().stdout, values) == []


def test_process_lists_and_environments(watched: tuple[list[Result], str], values: dict[str, str]) -> None:
    assert "systemd" in watched[1]
    assert "AGENT_RELEASE" in watched[1]
    assert shown(watched[1], values) == []


@pytest.mark.parametrize("host", HOSTS)
def test_units_and_journal(fleet: Fleet, watched: object, values: dict[str, str], host: str) -> None:
    units = fleet.on(
        host, "cat /etc/systemd/system/*.service /run/systemd/transient/* 2>/dev/null; systemctl show '*'"
    ).stdout
    assert "ExecStart" in units
    assert shown(units, values) == []
    journal = fleet.on(host, "journalctl --no-pager -o export -b").ok().stdout
    # What test_diagnose.py had hosts blab is there on purpose.
    entries = [entry for entry in journal.split("\n\n") if f"\nSYSLOG_IDENTIFIER={BLAB}\n" not in entry]
    assert any("MESSAGE=" in entry for entry in entries)
    assert [shown(entry, values) for entry in entries if shown(entry, values)] == []


@pytest.mark.parametrize("host", HOSTS)
def test_files_that_others_may_read(fleet: Fleet, watched: object, values: dict[str, str], host: str) -> None:
    """As nobody: whatever lies open in configuration, state and the service's tree."""
    patterns = " ".join(f"-e '{value}'" for value in values.values())
    found = fleet.on(
        host,
        "setpriv --reuid=65534 --regid=65534 --clear-groups "
        f"grep -rlFs --exclude-dir=venvs {patterns} /etc /opt /var/lib /var/log /tmp /run",
    ).stdout
    assert found.strip() == ""


def test_nothing_at_rest_in_plain_text_on_agents(fleet: Fleet, watched: object, values: dict[str, str]) -> None:
    """Not even root reads a secret from the slots' files: they are encrypted credentials."""
    patterns = " ".join(f"-e '{value}'" for value in values.values())
    for host in ("agent1", "agent2"):
        credentials = fleet.on(host, "ls /opt/agent/slots/*/credentials/").ok().stdout
        assert "api_key" in credentials
        assert fleet.on(host, f"grep -rlF --exclude-dir=venvs {patterns} /opt /etc").stdout.strip() == ""


def test_the_search_itself_finds_a_secret(values: dict[str, str]) -> None:
    assert shown(f"x{values['api_key']}y", values) == ["api_key"]
