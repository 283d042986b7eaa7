"""Whatever may be lost half-way: each ends on one release, by itself, and the next deploy needs no hand."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from support.deploys import (
    backend,
    committed,
    director,
    haproxy,
    interrupt,
    kill,
    options,
    over,
    power,
    serving,
    shares,
    started,
    under_way,
    until,
)
from support.disks import small_disk
from support.fleet import Fleet
from support.load import load_on

RATE = 20


def test_the_rollout_of_a_killed_controller_goes_on_and_the_next_deploy_waits_for_it(
    fleet: Fleet, app: Path, stable: str
) -> None:
    killed = started(fleet, *options(app, "killed", 40))
    until(under_way(fleet, "baking"), "the rollout")
    kill(killed)
    with load_on(fleet, RATE) as requests:
        run = fleet.playbook("deploy", *options(app, "after", 0)).ok()
    assert "waiting for its end" in run.stdout
    assert requests.failures == []
    assert serving(fleet).startswith("after-")


def test_a_controller_killed_while_it_prepares_leaves_nothing_to_mend(fleet: Fleet, app: Path, stable: str) -> None:
    killed = started(fleet, *options(app, "half", 0))

    def preparing() -> bool:
        return director(fleet)["lease"]["live"]

    until(preparing, "the lease")
    interrupt(killed)
    with load_on(fleet, RATE) as requests:
        fleet.playbook("deploy", *options(app, "whole", 0)).ok()
        fleet.playbook("rollback").ok()
    assert requests.failures == []
    assert shares(fleet) == {stable: 1.0}


LOSSES = {
    "director": "systemctl kill --signal=KILL agentfleet-director",
    "balancer": "systemctl restart haproxy",
}


@pytest.mark.parametrize("what", ["balancer", "director"])
def test_a_rollout_goes_on_when_a_part_of_the_edge_is_lost(fleet: Fleet, app: Path, stable: str, what: str) -> None:
    run = started(fleet, *options(app, f"lost-{what}", 8))
    until(under_way(fleet, "baking"), "the rollout")
    fleet.on("edge1", LOSSES[what]).ok()
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert serving(fleet).startswith(f"lost-{what}")
    fleet.playbook("rollback").ok()
    assert shares(fleet) == {stable: 1.0}


def dark(fleet: Fleet, app: Path, stable: str) -> None:
    """A rollout during which a host's plug is pulled: back on the old release, and no deploy without that host."""
    run = started(fleet, *options(app, "dark", 30))
    until(under_way(fleet, "baking"), "the rollout")
    power(fleet, "off", "agent2")
    output = run.communicate()[0]
    assert run.returncode != 0
    assert "agent2-" in output
    assert "does not answer its health check" in output
    assert shares(fleet) == {stable: 1.0}
    refused = fleet.playbook("deploy", *options(app, "light", 0))
    assert refused.returncode != 0
    assert "agent2 cannot be reached" in refused.stdout


def test_an_agent_host_that_loses_its_power_takes_the_release_back(fleet: Fleet, app: Path, stable: str) -> None:
    dark(fleet, app, stable)
    power(fleet, "up", "agent2")

    def answers() -> bool:
        servers = backend(fleet)["servers"].items()
        return any(server["state"] == "up" for name, server in servers if name.startswith("agent2-"))

    until(answers, "agent2 with the release that it had")
    assert shares(fleet) == {stable: 1.0}


@pytest.mark.soak
def test_an_agent_host_that_was_away_comes_in_again(fleet: Fleet, app: Path, stable: str) -> None:
    dark(fleet, app, stable)
    with load_on(fleet, RATE) as requests:
        run = fleet.playbook("deploy", *options(app, "light", 0, allow_unreachable=True)).ok()
        power(fleet, "up", "agent2")
        fleet.playbook("site", "--limit", "agents,edge", "-e", f"agent_source={app}").ok()
    assert requests.failures == []
    assert "without agent2" in run.stdout
    weights = {name: server["weight"] for name, server in backend(fleet)["servers"].items()}
    assert sum(weight for name, weight in weights.items() if name.startswith("agent2")) == 100
    assert serving(fleet).startswith("light-")


def test_an_edge_that_reboots_goes_on_with_its_rollout(fleet: Fleet, app: Path, stable: str) -> None:
    run = started(fleet, *options(app, "rebooted", 20))
    until(under_way(fleet, "baking"), "the rollout")
    power(fleet, "off", "edge1")
    power(fleet, "up", "edge1")
    output = run.communicate()[0]
    until(lambda: over(fleet), "the end of the rollout")
    assert serving(fleet).startswith("rebooted-") == (run.returncode == 0), output


def test_a_database_that_is_down_is_named_and_leaves_the_old_release(fleet: Fleet, app: Path, stable: str) -> None:
    fleet.on("data1", "systemctl stop postgresql.service 'postgresql@*'").ok()
    try:
        run = fleet.playbook("deploy", *options(app, "no-database", 0))
    finally:
        fleet.on("data1", "systemctl start postgresql").ok()
    assert run.returncode != 0
    assert f"{fleet.address('data1')}" in run.stdout
    assert "the migration of agent failed" in run.stdout
    assert shares(fleet) == {stable: 1.0}
    with load_on(fleet, RATE) as requests:
        fleet.playbook("deploy", *options(app, "database-again", 0)).ok()
    assert requests.failures == []
    assert serving(fleet).startswith("database-again-")


@pytest.mark.soak
def test_a_database_that_goes_while_a_release_is_watched_costs_no_second_hand(
    fleet: Fleet, app: Path, stable: str
) -> None:
    run = started(fleet, *options(app, "database-gone", 20, strategy="canary", steps="50,100"))
    until(under_way(fleet, "baking"), "the rollout")
    fleet.on("data1", "systemctl stop postgresql.service 'postgresql@*'").ok()
    try:
        # Somebody asks, or there is nothing to judge.
        with load_on(fleet, RATE, seen=None):
            output = run.communicate()[0]
    finally:
        fleet.on("data1", "systemctl start postgresql").ok()
    assert serving(fleet) == stable, output
    assert run.returncode != 0
    with load_on(fleet, RATE) as requests:
        fleet.playbook("deploy", *options(app, "database-back", 0)).ok()
    assert requests.failures == []


def test_an_agent_host_whose_disk_is_full_keeps_the_fleet_on_the_old_release(
    fleet: Fleet, app: Path, stable: str
) -> None:
    with small_disk(fleet, "agent2", "/opt/agent/releases") as disk, load_on(fleet, RATE) as requests:
        disk.fill()
        run = fleet.playbook("deploy", *options(app, "no-room", 0))
        assert run.returncode != 0
        assert re.search(r"agent2.*No space left on device", run.stdout), run.stdout[-3000:]
        assert shares(fleet) == {stable: 1.0}
        disk.free()
        fleet.playbook("deploy", *options(app, "room", 0)).ok()
    assert requests.failures == []
    assert serving(fleet).startswith("room-")


@pytest.mark.soak
def test_an_edge_whose_disk_is_full_decides_nothing_until_there_is_room(fleet: Fleet, app: Path, stable: str) -> None:
    restart = "systemctl restart agentfleet-director"
    with small_disk(fleet, "edge1", "/var/lib/agentfleet/director", then=restart) as disk:
        run = started(fleet, *options(app, "edge-full", 20))
        until(under_way(fleet, "baking"), "the rollout")
        disk.fill()
        # The journal's last block has room for some lines yet.
        write = "agentfleet-director drain agent1 && agentfleet-director undrain agent1"
        until(lambda: "No space left" in fleet.on("edge1", write).stdout, "the end of the journal's room")
        # It takes effect, and says that it could not be noted.
        fleet.on("edge1", "agentfleet-director undrain agent1")
        until(lambda: director(fleet)["now"] > backend(fleet)["rollout"]["since"] + 22, "the end of the bake")
        assert not over(fleet)
        refused = fleet.on("edge1", "agentfleet-director abort")
        assert refused.returncode != 0
        assert "No space left on device" in refused.stdout
        disk.free()
        output = run.communicate()[0]
        assert run.returncode == 0, output
    assert serving(fleet).startswith("edge-full-")


@pytest.mark.soak
def test_a_migration_that_fails_leaves_the_old_release(fleet: Fleet, app: Path, stable: str, tmp_path: Path) -> None:
    def change(app: Path) -> None:
        versions = app / "migrations/versions"
        newest = max(re.findall(r'^revision = "(\w+)"', path.read_text(), re.M)[0] for path in versions.glob("*.py"))
        lines = ("from alembic import op", 'revision = "9999"', f'down_revision = "{newest}"', "", "")
        body = 'def upgrade() -> None:\n    op.execute("SELECT no_such_column FROM messages")\n'
        (versions / "9999_broken.py").write_text("\n".join(lines) + body)

    with load_on(fleet, RATE) as requests:
        run = fleet.playbook("deploy", *options(committed(fleet, tmp_path / "clone", change), "broken", 0))
    assert run.returncode != 0
    assert "no_such_column" in run.stdout
    assert requests.failures == []
    assert shares(fleet) == {stable: 1.0}
    fleet.playbook("deploy", *options(app, "mended", 0)).ok()


def idle_connections(fleet: Fleet, host: str) -> int:
    """How many the balancer keeps open to a host for later requests."""
    names, *rows = haproxy(fleet, "show servers conn agent")
    # The heading's first word is its mark.
    column = names.index("idle_cur") - 1
    return sum(int(row[column]) for row in rows if f"/{host}-" in row[0])


@pytest.mark.soak
def test_a_host_whose_network_is_cut_is_judged_within_20_seconds(fleet: Fleet, app: Path, stable: str) -> None:
    """No FIN, no RST: nothing says that it is gone."""
    link = f"vb-{fleet.name}-agent2"
    run = started(fleet, *options(app, "cut", 60))
    until(under_way(fleet, "baking"), "the rollout")
    assert idle_connections(fleet, "agent2")
    subprocess.run(["ip", "link", "set", link, "down"], check=True)
    cut_at = time.time()
    try:
        until(lambda: over(fleet), "the director's judgement")
        output = run.communicate()[0]
        # One that is left would fail the first request that is given to it when the host is back.
        until(lambda: not idle_connections(fleet, "agent2"), "the end of the balancer's connections to it")
    finally:
        subprocess.run(["ip", "link", "set", link, "up"], check=True)
    assert run.returncode != 0
    assert "agent2-" in output
    assert "does not answer its health check" in output
    assert backend(fleet)["rollout"]["since"] - cut_at < 20
    assert shares(fleet) == {stable: 1.0}
    fleet.playbook("deploy", *options(app, "linked", 0)).ok()


@pytest.mark.soak
def test_a_controller_that_slept_changes_nothing_when_it_wakes(fleet: Fleet, app: Path, stable: str) -> None:
    asleep = started(fleet, *options(app, "asleep", 0))
    until(lambda: director(fleet)["lease"]["live"], "the lease")
    generation = director(fleet)["lease"]["generation"]
    note = Path(tempfile.gettempdir()) / f"agentfleet-{asleep.pid}-{generation}.lease"
    pids = [*family(asleep.pid), int(note.read_text())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    awake = fleet.playbook("deploy", *options(app, "awake", 0)).ok()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)
    output = asleep.communicate()[0]
    assert "waiting for the lease to lapse" in awake.stdout
    assert asleep.returncode != 0
    assert re.search(r"lease.*is over|since .* began deploy", output), output[-3000:]
    assert serving(fleet).startswith("awake-")
    fleet.playbook("deploy", *options(app, "rested", 0)).ok()


def family(pid: int) -> list[int]:
    """A process and all that it started."""
    parents: dict[int, list[int]] = {}
    for line in subprocess.run(["ps", "-eo", "pid=,ppid="], stdout=subprocess.PIPE, check=True).stdout.splitlines():
        child, parent = (int(word) for word in line.split())
        parents.setdefault(parent, []).append(child)
    found = [pid]
    for one in found:
        found += parents.get(one, [])
    return found


@pytest.mark.soak
def test_a_module_that_outlives_its_playbook_changes_nothing(fleet: Fleet, app: Path, stable: str) -> None:
    lock = "/run/lock/agentfleet-agent.lock"
    fleet.on("agent2", f"systemd-run --unit=holder flock --close {lock} sleep infinity").ok()
    try:
        until(lambda: len(openers(fleet, "agent2", lock)) == 1, "who holds the lock")
        holders = openers(fleet, "agent2", lock)
        orphaned = started(fleet, *options(app, "orphaned", 0))
        until(lambda: len(openers(fleet, "agent2", lock) - holders) == 1, "a module that waits for the lock")
        (module,) = openers(fleet, "agent2", lock) - holders
        fleet.on("agent2", f"kill -STOP {module}").ok()
        kill(orphaned)
    finally:
        fleet.on("agent2", "systemctl stop holder").ok()
    fleet.playbook("deploy", *options(app, "rightful", 0)).ok()
    before = fleet.on("agent2", "cat /opt/agent/slots/*/slot.json").ok().stdout
    fleet.on("agent2", f"kill -CONT {module}").ok()
    until(lambda: not openers(fleet, "agent2", lock), "the end of the module")
    assert fleet.on("agent2", "cat /opt/agent/slots/*/slot.json").ok().stdout == before
    assert serving(fleet).startswith("rightful-")


def openers(fleet: Fleet, host: str, path: str) -> set[int]:
    """The processes of HOST that have PATH open."""
    look = f"for of in /proc/[0-9]*; do ls -l $of/fd 2>/dev/null | grep -q {path} && basename $of; done; true"
    return {int(number) for number in fleet.on(host, look).ok().stdout.split()}
