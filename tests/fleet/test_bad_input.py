"""Bad input is refused before anything changes, by one clear line that names it and the command that mends it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from support.disks import IMAGE, mounting
from support.fleet import BIN, Fleet, Result, copy_inventory

HOSTS = ("edge1", "agent1", "agent2", "data1", "ops1")
# What provisioning writes to; a file that is made, removed or rewritten shows in the list.
STATE = (
    "{ find /etc /opt /usr/local /root /var/lib/dpkg -xdev -printf '%p %m %s %C@\\n' "
    "2>/dev/null; cat /var/lib/dpkg/status; systemctl list-unit-files --no-legend; } | sha256sum"
)
Attempt = Callable[..., str]


@pytest.fixture
def inventory(lab: Fleet, tmp_path: Path) -> Path:
    """The lab's inventory, to change one thing in."""
    return copy_inventory(lab.inventory, tmp_path / "lab")


@pytest.fixture
def attempt(lab: Fleet, inventory: Path) -> Attempt:
    """Run a playbook that must be refused; gives the line that says why, and there is only one."""

    def run(blamed: str, *options: str, playbook: str = "site", lines: int = 1) -> str:
        before = states(lab)
        result = lab.playbook(playbook, *options, inventory=inventory)
        assert result.returncode != 0, result.stdout
        recap = result.recap()
        assert {host for host, counts in recap.items() if counts["failed"] + counts["unreachable"]} == {blamed}
        assert set(result.changed().values()) == {0}
        assert states(lab) == before
        told = told_by(result)
        assert len(told) == lines, result.stdout
        return "\n".join(told)

    return run


def states(lab: Fleet) -> dict[str, str]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(HOSTS, pool.map(lambda host: lab.on(host, STATE).ok().stdout, HOSTS), strict=True))


def told_by(result: Result) -> list[str]:
    told = result.stdout.partition("FAILED!\n")[2].partition("\n\n")[0].splitlines()
    return [line for line in told if not line.startswith("skipping: ")]


@contextmanager
def spoiled(lab: Fleet, host: str, spoil: str, mend: str) -> Iterator[None]:
    """A host with one thing wrong, put right again whatever happens."""
    try:
        lab.on(host, spoil).ok()
        yield
    finally:
        lab.on(host, mend).ok()


def change(inventory: Path, **variables: object) -> None:
    """Set variables in the copy, or take those that are given as ... out of it."""
    path = inventory / "group_vars/all/secrets.yml"
    content = {**yaml.safe_load(path.read_text()), **variables}
    path.write_text(yaml.safe_dump({name: value for name, value in content.items() if value is not ...}))


@pytest.mark.parametrize("playbook", ["site", "deploy"])
def test_a_misspelt_name(attempt: Attempt, inventory: Path, playbook: str) -> None:
    change(inventory, agent_prot=8100)
    line = attempt("edge1", playbook=playbook)
    # deploy.yml asks nothing of the data host.
    told = "edge1 and 4 more hosts" if playbook == "site" else ", ".join(HOSTS[:3])
    assert line.startswith(f"{told}: unknown variable 'agent_prot' in {inventory}/group_vars/all/secrets.yml:")
    assert "did you mean 'agent_port'?" in line


def test_an_unknown_variable(attempt: Attempt, inventory: Path) -> None:
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars/agent2.yml").write_text("colour_of_the_sky: blue\n")
    line = attempt("agent2", "--check")
    assert line.startswith(f"agent2: unknown variable 'colour_of_the_sky' in {inventory}/host_vars/agent2.yml:1")
    assert "my_colour_of_the_sky" in line


def test_a_wrong_type(attempt: Attempt, inventory: Path) -> None:
    change(inventory, agent_port="eighty")
    assert "'agent_port' in " in (line := attempt("edge1"))
    assert "must be a whole number, not 'eighty'" in line


@pytest.mark.parametrize("playbook", ["site", "deploy"])
def test_a_missing_secret(attempt: Attempt, inventory: Path, playbook: str) -> None:
    change(inventory, agent_api_key=...)
    line = attempt("agent1", playbook=playbook)
    assert line.startswith("agent1, agent2: secret 'agent_api_key' is not set")
    assert f"ansible-vault create {inventory}/group_vars/all/vault.yml" in line


@pytest.mark.parametrize("value", ["CHANGE-ME", "k9Zq"])
def test_a_secret_that_is_none(attempt: Attempt, inventory: Path, value: str) -> None:
    change(inventory, agent_database_password=value)
    line = attempt("edge1", "--limit", "edge1")
    assert f"secret 'agent_database_password' in {inventory}/group_vars/all/secrets.yml:" in line
    assert "openssl rand -hex 24" in line
    assert value not in line


def test_a_host_without_python(attempt: Attempt, lab: Fleet) -> None:
    with spoiled(lab, "agent1", "mv /usr/bin/python3 /usr/bin/hidden", "mv /usr/bin/hidden /usr/bin/python3"):
        line = attempt("agent1")
    assert line.startswith("agent1: has no Python. Install it: ansible -i ")
    assert line.endswith(" agent1 -b -m ansible.builtin.raw -a 'apt-get update && apt-get install -y python3'")


def idle(lab: Fleet, host: str) -> tuple[str, int]:
    """A slot of HOST without traffic, and its port. Earlier tests may have deployed, and then it may still be warm."""
    told = lab.on("edge1", "agentfleet-director status --json")
    servers = json.loads(told.stdout)["backends"]["agent"]["servers"] if told.returncode == 0 else {}
    blue_serves = servers.get(f"{host}-blue-1", {}).get("weight", 0)
    return ("green-1", 8150) if blue_serves or not servers else ("blue-1", 8100)


def test_a_port_in_use_is_freed_by_the_command_that_is_told(attempt: Attempt, lab: Fleet) -> None:
    slot, port = idle(lab, "agent2")
    start = f"systemctl stop agent@{slot} 2>/dev/null; "
    start += f"systemd-run --quiet --unit=foreign python3 -m http.server {port}"
    # Listening, not only started.
    start += f" && until ss -Hltnp 'sport = :{port}' | grep -q python3; do sleep 0.1; done"
    with spoiled(lab, "agent2", start, "systemctl stop foreign 2>/dev/null; ! systemctl is-active --quiet foreign"):
        line = attempt("agent2")
        assert line.startswith(
            f"agent2: port {port} is held by 'python3' (foreign.service), and agent@{slot}.service needs it"
        )
        command = shlex.split(re.split(r" \(or set another agent_port\)", line.partition("Stop it: ")[2])[0])
        assert command[0] == "ansible"
        lab.run(str(BIN / command[0]), *command[1:], "-e", f"@{lab.variables}").ok()
        assert lab.on("agent2", "systemctl is-active foreign").stdout.strip() == "inactive"


def test_no_room_on_a_disk(attempt: Attempt, lab: Fleet) -> None:
    with spoiled(lab, "agent1", mounting("/opt", 64), f"umount /opt; rm -f {IMAGE}"):
        line = attempt("agent1")
    assert re.match(r"agent1: \d\d MB free on /opt; fleet_minimum_free_mb wants 1024\. Make room", line)
    assert "du -xhd2 /opt" in line


def test_another_operating_system(attempt: Attempt, lab: Fleet) -> None:
    release = 'ID=ubuntu\\nVERSION_ID="24.04"\\nPRETTY_NAME="Ubuntu 24.04.3 LTS"\\n'
    fake = f"printf '{release}' >/run/fake-release && mount --bind /run/fake-release /usr/lib/os-release"
    with spoiled(lab, "data1", fake, "umount /usr/lib/os-release"):
        line = attempt("data1")
    assert line.startswith("data1: runs Ubuntu 24.04.3 LTS; the fleet needs Debian 12 or 13")


def test_an_unreachable_host(attempt: Attempt, lab: Fleet, inventory: Path) -> None:
    (inventory / "host_vars").mkdir()
    (inventory / "host_vars/agent1.yml").write_text(f"ansible_host: {lab.prefix}.99\n")
    line = attempt("agent1")
    assert line.startswith(f"agent1: unreachable at {lab.prefix}.99 port 22: ")
    assert re.search(r"No route to host|timed out", line)
    assert f"Try: ssh -o UserKnownHostsFile={inventory}/credentials/known_hosts_{lab.name} " in line
    assert line.endswith(f" root@{lab.prefix}.99")


def test_a_misspelt_group(attempt: Attempt, inventory: Path) -> None:
    path = inventory / "hosts.yml"
    path.write_text(path.read_text().replace("agents:", "agenst:"))
    lines = attempt("edge1", "--limit", "edge1", lines=2)
    assert "fleet: group 'agents' has no host to answer them (is 'agenst' misspelt?)" in lines
    assert "agent1, agent2: is in none of the groups" in lines
    assert f"Correct the groups in {inventory}" in lines
