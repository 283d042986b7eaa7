"""Strategies as schedules of weights."""

import itertools

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import (
    FULL,
    STRATEGIES,
    Host,
    ScheduleError,
    schedule,
    share,
)
from hypothesis import given
from hypothesis import strategies as st


def host(name, serves=True, instances=1):
    new = tuple(f"{name}-green-{number}" for number in range(1, instances + 1))
    old = tuple(f"{name}-blue-{number}" for number in range(1, instances + 1))
    return Host(name, new, old if serves else ())


FLEET = [host("agent1"), host("agent2"), host("agent3")]


def shares(stages, hosts):
    new = [server for one in hosts for server in one.new]
    return [round(share(stage.weights, new), 2) for stage in stages]


def test_the_three_strategies():
    assert shares(schedule("blue_green", FLEET), FLEET) == [1]
    assert shares(schedule("rolling", FLEET), FLEET) == [0.33, 0.67, 1]
    assert shares(schedule("canary", FLEET), FLEET) == [0.05, 0.25, 0.5, 1]


def test_a_batch_moves_together():
    stages = schedule("rolling", FLEET, batch=2)
    assert [stage.label for stage in stages] == ["agent1, agent2", "agent3"]
    assert shares(stages, FLEET) == [0.67, 1]


def test_where_nothing_serves_yet_all_begins_at_once():
    fleet = [host("agent1", serves=False), host("agent2", serves=False)]
    for strategy in STRATEGIES:
        assert len(schedule(strategy, fleet)) == 1


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"strategy": "yolo"}, "rolling, blue_green, canary"),
        ({"strategy": "canary", "steps": [5, 25]}, "steps=5,25"),
        ({"strategy": "canary", "steps": [50, 25, 100]}, "rise to 100"),
        ({"strategy": "canary", "steps": [0, 100]}, "from 1"),
        ({"strategy": "canary", "steps": []}, "steps="),
        ({"strategy": "rolling", "batch": 0}, "batch=0"),
    ],
)
def test_options_that_make_no_schedule_are_named(options, word):
    with pytest.raises(ScheduleError, match=word):
        schedule(hosts=FLEET, **options)


hosts = st.lists(
    st.builds(host, st.sampled_from("abcdefgh"), st.booleans(), st.integers(1, 3)),
    min_size=1,
    max_size=6,
    unique_by=lambda one: one.name,
)
steps = st.lists(st.integers(1, 99), max_size=5, unique=True).map(lambda some: [*sorted(some), FULL])


@given(st.sampled_from(sorted(STRATEGIES)), hosts, steps, st.integers(1, 4))
def test_every_schedule_ends_on_what_is_new_and_nobody_goes_back(strategy, hosts, steps, batch):
    stages = schedule(strategy, hosts, steps, batch)
    new = [server for one in hosts for server in one.new]
    assert share(stages[-1].weights, new) == 1
    for before, after in itertools.pairwise(stages):
        for server in new:
            assert after.weights[server] >= before.weights[server]
        for one in hosts:
            for server in one.old:
                assert after.weights[server] <= before.weights[server]
    assert all(0 <= weight <= FULL for stage in stages for weight in stage.weights.values())
