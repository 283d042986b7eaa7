"""Deploys through the front door: what ships, what it costs, what users notice, and what happens when it goes wrong."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.deploys import appended, committed
from support.fleet import TOP, Fleet, Result
from support.load import Load, load_on

MEGABYTE = 1_000_000
AGENTS = ("agent1", "agent2")


def module_runs(output: str, address: str) -> int:
    """Module tasks that a run at -vvv carried to a host: with pipelining, each is one Python fed over SSH."""
    executed = rf"^<{re.escape(address)}> SSH: EXEC .*/usr/bin/python3 && sleep 0"
    return len(re.findall(executed, output, re.MULTILINE))


@pytest.fixture(scope="module")
def changed_app(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone with one line of code changed and committed: the same lock, another release."""
    return committed(fleet, tmp_path_factory.mktemp("code-only") / "clone", appended("CHANGED = True\n"))


@pytest.fixture(scope="module")
def code_only(fleet: Fleet, changed_app: Path) -> tuple[Result, Load, dict[str, object], dict[str, object]]:
    """A code-only deploy under a constant load, with the status before and after."""
    before = fleet.status()
    with load_on(fleet, 20) as requests:
        run = fleet.playbook("deploy", "-vvv", "-e", f"agent_source={changed_app}")
    return run, requests, before, fleet.status()


def test_code_only_deploy_fails_no_request(
    code_only: tuple[Result, Load, dict[str, object], dict[str, object]],
) -> None:
    run, requests, before, after = code_only
    run.ok()
    assert requests.sent > 100
    assert requests.failures == []
    assert after["release"] != before["release"]
    assert list(after["traffic"]) == [after["release"]]


def test_code_only_deploy_ships_little_in_few_tasks(
    fleet: Fleet, code_only: tuple[Result, Load, dict[str, object], dict[str, object]]
) -> None:
    output = code_only[0].stdout
    for host in AGENTS:
        shipped = re.search(rf"^  sent: .*{host} (\d+) KB", output, re.MULTILINE)
        assert shipped, output[-3000:]
        assert 0 < int(shipped.group(1)) * 1024 < MEGABYTE
        assert 2 <= module_runs(output, fleet.address(host)) <= 5


def test_dependencies_were_reused(
    fleet: Fleet, code_only: tuple[Result, Load, dict[str, object], dict[str, object]]
) -> None:
    for host in AGENTS:
        assert fleet.on(host, "ls -d /opt/agent/venvs/*/ | wc -l").ok().stdout.strip() == "1"


def test_deploy_of_what_runs_changes_nothing(fleet: Fleet, code_only: object, changed_app: Path) -> None:
    run = fleet.playbook("deploy", "-e", f"agent_source={changed_app}").ok()
    assert set(run.changed().values()) == {0}
    assert "nothing" in run.stdout.lower()


def test_check_prints_the_plan_and_changes_nothing(fleet: Fleet, code_only: object) -> None:
    before = fleet.status()
    run = fleet.playbook("deploy", "--check", "-e", "label=never").ok()
    assert "never" in run.stdout
    after = fleet.status()
    assert (after["release"], after["traffic"]) == (before["release"], before["traffic"])


def test_changed_variable_is_a_deploy(fleet: Fleet, code_only: object, changed_app: Path) -> None:
    run = fleet.playbook("deploy", "-e", f"agent_source={changed_app}", "-e", "agent_log_level=debug").ok()
    assert all(run.changed()[host] > 0 for host in AGENTS)
    again = fleet.playbook("deploy", "-e", f"agent_source={changed_app}", "-e", "agent_log_level=debug").ok()
    assert set(again.changed().values()) == {0}


def test_release_that_never_starts_leaves_traffic_where_it_was(
    fleet: Fleet, code_only: object, changed_app: Path
) -> None:
    before = fleet.status()
    with load_on(fleet, 20) as requests:
        run = fleet.playbook(
            "deploy",
            "-e",
            f"agent_source={changed_app}",
            "-e",
            "agent_app=agent_service.missing:app",
            "-e",
            "agent_ready_seconds=20",
        )
    assert run.returncode != 0
    assert "agent_service.missing" in run.stdout
    assert requests.failures == []
    after = fleet.status()
    assert after["traffic"] == before["traffic"]


def test_next_deploy_needs_no_hand(fleet: Fleet, code_only: object) -> None:
    with load_on(fleet, 20) as requests:
        fleet.playbook("deploy", "-e", "label=after-failure").ok()
    assert requests.failures == []
    assert "after-failure" in str(fleet.status()["release"])


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("strategy=yolo", ("strategy", "blue_green")),
        ("wait_seconds=soon", ("wait_seconds",)),
        ("artifact=/nowhere.tar.gz", ("/nowhere.tar.gz",)),
        ("label=../../etc", ("label",)),
        ("stratgey=blue_green", ("stratgey", "strategy")),
    ],
)
def test_wrong_option_is_named_before_anything_changes(fleet: Fleet, option: str, words: tuple[str, ...]) -> None:
    run = fleet.playbook("deploy", "-e", option)
    assert run.returncode != 0
    assert all(word in run.stdout for word in words), run.stdout[-3000:]
    assert sum(run.changed().values()) == 0


def test_flipped_byte_in_the_artifact_is_refused(fleet: Fleet, tmp_path: Path) -> None:
    before = fleet.status()
    built = max((TOP / ".build").glob("*.tar.gz"), key=lambda path: path.stat().st_mtime)
    broken = bytearray(built.read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    copy = tmp_path / built.name
    copy.write_bytes(bytes(broken))
    run = fleet.playbook("deploy", "-e", f"artifact={copy}")
    assert run.returncode != 0
    assert built.name in run.stdout
    assert fleet.status()["traffic"] == before["traffic"]
