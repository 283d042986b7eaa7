"""diagnose.yml: one folder that tells what is wrong, and in which no secret of the fleet is found."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.fleet import BLAB, HOSTS, Fleet, Result, change_hosts, copy_inventory

# Of a slot alone, as one is that was rotated since: the controller does not know it.
OLD = "told-by-nobody-2f7c"
OLD_FILE = "/opt/agent/slots/green/credentials/stripe"


@pytest.fixture(scope="module")
def told(fleet: Fleet, values: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Path]:
    """A fleet that blabs: each secret in the journal of hosts that have it and of one that does not.

    It comes after more errors than a diagnosis has room for, which is about what went wrong last.
    """
    fleet.on("agent1", "seq 250 | logger -p user.err -t before").ok()
    for host in ("agent1", "edge1", "data1"):
        for name, value in values.items():
            fleet.on(host, f"logger -p user.err -t {BLAB} 'the {name} is {value}, and so it goes'").ok()
            fleet.on(host, f"logger -p user.err -t {BLAB} 'postgresql://shop:{value}@10.0.0.31/shop'").ok()
    fleet.on("agent1", f"logger -p user.err -t {BLAB} 'Authorization: Bearer unheard-of-4711-unheard-of'").ok()
    seal = f"mkdir -p {OLD_FILE.rpartition('/')[0]} && systemd-creds encrypt --name=agent_stripe - {OLD_FILE}"
    fleet.on("agent1", seal, stdin=OLD).ok()
    fleet.on("agent1", f"logger -p user.err -t {BLAB} 'paid with {OLD}'").ok()
    assert fleet.on("agent2", "systemd-run --quiet --unit=broken --service-type=oneshot /bin/false").returncode
    directory = tmp_path_factory.mktemp("diagnosis")
    run = fleet.playbook("diagnose", "-e", f"directory={directory}").ok()
    fleet.on("agent2", "systemctl reset-failed broken.service")
    fleet.on("agent1", f"rm {OLD_FILE}; rmdir {OLD_FILE.rpartition('/')[0]}")
    (folder,) = directory.iterdir()
    return run, folder


def test_every_host_and_its_sections_are_there(fleet: Fleet, told: tuple[Result, Path]) -> None:
    folder = told[1]
    assert folder.name.startswith(f"{fleet.name}-20")
    for host in HOSTS:
        names = {path.stem for path in (folder / host).iterdir()}
        assert {"system", "processes", "memory", "disk", "ports", "failed", "errors", "versions", "facts"} <= names
        assert "(not run" not in (folder / host / "processes.txt").read_text()
        assert "sshd" in (folder / host / "ports.txt").read_text()
    assert fleet.status()["release"] in (folder / "edge1/director.txt").read_text()
    assert "/ready" in (folder / "agent1/facts.txt").read_text()
    assert BLAB in (folder / "agent1/errors.txt").read_text()
    assert str(folder / "index.html") in told[0].stdout


def test_no_secret_is_in_the_folder_or_in_the_output(told: tuple[Result, Path], values: dict[str, str]) -> None:
    run, folder = told
    texts = {str(path): path.read_text() for path in folder.rglob("*") if path.is_file()} | {"output": run.stdout}
    found = [(name, path) for path, text in texts.items() for name, value in values.items() if value in text]
    assert found == []
    assert not [path for path, text in texts.items() if "unheard-of-4711" in text or OLD in text]
    assert "paid with ****" in (folder / "agent1/errors.txt").read_text()


def test_what_is_wrong_is_found_with_what_mends_it(told: tuple[Result, Path]) -> None:
    said = told[0].stdout
    assert "agent2: broken.service has failed\n    journalctl -u broken.service -n 50" in said
    # The lab's site has no name outside of it.
    assert "edge1: agent.lab.test " in said
    assert "/ready of" not in said
    assert "https://agent.lab.test/health" not in said
    page = (told[1] / "index.html").read_text()
    assert page.index("broken.service has failed") < page.index("<h2>Hosts</h2>")


@pytest.fixture
def with_a_dead_host(fleet: Fleet, tmp_path: Path) -> Path:
    """The inventory, with a host that was never booted."""
    inventory = copy_inventory(fleet.inventory, tmp_path / "lab")
    dead = {"lab_suite": "trixie", "ansible_host": fleet.address("agent3")}
    change_hosts(inventory, lambda groups: groups["agents"]["hosts"].update(agent3=dead))
    return inventory


@pytest.mark.soak
def test_a_database_that_is_down_and_a_host_that_is_silent_are_told(
    fleet: Fleet, with_a_dead_host: Path, tmp_path: Path
) -> None:
    fleet.on("data1", "systemctl stop 'postgresql@*'").ok()
    try:
        run = fleet.playbook("diagnose", "-e", f"directory={tmp_path}/out", inventory=with_a_dead_host)
    finally:
        fleet.on("data1", "systemctl start postgresql@17-main").ok()
    assert run.returncode
    assert "agent3: cannot be reached" in run.stdout
    assert "/ready of agent@" in run.stdout
    assert "says 503" in run.stdout


@pytest.mark.soak
def test_hosts_are_as_they_were(fleet: Fleet, tmp_path: Path) -> None:
    run = fleet.playbook("diagnose", "-e", f"directory={tmp_path}").ok()
    assert set(run.changed().values()) <= {0}
