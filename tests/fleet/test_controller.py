"""A controller other than this machine: a Debian 13 desk, set up by the README's steps, runs the playbooks as well."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from support.fleet import TOP, Fleet, Result
from support.secrets import shown

pytestmark = pytest.mark.soak

DESK = Path(__file__).parent / "desk/hosts.yml"
AUTHORITIES = Path("/usr/local/share/ca-certificates")


def send(fleet: Fleet, archive: list[str], target: str, cwd: Path) -> None:
    """What the ARCHIVE command writes, unpacked in TARGET on the desk."""
    with subprocess.Popen(archive, cwd=cwd, stdout=subprocess.PIPE) as source:
        unpack = f"mkdir -p {target} && tar -x -C {target} --no-same-owner"
        subprocess.run([*fleet.ssh("desk1"), unpack], stdin=source.stdout, check=True)
    assert source.returncode == 0


@pytest.fixture(scope="module")
def desk(fleet: Fleet) -> Fleet:
    fleet.board(DESK, "desk1")
    if AUTHORITIES.is_dir():
        # A closed network's own authority: without it no package index is trusted.
        send(fleet, ["tar", "-c", "."], str(AUTHORITIES), AUTHORITIES)
        fleet.on("desk1", "update-ca-certificates").ok()
    fleet.on("desk1", "apt-get -q update && apt-get -q -y install git make python3").ok()
    bundle = TOP / ".cache/fleet-tests/desk.bundle"
    fleet.run("git", "bundle", "create", "--quiet", str(bundle), "HEAD", "main").ok()
    send(fleet, ["tar", "-c", bundle.name], "/root", bundle.parent)
    fleet.on("desk1", "git clone --quiet --branch main /root/desk.bundle /root/agentfleet").ok()
    send(fleet, ["tar", "-c", "inventories/lab/credentials"], "/root/agentfleet", TOP)
    send(fleet, ["tar", "-c", fleet.variables.name], "/root", fleet.variables.parent)
    fleet.on("desk1", "cd /root/agentfleet && UV_CACHE_DIR=/var/cache/agentfleet/uv make").ok()
    return fleet


def from_desk(fleet: Fleet, playbook: str, *options: str) -> Result:
    words = ["-i", "inventories/lab", f"playbooks/{playbook}.yml", "-e", f"@/root/{fleet.variables.name}", *options]
    return fleet.on("desk1", f"cd /root/agentfleet && ANSIBLE_NOCOLOR=1 .venv/bin/ansible-playbook {' '.join(words)}")


def test_desk_has_a_newer_ansible(desk: Fleet) -> None:
    version = desk.on("desk1", "/root/agentfleet/.venv/bin/ansible --version").ok().stdout
    core = version.splitlines()[0].split()[-1].rstrip("]")
    assert tuple(int(number) for number in core.split(".")[:2]) >= (2, 20), version


def test_site_from_the_desk_changes_nothing_and_tells_no_secret(desk: Fleet, values: dict[str, str]) -> None:
    run = from_desk(desk, "site", "-vvv", "--diff").ok()
    assert {host: count for host, count in run.changed().items() if count} == {}
    assert shown(run.stdout, values) == []


def test_deploy_from_the_desk(desk: Fleet) -> None:
    run = from_desk(desk, "deploy", "-e", "label=from-the-desk").ok()
    assert "from-the-desk" in run.stdout
    with desk.client() as client:
        assert client.post("/api/chat", json={"message": "Hello"}).status_code == 200
