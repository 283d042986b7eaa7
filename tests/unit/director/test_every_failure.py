"""Every step of a deploy, every host of one to three, every way to fail: it ends on one release, and the next one goes
through by itself."""

import itertools
import json
import os
from dataclasses import replace

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Director
from fake_fleet import EDGE, FAULTS, FakeFleet, Fault
from fake_haproxy import FakeHaproxy, FakeServer

STRATEGIES = ("rolling", "blue_green", "canary")
STEPS = ("overwrite", "store", "install", "point", "contract", "migrate", "start", "rollout", "retire")
WITHOUT_MIGRATION = ("overwrite", "store", "prepare", "rollout", "retire")


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Thousands of entries: that each is on the disk is another test's."""
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.fixture
def fleets(places, clock):
    """Makes fleets of so many hosts on release 1; each has its own director and journal."""
    running = []
    numbers = itertools.count()

    def make(count, migrates=True):
        hosts = [f"agent{number}" for number in range(1, count + 1)]
        servers = {f"{host}-{slot}-1": FakeServer(0, up=False) for host in hosts for slot in ("blue", "green")}
        here = places.directory.parent / str(next(numbers))
        here.mkdir()
        mine = replace(
            places,
            directory=here / "director",
            store=here / "store",
            runtime=str(here / "sock"),
            state_file=str(here / "state"),
        )
        haproxy = FakeHaproxy(mine.runtime, "agent", servers)
        haproxy.__enter__()
        running.append(haproxy)
        lines = "".join(f"    server {name} 10.0.0.1:8100 weight 0\n" for name in servers)
        (here / "haproxy.cfg").write_text(f"backend agent\n{lines}")
        fleet = FakeFleet(hosts, Director(replace(mine, config=str(here / "haproxy.cfg")), clock), haproxy, clock)
        fleet.migrates = migrates
        assert fleet.deploy("1", "blue_green").failures == {}
        assert set(fleet.serving().values()) == {"1"}
        return fleet

    yield make
    for haproxy in running:
        haproxy.__exit__()


def one_release(fleet):
    """All traffic is on one release, on slots that are ready wherever a host has power, and the director knows it."""
    found = fleet.serving()
    assert len(set(found.values())) == 1, found
    for server in found:
        if fleet.hosts[server.rsplit("-", 2)[0]].powered:
            assert fleet.slot_of(server).state == "running", server
    release = next(iter(found.values()))
    assert fleet.director.memory.current["agent"]["release"] == release
    return release


def next_deploy_needs_no_hand(fleet, clock, strategy):
    """Whatever was left: hosts have power again, a lease that nobody gave back lapses."""
    fleet.watch = lambda *_: None
    fleet.follows = True
    for host in fleet.hosts:
        fleet.power(host, True)
    clock.now += 31
    outcome = fleet.deploy("3", strategy)
    assert (outcome.phase, dict(outcome.failures)) == ("forward", {})
    assert one_release(fleet) == "3"
    again = fleet.deploy("3", strategy)
    assert again.phase == "nothing", again.lines


def truthful(fleet, outcome):
    """What is told is what is so, and a failure is never passed over."""
    release = one_release(fleet)
    told = outcome.lines[0]
    assert ("was not deployed" in told) <= (release == "1"), told
    assert ("2 serves" in told) <= (release == "2"), told
    assert outcome.failures
    if outcome.phase in ("back", "stuck"):
        assert release == "1"
        history = fleet.director.memory.history[-1]
        assert (history["release"], history["outcome"] in ("failed", "reverted")) == ("2", True)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(("order", "action"), [*((STEPS, action) for action in STEPS), (WITHOUT_MIGRATION, "prepare")])
def test_a_host_that_fails_at_a_step(fleets, clock, strategy, count, order, action):
    migrates = order is STEPS
    steps = fleets(count, migrates).deploy("2", strategy).plan["steps"]
    assert [step["action"] for step in steps] == list(order)
    number = order.index(action)
    for host, kind in itertools.product(steps[number]["hosts"], FAULTS):
        fleet = fleets(count, migrates)
        outcome = fleet.deploy("2", strategy, Fault(number, host, kind))
        truthful(fleet, outcome)
        next_deploy_needs_no_hand(fleet, clock, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_way_back_that_fails_as_well(fleets, clock, strategy, count):
    """The start fails on the last host, and stopping fails on each."""
    for host in fleets(count).hosts:
        for kind in FAULTS:
            fleet = fleets(count)
            fleet.watch = fails_its_gate(0)
            outcome = fleet.deploy("2", strategy, Fault(0, host, kind, back=True))
            truthful(fleet, outcome)
            next_deploy_needs_no_hand(fleet, clock, strategy)


def at(stage, do):
    """A watcher that acts once, while STAGE is watched."""
    done = []

    def watch(fleet, phase, number):
        if phase == "baking" and number == stage and not done:
            done.append(True)
            do(fleet)

    return watch


def fails_its_gate(stage):
    def errors(fleet):
        for _ in range(10):
            for server, release in fleet.serving().items():
                status = 500 if release == "2" else 200
                line = {"backend": "agent", "server": server, "status": status, "first": 5, "total": 9, "end": "--"}
                fleet.director.received(json.dumps({**line, "probe": "", "provider": ""}).encode())

    return at(stage, errors)


def stages(fleets, count, strategy):
    steps = fleets(count).deploy("2", strategy).plan["steps"]
    return range(len(steps[STEPS.index("rollout")]["stages"]))


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_gate_that_fails_at_a_stage(fleets, clock, strategy, count):
    for stage in stages(fleets, count, strategy):
        fleet = fleets(count)
        fleet.watch = fails_its_gate(stage)
        outcome = fleet.deploy("2", strategy)
        truthful(fleet, outcome)
        assert one_release(fleet) == "1"
        assert "% of its requests failed" in " ".join(outcome.failures.values())
        next_deploy_needs_no_hand(fleet, clock, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_host_that_dies_at_a_stage(fleets, clock, strategy, count):
    for stage in stages(fleets, count, strategy):
        for host in fleets(count).hosts:
            fleet = fleets(count)
            fleet.watch = at(stage, lambda fleet, host=host: fleet.power(host, False))
            outcome = fleet.deploy("2", strategy)
            if outcome.failures:
                truthful(fleet, outcome)
            # In a rolling deploy one that has nothing of the new release yet may die and come back unnoticed.
            one_release(fleet)
            next_deploy_needs_no_hand(fleet, clock, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("lost", ["controller", "director", "both"])
def test_whoever_is_lost_at_a_stage(fleets, clock, strategy, lost):
    """The controller is killed once the director has the rollout, the director anywhere in it."""
    for stage in stages(fleets, 2, strategy):
        fleet = fleets(2)
        fleet.follows = lost == "director"

        def restarted(fleet):
            fleet.director.journal.close()
            fleet.director = Director(fleet.director.places, clock)

        if lost != "controller":
            fleet.watch = at(stage, restarted)
        outcome = fleet.deploy("2", strategy)
        fleet.carry_on()
        assert one_release(fleet) == "2"
        if lost == "director":
            assert outcome.failures == {}
        else:
            assert outcome.phase == "left"
        next_deploy_needs_no_hand(fleet, clock, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_edge_that_is_lost_before_it_has_the_rollout(fleets, clock, strategy):
    for kind in FAULTS:
        fleet = fleets(2)
        truthful(fleet, fleet.deploy("2", strategy, Fault(STEPS.index("rollout"), EDGE, kind)))
        next_deploy_needs_no_hand(fleet, clock, strategy)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_traffic_that_was_left_in_the_slot_that_is_needed(fleets, clock, strategy):
    for host in fleets(3).hosts:
        fleet = fleets(3)
        fleet.deploy("2", strategy)
        left = next(name for name, server in fleet.haproxy.servers.items() if host in name and not server.weight)
        fleet.haproxy.servers[left].weight = 5
        next_deploy_needs_no_hand(fleet, clock, strategy)
