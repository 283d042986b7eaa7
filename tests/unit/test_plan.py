"""The plan of a deploy: a table of states with what must come of each, and properties over all states."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import FULL, STRATEGIES
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import (
    Agent,
    Edge,
    Plan,
    Request,
    Slot,
    Step,
    judge,
    make_plan,
    serving,
    slot_weights,
    undo_of,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import Schema, unfit
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, other, server_names
from hypothesis import given, settings
from hypothesis import strategies as st

OLD, NEW = "1.0-000000000001", "2.0-000000000002"
LIVE = Slot(OLD, state="running", active=True, enabled=True)
WARM = Slot(OLD, state="running", active=True)
WANTED = Slot(NEW, matches=True, state="running", active=True, enabled=True)
INSTALLED = Slot(NEW, matches=True, state="stopped")


def weights(instances: int = 1, **full: str) -> dict[str, int]:
    """weights(agent1="blue", agent2="green"): those slots have all traffic."""
    return {
        server: FULL if slot in live.split("+") else 0
        for host, live in full.items()
        for slot in SLOTS
        for server in server_names(host, slot, instances)
    }


def edge(**full: str) -> Edge:
    return Edge("edge1", weights=weights(**full), artifacts=(OLD,), current=OLD)


def agent(name: str, blue: Slot = LIVE, green: Slot | None = None, **more: Any) -> Agent:
    return Agent(name, slots={"blue": blue, "green": green or Slot()}, **more)


def shape(plan: Plan) -> list[str]:
    def named(step: Step) -> str:
        return ",".join([f"{host}:{slot}" for host, slot in step.slots.items()] or step.hosts)

    return [f"{step.action} {named(step)}" for step in plan.steps]


def test_first_deploy() -> None:
    fleet = [agent("agent1", Slot()), agent("agent2", Slot())]
    plan = make_plan(fleet, [Edge("edge1", weights=weights(agent1="", agent2=""))], Request(NEW))
    assert shape(plan) == [
        "overwrite agent1:blue,agent2:blue",
        "store edge1",
        "install agent1:blue,agent2:blue",
        "migrate agent1:blue",
        "start agent1:blue,agent2:blue",
        "rollout edge1",
    ]
    assert plan.steps[-1].stages[-1].weights == weights(agent1="blue", agent2="blue")


def test_code_only_deploy_goes_to_the_idle_slots_and_retires_the_others() -> None:
    fleet = [agent("agent1"), agent("agent2", Slot(), LIVE)]
    plan = make_plan(fleet, [edge(agent1="blue", agent2="green")], Request(NEW))
    assert shape(plan) == [
        "overwrite agent1:green,agent2:blue",
        "store edge1",
        "install agent1:green,agent2:blue",
        "migrate agent1:green",
        "start agent1:green,agent2:blue",
        "rollout edge1",
        "retire agent1:blue,agent2:green",
    ]
    assert [step.critical for step in plan.steps] == [True, True, True, True, True, True, False]


def contracted(floor: str, *, knows: Schema | None = None, **full: str) -> Edge:
    """An edge whose database has this floor, with OLD in its store."""
    return replace(edge(**full), floor=floor, schemas={OLD: knows})


def test_what_does_not_know_the_floor_is_refused_before_anything() -> None:
    fleet = [agent("agent1")]
    there = contracted("0002", knows=Schema(("0001", "0002")), agent1="blue")
    for schema in (Schema(("0001",)), Schema(), None):
        plan = make_plan(fleet, [there], Request(NEW, schema=schema))
        assert (plan.verdict, plan.steps) == ("refused", ())
        assert plan.problems[0][1].startswith(f"release {NEW} ")
        assert "the database needs code that knows migration 0002" in plan.problems[0][1]
    assert make_plan(fleet, [there], Request(NEW, schema=Schema(("0001", "0002")))).verdict == "go"
    # An app that says nothing of migrations, on a database that needs nothing.
    assert make_plan(fleet, [replace(there, floor="")], Request(NEW)).verdict == "go"


def test_a_warm_slot_that_does_not_know_the_floor_is_no_way_back() -> None:
    warm = replace(WARM, matches=True)
    there = replace(contracted("0002", agent1="green"), current=NEW)
    fleet = [agent("agent1", warm, replace(LIVE, release=NEW))]
    assert make_plan(fleet, [there], Request(OLD, schema=Schema(("0001",)))).verdict == "refused"
    assert make_plan(fleet, [there], Request(OLD, schema=Schema(("0001", "0002")))).verdict == "go"


def test_a_floor_is_noted_before_the_migration_that_raises_it_and_only_then() -> None:
    fleet = [agent("agent1")]
    knows, contracts = Schema(("0001", "0002")), Schema(("0001", "0002", "0003"), "0002")
    plan = make_plan(fleet, [contracted("", knows=knows, agent1="blue")], Request(NEW, schema=contracts))
    assert [step.action for step in plan.steps][2:5] == ["install", "contract", "migrate"]
    assert next(step for step in plan.steps if step.action == "contract").floor == "0002"
    for floor in ("0002", "0003"):
        plan = make_plan(fleet, [contracted(floor, knows=knows, agent1="blue")], Request(NEW, schema=contracts))
        assert "contract" not in [step.action for step in plan.steps]


@pytest.mark.parametrize(
    ("knows", "brings", "pointed"),
    [
        (("0001",), ("0001", "0002"), True),
        (("0001", "0002"), ("0001", "0002"), False),
        (("0001", "0002"), ("0001",), False),
        (None, ("0001",), True),
        (("0001",), None, True),
    ],
)
def test_a_point_is_made_before_migrations_that_are_new(
    knows: tuple[str, ...] | None, brings: tuple[str, ...] | None, pointed: bool
) -> None:
    fleet = [agent("agent1")]
    there = contracted("", knows=None if knows is None else Schema(knows), agent1="blue")
    request = Request(NEW, schema=None if brings is None else Schema(brings), pointed=True)
    steps = [step.action for step in make_plan(fleet, [there], request).steps]
    assert ("point" in steps) is pointed
    if pointed:
        assert steps.index("point") == steps.index("migrate") - 1
    assert "point" not in [step.action for step in make_plan(fleet, [there], replace(request, pointed=False)).steps]
    # Before the first release there is nothing to go back to.
    first = make_plan([agent("agent1", Slot())], [Edge("edge1", weights=weights(agent1=""))], request)
    assert "point" not in [step.action for step in first.steps]


def test_a_migration_that_what_serves_would_not_outlive_is_refused() -> None:
    fleet = [agent("agent1")]
    contracts = Schema(("0001", "0002", "0003"), "0002")
    for knows in (Schema(("0001",)), None):
        there = contracted("", knows=knows, agent1="blue")
        plan = make_plan(fleet, [there], Request(NEW, schema=contracts))
        assert plan.verdict == "refused"
        assert f"release {OLD} serves and " in plan.problems[0][1]
    # Nobody is served yet: there is nothing to break.
    empty = [agent("agent1", Slot())]
    plan = make_plan(empty, [contracted("", agent1="")], Request(NEW, schema=contracts))
    assert plan.verdict == "go"


@pytest.mark.parametrize(("strategy", "stages"), [("blue_green", 1), ("rolling", 2), ("canary", 4)])
def test_a_strategy_is_only_another_schedule(strategy: str, stages: int) -> None:
    fleet = [agent("agent1"), agent("agent2")]
    there = edge(agent1="blue", agent2="blue")
    plan = make_plan(fleet, [there], Request(NEW, strategy=strategy))
    assert shape(plan) == shape(make_plan(fleet, [there], Request(NEW)))
    move = plan.steps[-2]
    assert (len(move.stages), move.before, move.smoke) == (stages, there.weights, True)
    assert move.stages[-1].weights == weights(agent1="green", agent2="green")


def test_what_only_gets_its_traffic_back_is_not_tried_again() -> None:
    there = Edge("edge1", weights=weights(agent1="green"), artifacts=(OLD,), current=NEW)
    warm = replace(WARM, matches=True)
    plan = make_plan([agent("agent1", warm, replace(LIVE, release=NEW))], [there], Request(OLD))
    assert shape(plan) == ["start agent1:blue", "rollout edge1", "retire agent1:green"]
    assert not plan.steps[1].smoke
    deployed = make_plan([agent("agent1", warm, replace(LIVE, release=NEW))], [there], Request(OLD, warm_tried=True))
    assert shape(deployed) == shape(plan)
    assert deployed.steps[1].smoke


def test_what_has_its_traffic_already_is_not_tried() -> None:
    there = Edge("edge1", weights=weights(agent1="green"), artifacts=(NEW,), current=OLD)
    live = replace(LIVE, release=NEW, matches=True)
    plan = make_plan([agent("agent1", replace(WARM, release=OLD), live)], [there], Request(NEW, warm_tried=True))
    assert [step.smoke for step in plan.steps if step.action == "rollout"] == [False]


def test_a_host_that_cannot_be_reached_is_left_out_only_when_that_is_allowed() -> None:
    fleet = [agent("agent1"), Agent("agent2", problem="agent2 cannot be reached", unreachable=True)]
    there = edge(agent1="blue", agent2="blue")
    assert make_plan(fleet, [there], Request(NEW)).verdict == "refused"
    plan = make_plan(fleet, [there], Request(NEW, allow_unreachable=True))
    assert (plan.verdict, plan.left_out) == ("go", ("agent2",))
    for step in plan.steps:
        assert "agent2" not in (*step.hosts, *step.slots)
        for stage in step.stages:
            assert stage.weights["agent2-blue-1"] == stage.weights["agent2-green-1"] == 0


def test_what_already_runs_needs_nothing() -> None:
    fleet = [agent("agent1", WANTED, WARM), agent("agent2", WARM, WANTED)]
    there = Edge("edge1", weights=weights(agent1="blue", agent2="green"), artifacts=(NEW,), current=NEW)
    plan = make_plan(fleet, [there], Request(NEW))
    assert (plan.verdict, plan.steps) == ("nothing", ())


def test_a_service_without_migration_and_with_two_instances() -> None:
    fleet = [agent("agent1", Slot(), migrates=False, instances=2)]
    plan = make_plan(fleet, [Edge("edge1", weights=weights(2, agent1=""), artifacts=(NEW,))], Request(NEW))
    assert shape(plan) == ["overwrite agent1:blue", "prepare agent1:blue", "rollout edge1"]
    assert [(step.action, step.slots) for step in plan.steps[1].undo] == [("stop", {"agent1": "blue"})]
    assert plan.steps[-1].stages[-1].weights == weights(2, agent1="blue")


def test_a_host_that_lacks_the_release_joins_and_the_others_stay() -> None:
    fleet = [agent("agent1", WANTED), agent("agent2", Slot())]
    there = Edge("edge1", weights=weights(agent1="blue", agent2=""), artifacts=(NEW,), current=NEW)
    plan = make_plan(fleet, [there], Request(NEW))
    assert shape(plan) == [
        "overwrite agent2:blue",
        "install agent2:blue",
        "migrate agent2:blue",
        "start agent2:blue",
        "rollout edge1",
    ]


def test_traffic_that_was_interrupted_half_way_is_moved_to_its_end() -> None:
    fleet = [agent("agent1", LIVE, WANTED), agent("agent2", LIVE, WANTED)]
    half = Edge("edge1", weights=weights(agent1="blue+green", agent2="blue"), artifacts=(NEW,), current=OLD)
    plan = make_plan(fleet, [half], Request(NEW))
    assert shape(plan) == ["start agent2:green", "rollout edge1", "retire agent1:blue,agent2:blue"]
    assert plan.steps[1].stages[-1].weights == weights(agent1="green", agent2="green")


def test_a_third_release_over_a_half_moved_one_first_empties_what_it_overwrites() -> None:
    half_new = replace(LIVE, release=NEW)
    fleet = [agent("agent1", LIVE, half_new), agent("agent2", LIVE, half_new)]
    plan = make_plan(fleet, [edge(agent1="blue+green", agent2="blue")], Request("3.0-000000000003"))
    assert shape(plan) == [
        "overwrite agent1:green,agent2:green",
        "store edge1",
        "install agent1:green,agent2:green",
        "migrate agent1:green",
        "start agent1:green,agent2:green",
        "rollout edge1",
        "retire agent1:blue,agent2:blue",
    ]
    assert plan.steps[5].before == weights(agent1="blue", agent2="blue")


def test_a_live_slot_that_died_is_not_what_gets_overwritten_unless_nothing_else_is_left() -> None:
    dead = replace(LIVE, state="failed", active=False)
    plan = make_plan([agent("agent1", dead, WARM)], [edge(agent1="blue+green")], Request(NEW))
    assert plan.targets == {"agent1": "blue"}
    plan = make_plan([agent("agent1", dead)], [edge(agent1="blue")], Request(NEW))
    assert plan.targets == {"agent1": "green"}


def test_the_way_back_stops_only_slots_that_the_deploy_started() -> None:
    dead = replace(WANTED, state="failed", active=False)
    fleet = [agent("agent1", dead), agent("agent2", LIVE, replace(WANTED, enabled=False)), agent("agent3", LIVE)]
    there = Edge("edge1", weights=weights(agent1="blue", agent2="blue", agent3="blue"), current=OLD)
    start = next(step for step in make_plan(fleet, [there], Request(NEW)).steps if step.action == "start")
    assert start.hosts == ("agent1", "agent2", "agent3")
    assert [back.slots for back in start.undo] == [{"agent3": "green"}]


def test_servers_of_hosts_that_left_the_inventory_lose_their_traffic() -> None:
    there = Edge("edge1", weights=weights(agent1="blue", gone="blue"), artifacts=(NEW,), current=NEW)
    plan = make_plan([agent("agent1", WANTED)], [there], Request(NEW))
    assert shape(plan) == ["rollout edge1"]
    assert plan.steps[0].stages[0].weights["gone-blue-1"] == 0


REFUSALS = [
    ("strategy", {"request": Request(NEW, strategy="yolo")}, "allowed: rolling, blue_green, canary"),
    ("no agents", {"agents": []}, "no host in group agents"),
    ("no edge", {"edges": []}, "no host in group edge"),
    ("unreachable", {"agents": [agent("agent1", problem="agent1 cannot be reached: no route")]}, "cannot be reached"),
    ("bare", {"agents": [agent("agent1", prepared=False)]}, "run site.yml first"),
    ("balancer", {"edges": [Edge("edge1", weights={})]}, "does not know agent1-blue-1, agent1-green-1"),
    ("disk", {"agents": [agent("agent1", disk_free_mb=10)], "request": Request(NEW, disk_mb=99)}, "10 MB of free disk"),
    ("port", {"agents": [agent("agent1", ports_taken={8150: "nginx"})]}, "port 8150 of agent1 is in use by nginx"),
    ("steps", {"request": Request(NEW, strategy="canary", steps=(5, 4))}, "rise to 100"),
    ("two edges", {"edges": [edge(agent1="blue"), Edge("edge2", weights=weights(agent1="blue"))]}, "one edge moves"),
    ("busy", {"edges": [replace(edge(agent1="blue"), busy="deploy of 9 is under way")]}, "under way"),
    ("no artifact", {"request": Request(NEW, artifact=False)}, "build it"),
]


@pytest.mark.parametrize(("case", "change", "says"), REFUSALS, ids=[case for case, *_ in REFUSALS])
def test_refusals_change_nothing_and_name_what_mends_it(case: str, change: dict[str, Any], says: str) -> None:
    state: dict[str, Any] = {"agents": [agent("agent1")], "edges": [edge(agent1="blue")], "request": Request(NEW)}
    state.update(change)
    plan = make_plan(state["agents"], state["edges"], state["request"])
    assert (plan.verdict, plan.steps) == ("refused", ())
    assert len(plan.problems) == 1
    assert says in plan.problems[0][1]


def test_a_port_of_the_other_slot_or_a_full_disk_do_not_matter_where_nothing_is_installed() -> None:
    held = agent("agent1", WANTED, disk_free_mb=1, ports_taken={8150: "nginx"})
    there = Edge("edge1", weights=weights(agent1="blue"), artifacts=(NEW,), current=NEW)
    assert make_plan([held], [there], Request(NEW, disk_mb=500)).verdict == "nothing"


def test_an_artifact_that_only_the_edge_has_will_do() -> None:
    there = Edge("edge1", weights=weights(agent1="blue"), artifacts=(NEW,), current=OLD)
    plan = make_plan([agent("agent1")], [there], Request(NEW, artifact=False))
    assert shape(plan)[:3] == ["overwrite agent1:green", "fetch edge1", "install agent1:green"]
    plan = make_plan([agent("agent1", has_release=True)], [there], Request(NEW, artifact=False))
    assert shape(plan)[:2] == ["overwrite agent1:green", "install agent1:green"]


def test_judging_takes_a_missing_result_for_a_failure() -> None:
    step = {"hosts": ["a", "b", "c", "d", "e"]}
    results = {
        "a": {"changed": True},
        "b": {"failed": True, "msg": "no disk"},
        "c": {"unreachable": True, "msg": "no route\nmore"},
        "d": {"skipped": True},
    }
    assert judge(step, results) == [
        ("b", "no disk"),
        ("c", "could not be reached: no route"),
        ("d", "gave no result"),
        ("e", "gave no result"),
    ]


# A world of hosts, on which plans are carried out with failures at will.


@dataclass
class World:
    agents: dict[str, Agent]
    edge: Edge
    request: Request
    unready: list[str] = field(default_factory=list)

    def set_slot(self, host: str, name: str, slot: Slot) -> None:
        self.agents[host] = replace(self.agents[host], slots={**self.agents[host].slots, name: slot})

    def change(self, host: str, name: str, **fields: Any) -> None:
        self.set_slot(host, name, replace(self.agents[host].slots[name], **fields))

    def do(self, step: Step) -> None:
        for host in step.hosts:
            self.do_on(step, host)

    def do_on(self, step: Step, host: str) -> None:
        name = step.slots.get(host, "")
        if step.action == "overwrite":
            gone = {f"{agent}-{slot}" for agent, slot in step.slots.items()}
            self.move({server: 0 for server in self.edge.weights if server.rpartition("-")[0] in gone})
        elif step.action == "fetch":
            assert self.request.release in self.edge.artifacts
        elif step.action == "store":
            self.edge = replace(self.edge, artifacts=(*self.edge.artifacts, self.request.release))
        elif step.action == "rollout":
            assert step.before == {server: self.edge.weights[server] for server in step.before}
            for stage in step.stages:
                self.move(stage.weights)
            self.edge = replace(self.edge, current=self.request.release)
        elif step.action == "install":
            # Overwriting stops the slot, so it must not serve.
            assert name not in serving(host, self.edge.weights)
            self.set_slot(host, name, Slot(self.request.release, matches=True, state="stopped"))
        elif step.action == "prepare":
            assert name not in serving(host, self.edge.weights)
            self.set_slot(host, name, Slot(self.request.release, True, "running", active=True, enabled=True))
        elif step.action == "start":
            assert self.agents[host].slots[name].matches
            self.change(host, name, state="running", active=True, enabled=True)
        elif step.action == "stop":
            assert name not in serving(host, self.edge.weights)
            self.change(host, name, state="stopped", active=False, enabled=False)
        elif step.action == "retire":
            assert name not in serving(host, self.edge.weights)
            self.change(host, name, enabled=False)

    def move(self, weights: Mapping[str, int]) -> None:
        for host in self.agents:
            for slot in SLOTS:
                before = sum(slot_weights(host, slot, self.edge.weights).values())
                after = sum(slot_weights(host, slot, {**self.edge.weights, **weights}).values())
                if after > before and not self.agents[host].slots[slot].running:
                    self.unready.append(f"{host}-{slot}")
        self.edge = replace(self.edge, weights={**self.edge.weights, **weights})

    def plan(self) -> Plan:
        return make_plan(list(self.agents.values()), [self.edge], self.request)

    def releases_serving(self) -> set[str | None]:
        return {
            self.agents[host].slots[slot].release for host in self.agents for slot in serving(host, self.edge.weights)
        }


slots = st.builds(
    Slot,
    release=st.sampled_from([None, OLD, NEW]),
    matches=st.booleans(),
    state=st.sampled_from(["empty", "damaged", "stopped", "starting", "running", "failed"]),
    active=st.booleans(),
    enabled=st.booleans(),
).map(
    lambda slot: (
        slot if slot.release == NEW and slot.state not in ("empty", "damaged") else replace(slot, matches=False)
    )
)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    instances = draw(st.integers(1, 2))
    names = [f"agent{number}" for number in range(1, draw(st.integers(1, 4)) + 1)]
    # One that left the inventory may still be in traffic.
    servers = [name for host in [*names, "gone"] for slot in SLOTS for name in server_names(host, slot, instances)]
    edge = Edge(
        "edge1",
        weights={server: draw(st.sampled_from([0, 0, 5, 100])) for server in servers},
        artifacts=draw(st.sampled_from([(), (OLD,), (NEW,)])),
        current=draw(st.sampled_from([None, OLD, NEW])),
    )
    agents = {}
    for name in names:
        both = {slot: draw(slots) for slot in SLOTS}
        agents[name] = Agent(name, slots=both, has_release=draw(st.booleans()), instances=instances)
    request = Request(
        NEW,
        strategy=draw(st.sampled_from(sorted(STRATEGIES))),
        batch=draw(st.integers(1, 3)),
        artifact=draw(st.booleans()) or NEW not in edge.artifacts,
    )
    return World(agents, edge, request)


@settings(max_examples=200, deadline=None)
@given(worlds())
def test_from_any_state_all_traffic_ends_on_one_release_and_a_second_run_has_nothing_to_do(world: World) -> None:
    plan = world.plan()
    assert plan.verdict in ("go", "nothing")
    for step in plan.steps:
        world.do(step)
    assert world.unready == []
    assert world.releases_serving() == {NEW}
    assert world.edge.weights["gone-blue-1"] == world.edge.weights["gone-green-1"] == 0
    for host in world.agents:
        assert serving(host, world.edge.weights) == {plan.targets[host]}
    for host, slot in plan.targets.items():
        assert world.agents[host].slots[slot].enabled
        assert not world.agents[host].slots[other(slot)].enabled
    again = world.plan()
    assert (again.verdict, again.steps) == ("nothing", ())


@settings(max_examples=200, deadline=None)
@given(worlds(), st.integers(0, 7), st.integers(0, 4))
def test_wherever_a_step_fails_the_way_back_never_stops_what_serves(world: World, at: int, done: int) -> None:
    plan = world.plan()
    steps = [step.__dict__ for step in plan.steps]
    for number, step in enumerate(plan.steps):
        if number != at:
            world.do(step)
            continue
        # It fails: only some of its hosts had done it, and the director goes back by itself.
        before = dict(world.edge.weights)
        if step.action != "rollout":
            for host in step.hosts[:done]:
                world.do_on(step, host)
        if not step.critical:
            break
        for back in undo_of(steps, number):
            world.do(back)
        if step.action != "overwrite":
            assert world.edge.weights == before
        break
    # And whatever was left, the next run brings it to its end.
    world.unready.clear()
    for step in world.plan().steps:
        world.do(step)
    assert world.releases_serving() == {NEW}
    assert world.unready == []


CHAIN = ("0001", "0002", "0003", "0004", "0005")
RELEASES = {f"{number}.0-00000000000{number}": CHAIN[:number] for number in range(1, 6)}


@st.composite
def lineages(draw: st.DrawFn) -> dict[str, Schema]:
    """Releases that each know one migration more, some of which contract."""
    floors = []
    highest = 0
    for number in range(len(CHAIN)):
        highest = draw(st.sampled_from([highest, *range(highest, number + 2)]))
        floors.append(CHAIN[highest - 1] if highest else "")
    return {name: Schema(known, floor) for (name, known), floor in zip(RELEASES.items(), floors, strict=True)}


@settings(max_examples=300, deadline=None)
@given(
    lineages(),
    st.lists(st.tuples(st.sampled_from(sorted(RELEASES)), st.none() | st.integers(0, 8)), min_size=1, max_size=8),
)
def test_whatever_is_deployed_or_gone_back_to_nothing_serves_that_the_database_has_left_behind(
    lineage: dict[str, Schema], deploys: list[tuple[str, int | None]]
) -> None:
    agents = {name: Agent(name, slots={slot: Slot() for slot in SLOTS}) for name in ("agent1", "agent2")}
    world = World(agents, Edge("edge1", weights=weights(agent1="", agent2="")), Request(""))
    floor = ""
    for release, fails_at in deploys:
        world.request = Request(release, schema=lineage[release])
        for host in world.agents:
            for name in SLOTS:
                world.change(host, name, matches=world.agents[host].slots[name].release == release)
        plan = world.plan()
        for number, step in enumerate(plan.steps):
            failed = number == fails_at
            if step.action == "contract":
                world.edge = replace(world.edge, floor=step.floor)
            if step.action == "migrate":
                # One that fails may have got as far as the floor.
                floor = max(floor, lineage[release].floor)
            if not failed:
                world.do(step)
            if step.action == "store":
                world.edge = replace(world.edge, schemas={**world.edge.schemas, release: lineage[release]})
            assert world.edge.floor >= floor
            for served in world.releases_serving():
                assert served is None or not unfit(served, lineage[served], floor)
            if failed and step.critical:
                for back in undo_of([one.__dict__ for one in plan.steps], number):
                    world.do(back)
                break
