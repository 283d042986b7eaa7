"""The fleet with `agent_runtime: docker`: into containers, on and back without a failed request, and shut in there."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from support.deploys import until
from support.disks import mounting
from support.fleet import TOP, Fleet, Result
from support.load import REQUEST, SOCKET, load_on

pytestmark = pytest.mark.soak

AGENTS = ("agent1", "agent2")
IMAGE = "lab-base:1"
DOCKER = {"agent_runtime": "docker", "agent_docker_image": IMAGE}
OWN_APP = {
    "agent_source": str(TOP / "tests/support/small_app"),
    "agent_app": "main:app",
    "agent_migrate_command": "",
    "agent_smoke_requests": [{"path": "/health"}],
}

# A host's own disk is an overlay, on which Docker would copy whole images for every container.
OWN_DISK = (
    f"mountpoint -q /var/lib/docker || {{ mkdir -p /var/lib/docker; {mounting('/var/lib/docker', 8192, 'docker')} }}"
)
# No registry can be reached from here: the host's own root file system has all that a base must have.
BASE = (
    f"docker image inspect {IMAGE} >/dev/null 2>&1 ||"
    " tar -C / --exclude='usr/*bin/docker*' --exclude='usr/*bin/containerd*' --exclude=usr/share/doc -c"
    " usr bin lib lib64 sbin etc/passwd etc/group etc/ld.so.cache etc/alternatives |"
    f" docker import - {IMAGE} >/dev/null"
)


def given(**words: object) -> list[str]:
    return ["-e", json.dumps(words)]


def state(fleet: Fleet, host: str, unit: str, name: str) -> str:
    return fleet.on(host, f"systemctl show --value -p {name} {unit}").ok().stdout.strip()


@pytest.fixture(scope="module")
def prepared(fleet: Fleet) -> Iterator[Result]:
    """Hosts that can run containers and whose service runs from venvs, now and afterwards."""
    for host in AGENTS:
        fleet.on(host, OWN_DISK).ok()
    run = fleet.playbook("site", "--limit", "agents", *given(**DOCKER)).ok()
    yield run
    fleet.playbook("site", "--limit", "agents").ok()
    fleet.playbook("deploy").ok()


@pytest.fixture(scope="module")
def based(fleet: Fleet, prepared: Result) -> None:
    """And have the image that containers are made on."""
    for host in AGENTS:
        fleet.on(host, BASE).ok()


@pytest.fixture(scope="module")
def contained(fleet: Fleet, based: None) -> Result:
    return fleet.playbook("deploy", *given(label="contained", **DOCKER)).ok()


@pytest.fixture
def paced(model_server: httpx.Client) -> Iterator[None]:
    model_server.post("/_control", json={"tokens_per_second": 2, "latency_seconds": 0.3}).raise_for_status()
    yield
    model_server.post("/_control", json={"reset": True}).raise_for_status()


def test_a_host_that_has_no_image_says_what_mends_it(fleet: Fleet, prepared: Result) -> None:
    refused = fleet.playbook(
        "deploy", *given(label="nothing", **{**DOCKER, "agent_docker_image": "nowhere.test/python:3"})
    )
    assert refused.returncode
    assert "docker save nowhere.test/python:3 | ssh HOST docker load" in refused.stdout
    assert "agent_docker_image" in refused.stdout


def test_slots_go_on_that_were_there_before_containers(fleet: Fleet, prepared: Result) -> None:
    """Between site.yml and deploy.yml a venv may crash: it has to come back as what it was."""
    unit = next(iter(fleet.on("agent1", "systemctl list-units --plain --no-legend 'agent@*'").ok().stdout.split()))
    before = state(fleet, "agent1", unit, "MainPID")
    fleet.on("agent1", f"systemctl kill --signal=KILL --kill-whom=main {unit}").ok()
    until(lambda: state(fleet, "agent1", unit, "MainPID") not in ("0", before), "the venv's restart")
    until(lambda: state(fleet, "agent1", unit, "ActiveState") == "active", "the venv's readiness")


def test_moving_into_containers_on_and_back_fails_no_request(fleet: Fleet, based: None, paced: None) -> None:
    with load_on(fleet, 50, streams=20, lasting=(10, 20), words_per_second=2) as load:
        load.wait_for(50)
        # From a venv into containers, from there to the next release, and back to the one before.
        first = fleet.playbook("deploy", *given(label="inside", **DOCKER)).ok()
        fleet.playbook("deploy", *given(label="second", **DOCKER)).ok()
        back = fleet.playbook("rollback", *given(**DOCKER)).ok()
    assert load.failures == []
    assert load.count(kind=REQUEST).answered > 100
    assert "release inside-" in first.stdout
    assert "release inside-" in back.stdout


def test_a_release_of_the_same_lock_reuses_the_dependencies(fleet: Fleet, contained: Result) -> None:
    for host in AGENTS:
        base = fleet.on(host, f"docker image inspect --format '{{{{.Id}}}}' {IMAGE}").ok().stdout
        tags = fleet.on(host, "docker image ls --format '{{.Tag}}' agent-dependencies").ok().stdout.split()
        assert len([tag for tag in tags if tag.endswith(base.removeprefix("sha256:")[:12])]) == 1


def serving(fleet: Fleet, host: str) -> tuple[str, str]:
    """The unit and the container of the host's slot that starts at boot."""
    links = fleet.on(host, "ls /etc/systemd/system/multi-user.target.wants").ok().stdout.split()
    unit = next(name for name in links if name.startswith("agent@"))
    return unit, unit.replace("@", "-").removesuffix(".service")


def test_a_container_can_do_nothing_else_and_tells_nobody_its_secrets(fleet: Fleet, contained: Result) -> None:
    unit, name = serving(fleet, "agent2")
    shown = json.loads(fleet.on("agent2", f"docker container inspect {name}").ok().stdout)[0]
    limits = shown["HostConfig"]
    assert (limits["ReadonlyRootfs"], limits["CapDrop"], limits["NetworkMode"]) == (True, ["ALL"], "host")
    assert limits["SecurityOpt"] == ["no-new-privileges"]
    user = fleet.on("agent2", "id -u agent").ok().stdout.strip()
    assert shown["Config"]["User"].split(":")[0] == user
    process = fleet.on("agent2", f"docker exec {name} cat /proc/1/status").ok().stdout
    assert "CapEff:\t0000000000000000" in process
    assert "NoNewPrivs:\t1" in process
    assert fleet.on("agent2", f"docker exec {name} touch /opt/agent/x").returncode
    started = fleet.on("agent2", f"tr '\\0' ' ' < /proc/{state(fleet, 'agent2', unit, 'MainPID')}/cmdline").ok().stdout
    assert "--memory=1073741824 --memory-swap=1073741824 --cpu-period=100000 --cpu-quota=200000" in started
    everything = json.dumps(shown) + fleet.on("agent2", "ps axeww").ok().stdout
    everything += fleet.on("agent2", "docker image inspect $(docker image ls -q agent)").ok().stdout
    for secret in ("api_key", "database_password", "redis_password"):
        assert fleet.secret(secret) not in everything
        said = fleet.on("agent2", f"docker exec {name} sh -c 'wc -c < $CREDENTIALS_DIRECTORY/agent_{secret}'").ok()
        assert int(said.stdout) == len(fleet.secret(secret))


def test_nothing_in_a_container_is_reached_past_the_firewall(fleet: Fleet, contained: Result) -> None:
    """Docker's published ports usually are: its rules come before UFW's."""
    address, port = fleet.address("agent1"), 9999
    serve = f"python3 -m http.server --bind 0.0.0.0 {port}"
    ask = f"python3 -c \"import urllib.request as r; print(r.urlopen('http://{address}:{port}/', timeout=3).status)\""
    try:
        fleet.on("agent1", f"docker run --detach --rm --name other --network=host {IMAGE} {serve}").ok()
        until(lambda: fleet.on("agent1", ask).stdout.strip() == "200", "the other container's answer")
        assert "timed out" in fleet.on("data1", ask).stdout
        fleet.on("agent1", "docker rm --force other").ok()
        # However it is asked to, Docker opens no port by itself.
        fleet.on("agent1", "docker network create other").ok()
        fleet.on(
            "agent1",
            f"docker run --detach --rm --name other --network=other -p {address}:{port}:{port} {IMAGE} {serve}",
        )
        assert "timed out" in fleet.on("data1", ask).stdout
    finally:
        fleet.on("agent1", "docker rm --force other; docker network rm other")
    rules = fleet.on("agent1", "iptables-save; ip6tables-save").ok().stdout
    assert "DOCKER" not in rules


def test_a_client_that_is_killed_leaves_no_container_behind(fleet: Fleet, contained: Result) -> None:
    unit, name = serving(fleet, "agent1")
    before = fleet.on("agent1", f"docker container inspect -f '{{{{.Id}}}}' {name}").ok().stdout
    fleet.on("agent1", f"systemctl kill --signal=KILL --kill-whom=main {unit}").ok()
    until(
        lambda: (
            fleet.on("agent1", f"docker container inspect -f '{{{{.Id}}}}' {name}").stdout not in ("", before)
            and state(fleet, "agent1", unit, "ActiveState") == "active"
        ),
        "another container",
    )
    fleet.playbook("deploy", *given(label="after-kill", **DOCKER)).ok()


def test_the_units_journal_has_the_containers_lines(fleet: Fleet, contained: Result) -> None:
    unit, _ = serving(fleet, "agent1")
    assert "Application startup complete" in fleet.on("agent1", f"journalctl --no-pager -u {unit}").ok().stdout


def test_an_own_app_with_websockets_runs_in_containers(fleet: Fleet, contained: Result) -> None:
    fleet.playbook("site", "--limit", "agents", *given(**DOCKER, **OWN_APP)).ok()
    fleet.playbook("deploy", *given(label="own", **DOCKER, **OWN_APP)).ok()
    with load_on(fleet, 10, sockets=4, lasting=(10, 20), seen=None) as load:
        load.wait_for(50)
        fleet.playbook("deploy", *given(label="own-second", **DOCKER, **OWN_APP)).ok()
        fleet.playbook("rollback", *given(**DOCKER, **OWN_APP)).ok()
    assert load.failures == []
    assert load.count(kind=SOCKET).answered >= 4
