"""Hosts that are upgraded, added and removed while the fleet serves."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.deploys import backend, power, serving
from support.fleet import Fleet, change_hosts, copy_inventory
from support.load import load_on

RATE = 20


def boots(fleet: Fleet, host: str) -> str:
    return fleet.on(host, "cat /proc/sys/kernel/random/boot_id").ok().stdout.strip()


def weights(fleet: Fleet) -> dict[str, int]:
    return {name: server["weight"] for name, server in backend(fleet)["servers"].items()}


@pytest.mark.soak
def test_agent_hosts_are_upgraded_and_rebooted_without_a_failed_request(fleet: Fleet) -> None:
    before = {host: boots(fleet, host) for host in ("agent1", "agent2", "data1")}
    moved = weights(fleet)
    with load_on(fleet, RATE) as requests:
        run = fleet.playbook("patch", "--limit", "agents", "-e", "reboot=always").ok()
    assert requests.failures == []
    assert all(f"{host}: " in run.stdout for host in ("agent1", "agent2"))
    assert "its requests went elsewhere" in run.stdout
    after = {host: boots(fleet, host) for host in before}
    assert {host for host in before if before[host] != after[host]} == {"agent1", "agent2"}
    assert weights(fleet) == moved
    assert {server["state"] for name, server in backend(fleet)["servers"].items() if moved[name]} == {"up"}


def test_an_upgrade_that_would_reboot_nothing_says_so(fleet: Fleet) -> None:
    run = fleet.playbook("patch", "--check").ok()
    assert "data1: " in run.stdout
    assert "no reboot" in run.stdout
    refused = fleet.playbook("patch", "-e", "reboot=perhaps")
    assert refused.returncode != 0
    assert "needed, always, never" in refused.stdout


@pytest.fixture
def larger(fleet: Fleet, tmp_path: Path) -> Path:
    """The lab's inventory with one more agent host."""
    inventory = copy_inventory(fleet.inventory, tmp_path / "larger")
    another = {"lab_suite": "bookworm", "ansible_host": "{{ lab_prefix }}.23"}
    change_hosts(inventory, lambda groups: groups["agents"]["hosts"].update(agent3=another))
    return inventory


@pytest.mark.soak
def test_an_agent_host_comes_and_goes_with_the_inventory(fleet: Fleet, larger: Path) -> None:
    release = serving(fleet)
    try:
        with load_on(fleet, RATE) as requests:
            fleet.playbook("lab", "-e", "lab_state=up", inventory=larger).ok()
            fleet.playbook("site", inventory=larger).ok()
            assert sum(weight for name, weight in weights(fleet).items() if name.startswith("agent3-")) == 100
            assert serving(fleet) == release
            fleet.playbook("site").ok()
            assert not any(name.startswith("agent3-") for name in weights(fleet))
        assert requests.failures == []
        assert serving(fleet) == release
    finally:
        power(fleet, "off", "agent3", inventory=larger)
