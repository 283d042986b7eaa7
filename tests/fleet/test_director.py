"""The director on real hosts: strategies under load, releases that misbehave, two deploys at once, the edge alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from support.deploys import backend, options, serving, shares, started, under_way, until
from support.fleet import Fleet
from support.load import load_on

RATE = 20


@pytest.mark.parametrize("strategy", [pytest.param("rolling", marks=pytest.mark.soak), "blue_green", "canary"])
def test_a_strategy_and_its_rollback_fail_no_request(fleet: Fleet, app: Path, stable: str, strategy: str) -> None:
    before = shares(fleet)
    with load_on(fleet, RATE) as requests:
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


@pytest.mark.soak
def test_a_second_rollback_goes_further_back_and_never_to_what_the_first_left(
    fleet: Fleet, app: Path, stable: str
) -> None:
    for label in ("one", "two"):
        fleet.playbook("deploy", *options(app, label, 0)).ok()
    fleet.playbook("rollback").ok()
    assert serving(fleet).startswith("one-")
    fleet.playbook("rollback").ok()
    assert shares(fleet) == {stable: 1.0}


def seconds_of(output: str, words: str) -> float:
    """When the director said WORDS, in seconds since its rollout began."""
    found = re.search(rf"^ +([0-9.]+) s  {words}", output, re.MULTILINE)
    assert found, output[-3000:]
    return float(found.group(1))


LATER = {"agent_environment": {"FAULT_AFTER": "20"}, "bake_seconds": 40}


@pytest.mark.parametrize(
    ("fault", "more"),
    [
        ("errors", {}),
        pytest.param("errors", LATER, marks=pytest.mark.soak, id="errors after 20 s"),
        pytest.param("slow", {"agent_gate_p95_seconds": 0.5}, marks=pytest.mark.soak),
        pytest.param("hang", {"agent_gate_overdue_seconds": 5}, marks=pytest.mark.soak),
    ],
)
def test_a_release_that_misbehaves_goes_back_by_itself(
    fleet: Fleet, app: Path, stable: str, fault: str, more: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Users' failures are at most what the schedule implies: share of the traffic, rate, seconds to the verdict."""
    smoke = {"agent_smoke_requests": [{"path": "/health"}]}
    words = {"strategy": "canary", "steps": "25,100", "bake_seconds": 15, **smoke, **more}
    with load_on(fleet, RATE) as requests:
        run = fleet.playbook("deploy", *options(app, fault, words.pop("bake_seconds"), fault, **words))
    assert run.returncode != 0
    assert shares(fleet) == {stable: 1.0}
    watched = seconds_of(run.stdout, "going back: fail") - seconds_of(run.stdout, "stage 1 of 2")
    implied = 0.25 * RATE * watched
    # Who is drawn is chance: three standard deviations of it.
    chance = 3 * (RATE * watched * 0.25 * 0.75) ** 0.5
    with capsys.disabled():
        print(f"\n{fault}: {len(requests.failures)} failed; 25 % of {RATE}/s for {watched:.1f} s is {implied:.0f}")
    assert len(requests.failures) <= implied + chance
    history = backend(fleet)["history"]
    assert (history[-1]["outcome"], history[-1]["verdicts"][-1]["kind"]) == ("reverted", "fail")


@pytest.mark.soak
def test_what_fails_the_smoke_test_has_no_users(fleet: Fleet, app: Path, stable: str) -> None:
    with load_on(fleet, RATE) as requests:
        run = fleet.playbook(
            "deploy",
            *options(app, "smoke", 5, "errors", agent_smoke_requests=[{"path": "/no-such-page"}]),
        )
    assert run.returncode != 0
    assert "GET /no-such-page at agent1" in run.stdout
    assert requests.failures == []
    assert shares(fleet) == {stable: 1.0}


@pytest.mark.soak
def test_two_at_once_are_one_and_the_other_is_told_who(fleet: Fleet, app: Path, stable: str) -> None:
    first = started(fleet, *options(app, "first", 8))
    until(under_way(fleet), "the first deploy's rollout")
    second = fleet.playbook("deploy", *options(app, "second", 0))
    output = first.communicate()[0]
    assert second.returncode != 0
    assert "has the lease for deploy" in second.stdout
    assert sum(second.changed().values()) == 0
    assert first.returncode == 0, output
    assert serving(fleet).startswith("first-")
    fleet.playbook("rollback").ok()


def test_the_edge_alone_rolls_back_drains_and_tells(fleet: Fleet, app: Path, stable: str) -> None:
    fleet.playbook("deploy", *options(app, "alone", 0)).ok()
    with load_on(fleet, RATE) as requests:
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
    with load_on(fleet, RATE) as requests:
        assert "has none" in fleet.playbook("drain", "-e", "host=agent1").ok().stdout
        seen = backend(fleet)["servers"]
        assert {server["state"] for name, server in seen.items() if name.startswith("agent1")} == {"drain"}
        fleet.playbook("drain", "-e", "host=agent1", "-e", "undo=true").ok()
    assert requests.failures == []
    refused = fleet.playbook("drain", "-e", "host=agent9")
    assert refused.returncode != 0
    assert "agent1, agent2" in refused.stdout
