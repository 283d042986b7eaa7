"""The lab itself: survives a crash of the controller, a pulled plug and itself, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from ansible_collections.agentfleet.vm.plugins.module_utils.lab import nspawn_processes
from support.fleet import Fleet

HOSTS = ("one", "two")
DIRECTORY = Path("/var/lib/agentfleet-lab/hosts")


def inventory(path: Path, name: str, network: str) -> Path:
    prefix = network.rsplit(".", 1)[0]
    hosts = {
        "one": {"lab_suite": "bookworm", "ansible_host": f"{prefix}.11"},
        "two": {"lab_suite": "trixie", "ansible_host": f"{prefix}.12"},
    }
    path.mkdir()
    (path / "hosts.yml").write_text(yaml.safe_dump({"all": {"hosts": hosts}}))
    return path / "hosts.yml"


@pytest.fixture
def crash(tmp_path: Path) -> Iterator[tuple[Fleet, Path]]:
    """A lab of its own beside the session's."""
    name, network = f"c{os.getpid() % 10000}", "10.86.0.0/24"
    variables = tmp_path / "variables.yml"
    variables.write_text(yaml.safe_dump({"lab_name": name, "lab_network": network}))
    fleet, hosts = Fleet(name, network, variables), inventory(tmp_path / "inventory", name, network)
    yield fleet, hosts
    fleet.playbook("lab", "-e", "lab_state=down", inventory=hosts).ok()


def root(fleet: Fleet, host: str) -> Path:
    return DIRECTORY / fleet.name / host / "root"


def left_overs(fleet: Fleet) -> list[str]:
    """Whatever of the lab is still to be seen: mounts, bridge, rules, cgroups, disks, processes."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if f"/hosts/{fleet.name}/" in line]
    bridge = [str(path) for path in Path("/sys/class/net").glob(f"af-{fleet.name}")]
    tables = [line for line in fleet.run("nft", "list", "tables").stdout.splitlines() if fleet.name in line]
    cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"**/agentfleet-{fleet.name}-*")]
    disks = [str(path) for path in (DIRECTORY / fleet.name).glob("*")]
    processes = [str(pid) for host in HOSTS for pid in nspawn_processes(root(fleet, host))]
    return mounts + bridge + tables + cgroups + disks + processes


def test_boots_again_after_a_crash_and_goes_without_a_trace(crash: tuple[Fleet, Path]) -> None:
    fleet, hosts = crash
    fleet.playbook("lab", inventory=hosts).ok()
    assert fleet.playbook("lab", inventory=hosts).ok().changed() == {"localhost": 0}
    for host in HOSTS:
        for pid in nspawn_processes(root(fleet, host)):
            os.kill(pid, signal.SIGKILL)
        (root(fleet, host).parent / "upper" / "kept").write_text("a disk survives")
    run = fleet.playbook("lab", inventory=hosts).ok()
    assert run.changed() == {"localhost": 1}
    assert [host for host in HOSTS if not (root(fleet, host) / "kept").exists()] == []
    fleet.playbook("lab", "-e", "lab_state=down", inventory=hosts).ok()
    assert left_overs(fleet) == []


def test_pulls_one_plug_and_leaves_the_other_host_alone(crash: tuple[Fleet, Path]) -> None:
    fleet, hosts = crash
    fleet.playbook("lab", inventory=hosts).ok()
    other = nspawn_processes(root(fleet, "two"))
    fleet.playbook("lab", "-e", "lab_state=off", "-e", '{"lab_only": ["one"]}', inventory=hosts).ok()
    assert nspawn_processes(root(fleet, "one")) == []
    assert nspawn_processes(root(fleet, "two")) == other
    assert left_overs(fleet) != []


def test_refuses_an_unknown_host(crash: tuple[Fleet, Path]) -> None:
    fleet, hosts = crash
    run = fleet.playbook("lab", "-e", '{"lab_only": ["three"]}', inventory=hosts)
    assert run.returncode != 0
    assert "three" in run.stdout
    assert "one, two" in run.stdout
