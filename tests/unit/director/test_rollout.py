"""A rollout from its smoke test to its end: stage by stage, and from any state through any trouble."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director import rollout as rollouts
from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Summary
from ansible_collections.agentfleet.vm.plugins.module_utils.director.rollout import Rollout, Seen, State, advance, begin
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import Host, schedule
from ansible_collections.agentfleet.vm.plugins.module_utils.director.verdict import Policy
from hypothesis import given, settings
from hypothesis import strategies as st

HOSTS = [Host(name, (f"{name}-green-1",), (f"{name}-blue-1",)) for name in ("agent1", "agent2")]
OLD = {"agent1-blue-1": 100, "agent2-blue-1": 100, "agent1-green-1": 0, "agent2-green-1": 0}
ALL = frozenset(OLD)
BLUE = frozenset(name for name in OLD if "blue" in name)
GREEN = ALL - BLUE
GOOD = Summary(answered=100, p50=0.1, p95=0.2)
BAD = Summary(answered=100, failed=30, p50=0.1, p95=0.2)


def rollout(strategy="canary", **options):
    options = {"bake_seconds": 10.0, **options}
    return Rollout(
        id="r1",
        backend="agent",
        kind="deploy",
        release="2",
        previous="1",
        strategy=strategy,
        stages=tuple(schedule(strategy, HOSTS)),
        before=OLD,
        slots={},
        **options,
    )


class World:
    """What a rollout acts on: weights, and what is ready; the clock is moved by hand."""

    def __init__(self, asked, ready=ALL, candidate=GOOD):
        self.asked, self.ready, self.candidate = asked, ready, candidate
        self.weights, self.now, self.smoke = dict(asked.before), 0.0, ""
        self.state = begin(asked, 0.0)
        self.moves, self.notes = [], []

    def step(self, seconds=1.0):
        seen = Seen(self.weights, frozenset(self.ready), self.smoke, self.candidate, GOOD)
        self.state, todo = advance(self.asked, self.state, seen, self.now)
        if todo.note:
            self.notes.append(todo.note)
        if todo.weights is not None:
            self.moves.append(dict(todo.weights))
            self.weights.update(todo.weights)
        self.now += seconds
        return todo

    def run(self, limit=500):
        for _ in range(limit):
            if self.state.over:
                return self
            self.step()
        raise AssertionError(f"not over: {self.state}")


def share(world):
    total = sum(world.weights.values())
    return sum(world.weights[name] for name in GREEN) / total


def test_a_good_canary_grows_step_by_step_and_is_promoted():
    world = World(rollout()).run()
    assert world.state.phase == "promoted"
    assert [sum(move[name] for name in GREEN) / 2 for move in world.moves] == [5, 25, 50, 100]
    assert [verdict["kind"] for verdict in world.state.verdicts] == ["pass"] * 4


def test_a_bad_canary_goes_back_at_its_first_stage():
    world = World(rollout(), candidate=BAD).run()
    assert (world.state.phase, share(world)) == ("reverted", 0)
    assert len(world.moves) == 2
    assert "30 % of its requests failed" in world.state.reason


def test_what_turns_bad_later_goes_back_from_there():
    world = World(rollout())
    while share(world) < 0.5:
        world.step()
    world.candidate = BAD
    world.run()
    assert (world.state.phase, world.weights) == ("reverted", OLD)


def test_nothing_moves_before_the_smoke_test_passed():
    world = World(rollout(smoke=True))
    world.smoke = None
    for _ in range(5):
        assert world.step().smoke
    world.smoke = "agent1-green-1: 500"
    world.run()
    assert (world.state.phase, world.moves) == ("reverted", [])


def test_a_slot_that_is_not_ready_gets_nothing():
    world = World(rollout("blue_green"), ready=BLUE).run()
    assert (world.state.phase, world.moves) == ("reverted", [])
    assert "not ready for traffic after 30 s" in world.state.reason


def test_rolling_waits_only_for_the_host_that_moves():
    world = World(rollout("rolling"), ready=ALL - {"agent2-green-1"})
    while world.state.stage == 0:
        world.step()
    assert world.weights["agent1-green-1"] == 100
    world.run()
    assert (world.state.phase, world.weights) == ("reverted", OLD)


def test_a_new_slot_that_goes_down_under_traffic_goes_back_after_a_few_seconds():
    world = World(rollout("blue_green", bake_seconds=300.0))
    while world.state.phase != "baking":
        world.step()
    world.ready = ALL - {"agent2-green-1"}
    began = world.now
    world.run()
    assert world.state.phase == "reverted"
    assert world.now - began <= 10


def test_without_figures_it_holds_then_goes_back_unless_that_is_accepted():
    world = World(rollout("blue_green"), candidate=Summary()).run()
    assert (world.state.phase, world.now > 70) == ("reverted", True)
    accepting = World(rollout("blue_green", policy=Policy(accept_no_data=True)), candidate=Summary()).run()
    assert accepting.state.phase == "promoted"


def test_figures_that_come_late_still_count():
    world = World(rollout("blue_green"), candidate=Summary())
    for _ in range(30):
        world.step()
    world.candidate = GOOD
    assert world.run().state.phase == "promoted"


def test_without_a_bake_nothing_is_judged():
    assert World(rollout("rolling", bake_seconds=0.0), candidate=BAD).run().state.phase == "promoted"


def test_weights_that_somebody_else_set_are_set_again():
    world = World(rollout("blue_green"))
    while world.state.phase != "baking":
        world.step()
    world.weights["agent1-blue-1"] = 50
    world.step()
    assert world.weights["agent1-blue-1"] == 0


def test_nobody_is_sent_back_to_a_release_that_is_dead():
    world = World(rollout("blue_green"), candidate=BAD)
    while world.state.phase != "baking":
        world.step()
    world.ready = GREEN
    world.run()
    assert (world.state.phase, share(world)) == ("promoted", 1)
    assert "nothing of 1 answers" in world.state.reason


def test_a_rollout_survives_being_written_down():
    asked = rollout(policy=Policy(p95_seconds=5))
    assert rollouts.rollout_from(asked.to_dict()) == asked
    state = State("baking", 3.0, 1, "why", ({"kind": "pass"},), {"a": 1.0})
    assert rollouts.state_from(state.to_dict()) == state


@pytest.mark.parametrize(
    "change", [{"stages": []}, {"colour": "red"}, {"stages": [{"label": "x"}]}, {"policy": {"x": 1}}]
)
def test_a_rollout_of_another_form_is_refused(change):
    with pytest.raises(ValueError, match="rollout"):
        rollouts.rollout_from(rollout().to_dict() | change)


summaries = st.sampled_from([GOOD, BAD, Summary(), Summary(answered=5, p50=0.1, p95=9.0)])
trouble = st.lists(
    st.tuples(
        st.sampled_from(["", "restart", "weights", "revert"]),
        st.sets(st.sampled_from(sorted(ALL))),
        summaries,
        st.sampled_from([None, "", "500"]),
        st.floats(0.1, 100),
    ),
    max_size=30,
)


@settings(max_examples=300)
@given(
    st.sampled_from(["rolling", "blue_green", "canary"]),
    st.booleans(),
    st.sampled_from([0.0, 10.0]),
    trouble,
    st.sampled_from([ALL, BLUE, GREEN]),
    summaries,
)
def test_through_any_trouble_it_ends_with_all_traffic_on_one_release(strategy, smoke, bake, troubles, last, figures):
    world = World(rollout(strategy, smoke=smoke, bake_seconds=bake))
    for what, ready, candidate, smoked, seconds in troubles:
        world.ready, world.candidate, world.smoke = ready, candidate, smoked
        if what == "restart":
            world.asked = rollouts.rollout_from(world.asked.to_dict())
            world.state = rollouts.state_from(world.state.to_dict())
        elif what == "weights":
            world.weights = dict.fromkeys(OLD, 17)
        elif what == "revert" and not world.state.over:
            world.state, _todo = rollouts.revert(world.state, world.now, "an operator")
        before = dict(world.weights)
        todo = world.step(seconds)
        for name, weight in (todo.weights or {}).items():
            # Back to what served, or on to what is ready: nothing else ever gains traffic.
            if weight > before[name] and name in GREEN:
                assert name in world.ready or world.state.phase in ("baking", "reverting")
    world.ready, world.candidate, world.smoke = last, figures, ""
    over = world.state.over
    world.run()
    if not over:
        carrying = {"blue" if "blue" in name else "green" for name, weight in world.weights.items() if weight}
        assert carrying == ({"green"} if world.state.phase == "promoted" else {"blue"})
