"""The director on real hosts: strategies under load, releases that misbehave, and whatever may be lost half-way."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.fleet import TOP, Fleet, Result
from support.load import Load, load_on

RATE = 20


def status(fleet: Fleet) -> dict[str, Any]:
    return dict(json.loads(fleet.on("edge1", "agentfleet-director status --json").ok().stdout))


def shares(fleet: Fleet) -> dict[str, float]:
    """The part of the traffic that each release gets, by HAProxy's own weights."""
    seen = status(fleet)["backends"]["agent"]
    total: dict[str, float] = {}
    for name, server in seen["servers"].items():
        if server["weight"]:
            release = seen["slots"].get(name.rpartition("-")[0], "unknown")
            total[release] = total.get(release, 0) + server["weight"]
    return {release: weight / sum(total.values()) for release, weight in total.items()}


def until(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.3)


def under_way(fleet: Fleet, phase: str = "", share: float = 0.0) -> Callable[[], bool]:
    def seen() -> bool:
        rollout = status(fleet)["backends"]["agent"]["rollout"]
        return bool(rollout) and not rollout["over"] and phase in rollout["phase"] and rollout["share"] >= share

    return seen


def over(fleet: Fleet) -> bool:
    rollout = status(fleet)["backends"]["agent"]["rollout"]
    return not rollout or rollout["over"]


def load(fleet: Fleet) -> Load:
    return load_on(fleet, RATE)


@pytest.fixture(scope="module")
def app(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference app, committed anew so that it misbehaves when a variable says so."""
    clone = tmp_path_factory.mktemp("faulty") / "clone"
    fleet.run("git", "clone", "--quiet", str(TOP), str(clone)).ok()
    main = clone / "app/src/agent_service/main.py"
    main.write_text(main.read_text() + "\n" + (TOP / "tests/support/faulty.py").read_text())
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    fleet.run("git", "-C", str(clone), *who, "commit", "--quiet", "--all", "--message", "Misbehave on request").ok()
    return clone / "app"


@pytest.fixture
def stable(fleet: Fleet, app: Path) -> str:
    """A release that behaves, with all the traffic, whatever the test before left."""
    until(lambda: over(fleet), "the end of an earlier rollout")
    if not all(release.startswith("stable-") for release in shares(fleet)) or len(shares(fleet)) != 1:
        fleet.playbook("deploy", *options(app, "stable", 0)).ok()
    return next(iter(shares(fleet)))


def options(app: Path, label: str, bake: float, fault: str = "", **more: Any) -> list[str]:
    words = {"agent_source": str(app), "label": label, "bake_seconds": bake, **more}
    if fault:
        words["agent_environment"] = {"FAULT": fault}
    return ["-e", json.dumps(words)]


def started(fleet: Fleet, *words: str) -> subprocess.Popen[str]:
    """A deploy that goes on by itself, in a group of its own, as from another terminal."""
    return subprocess.Popen(
        fleet.command("deploy", *words),
        cwd=TOP,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str], number: signal.Signals = signal.SIGKILL) -> None:
    os.killpg(process.pid, number)
    process.wait()


@pytest.mark.parametrize("strategy", ["rolling", "blue_green", "canary"])
def test_a_strategy_and_its_rollback_fail_no_request(fleet: Fleet, app: Path, stable: str, strategy: str) -> None:
    before = shares(fleet)
    with load(fleet) as requests:
        run = fleet.playbook("deploy", *options(app, f"good-{strategy.replace('_', '-')}", 2, strategy=strategy)).ok()
        new = shares(fleet)
        back = fleet.playbook("rollback").ok()
    assert requests.failures == []
    assert requests.sent > 50
    assert new != before
    assert len(new) == 1
    assert shares(fleet) == before
    assert len(re.findall(r"s  stage \d of", run.stdout)) == {"rolling": 2, "blue_green": 1, "canary": 4}[strategy]
    assert all(sum(run.recap()[host].values()) > 0 for host in ("agent1", "agent2"))
    assert "serves" in back.stdout


def test_a_second_rollback_goes_further_back_and_never_to_what_the_first_left(
    fleet: Fleet, app: Path, stable: str
) -> None:
    for label in ("one", "two"):
        fleet.playbook("deploy", *options(app, label, 0)).ok()
    fleet.playbook("rollback").ok()
    assert next(iter(shares(fleet))).startswith("one-")
    fleet.playbook("rollback").ok()
    assert shares(fleet) == {stable: 1.0}


@pytest.mark.parametrize(
    ("fault", "more"),
    [("errors", {}), ("slow", {"agent_gate_p95_seconds": 0.5}), ("hang", {"agent_gate_overdue_seconds": 5})],
)
def test_a_release_that_misbehaves_goes_back_by_itself(
    fleet: Fleet, app: Path, stable: str, fault: str, more: dict[str, Any]
) -> None:
    smoke = {"agent_smoke_requests": [{"path": "/health"}]}
    with load(fleet) as requests:
        began = time.monotonic()
        run = fleet.playbook(
            "deploy", *options(app, fault, 15, fault, strategy="canary", steps="25,100", **more, **smoke)
        )
        seconds = time.monotonic() - began
    assert run.returncode != 0
    assert "going back: fail" in run.stdout
    assert shares(fleet) == {stable: 1.0}
    # A quarter of the requests at most, while it had them.
    assert len(requests.failures) <= 0.25 * RATE * seconds
    history = status(fleet)["backends"]["agent"]["history"]
    assert (history[-1]["outcome"], history[-1]["verdicts"][-1]["kind"]) == ("reverted", "fail")


def test_what_fails_the_smoke_test_has_no_users(fleet: Fleet, app: Path, stable: str) -> None:
    with load(fleet) as requests:
        run = fleet.playbook(
            "deploy",
            *options(app, "smoke", 5, "errors", agent_smoke_requests=[{"path": "/no-such-page"}]),
        )
    assert run.returncode != 0
    assert "GET /no-such-page at agent1" in run.stdout
    assert requests.failures == []
    assert shares(fleet) == {stable: 1.0}


def test_two_at_once_are_one_and_the_other_is_told_who(fleet: Fleet, app: Path, stable: str) -> None:
    first = started(fleet, *options(app, "first", 8))
    until(under_way(fleet), "the first deploy's rollout")
    second = fleet.playbook("deploy", *options(app, "second", 0))
    output = first.communicate()[0]
    assert second.returncode != 0
    assert "has the lease for deploy" in second.stdout
    assert sum(second.changed().values()) == 0
    assert first.returncode == 0, output
    assert next(iter(shares(fleet))).startswith("first-")
    fleet.playbook("rollback").ok()


def test_the_rollout_of_a_killed_controller_goes_on_and_the_next_deploy_waits_for_it(
    fleet: Fleet, app: Path, stable: str
) -> None:
    killed = started(fleet, *options(app, "killed", 40))
    until(under_way(fleet, "baking"), "the rollout")
    kill(killed)
    with load(fleet) as requests:
        run = fleet.playbook("deploy", *options(app, "after", 0)).ok()
    assert "waiting for its end" in run.stdout
    assert requests.failures == []
    assert next(iter(shares(fleet))).startswith("after-")


def test_a_controller_killed_while_it_prepares_leaves_nothing_to_mend(fleet: Fleet, app: Path, stable: str) -> None:
    killed = started(fleet, *options(app, "half", 0))

    def preparing() -> bool:
        return status(fleet)["lease"]["live"]

    until(preparing, "the lease")
    kill(killed, signal.SIGINT)
    with load(fleet) as requests:
        fleet.playbook("deploy", *options(app, "whole", 0)).ok()
        fleet.playbook("rollback").ok()
    assert requests.failures == []
    assert shares(fleet) == {stable: 1.0}


LOSSES = {
    "director": "systemctl kill --signal=KILL agentfleet-director",
    "balancer": "systemctl restart haproxy",
}


@pytest.mark.parametrize("what", sorted(LOSSES))
def test_a_rollout_goes_on_when_a_part_of_the_edge_is_lost(fleet: Fleet, app: Path, stable: str, what: str) -> None:
    run = started(fleet, *options(app, f"lost-{what}", 8))
    until(under_way(fleet, "baking"), "the rollout")
    fleet.on("edge1", LOSSES[what]).ok()
    output = run.communicate()[0]
    assert run.returncode == 0, output
    assert next(iter(shares(fleet))).startswith(f"lost-{what}")
    fleet.playbook("rollback").ok()
    assert shares(fleet) == {stable: 1.0}


def power(fleet: Fleet, state: str, host: str) -> Result:
    return fleet.playbook("lab", "-e", f"lab_state={state}", "-e", json.dumps({"lab_only": [host]})).ok()


def test_an_agent_host_that_loses_its_power_takes_the_release_back_and_comes_in_again(
    fleet: Fleet, app: Path, stable: str
) -> None:
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
    with load(fleet) as requests:
        run = fleet.playbook("deploy", *options(app, "light", 0, allow_unreachable=True)).ok()
        power(fleet, "up", "agent2")
        fleet.playbook("site", "--limit", "agents,edge", "-e", f"agent_source={app}").ok()
    assert requests.failures == []
    assert "without agent2" in run.stdout
    weights = {name: server["weight"] for name, server in status(fleet)["backends"]["agent"]["servers"].items()}
    assert sum(weight for name, weight in weights.items() if name.startswith("agent2")) == 100
    assert next(iter(shares(fleet))).startswith("light-")


def test_an_edge_that_reboots_goes_on_with_its_rollout(fleet: Fleet, app: Path, stable: str) -> None:
    run = started(fleet, *options(app, "rebooted", 20))
    until(under_way(fleet, "baking"), "the rollout")
    power(fleet, "off", "edge1")
    power(fleet, "up", "edge1")
    output = run.communicate()[0]
    until(lambda: over(fleet), "the end of the rollout")
    serving = next(iter(shares(fleet)))
    assert len(shares(fleet)) == 1
    assert serving.startswith("rebooted-") == (run.returncode == 0), output


def test_the_edge_alone_rolls_back_drains_and_tells(fleet: Fleet, app: Path, stable: str) -> None:
    fleet.playbook("deploy", *options(app, "alone", 0)).ok()
    with load(fleet) as requests:
        assert "promoted" in fleet.on("edge1", "agentfleet-director rollback").ok().stdout
        assert shares(fleet) == {stable: 1.0}
        assert "agent1: " in fleet.on("edge1", "agentfleet-director drain agent1").ok().stdout
        refused = fleet.on("edge1", "agentfleet-director drain agent2")
        assert refused.returncode != 0
        assert "agent2 is all that serves" in refused.stdout
        fleet.on("edge1", "agentfleet-director undrain agent1").ok()
    assert requests.failures == []
    history = fleet.on("edge1", "agentfleet-director history").ok().stdout
    assert re.search(r"rollback\s+promoted\s+stable-", history)


def test_drain_waits_for_what_is_under_way(fleet: Fleet, stable: str) -> None:
    with load(fleet) as requests:
        assert "has none" in fleet.playbook("drain", "-e", "host=agent1").ok().stdout
        seen = status(fleet)["backends"]["agent"]["servers"]
        assert {server["state"] for name, server in seen.items() if name.startswith("agent1")} == {"drain"}
        fleet.playbook("drain", "-e", "host=agent1", "-e", "undo=true").ok()
    assert requests.failures == []
    refused = fleet.playbook("drain", "-e", "host=agent9")
    assert refused.returncode != 0
    assert "agent1, agent2" in refused.stdout
