"""The plan of a deploy: from what the fleet is and what is asked to an ordered list of steps, or the reason why not.

Pure: no host, no clock. Whoever carries a plan out asks after every step what it came to (`judge`) and, when a step
failed, for the way back (`undo_of`). Every plan has one shape: make the wanted slots ready, hand the director a
schedule of weights, then let the old slots go. A strategy is only another schedule.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import (
    CANARY_STEPS,
    FULL,
    Host,
    ScheduleError,
    Stage,
    schedule,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import Schema, left_behind, raises, unfit
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, other, place_of, ports, server_names

Weights = Mapping[str, int]
Targets = Mapping[str, str]


@dataclass(frozen=True)
class Slot:
    """One slot of one host; `matches` tells whether it is what the request wants."""

    release: str | None = None
    matches: bool = False
    state: str = "empty"
    active: bool = False
    enabled: bool = False

    @property
    def running(self) -> bool:
        return self.state == "running"


@dataclass(frozen=True)
class Agent:
    """One agent host as it was observed; `problem` tells why it could not be."""

    name: str
    problem: str = ""
    unreachable: bool = False
    prepared: bool = True
    migrates: bool = True
    port: int = 8100
    instances: int = 1
    slots: Mapping[str, Slot] = field(default_factory=lambda: {slot: Slot() for slot in SLOTS})
    has_release: bool = False
    disk_free_mb: int = 1 << 30
    ports_taken: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Edge:
    """One edge host: the weights of its balancer's servers, its release store, and what its director has under way.

    `floor` is the migration that the database needs its code to know, `schemas` what each stored release knows.
    """

    name: str
    problem: str = ""
    weights: Weights = field(default_factory=dict)
    artifacts: tuple[str, ...] = ()
    current: str | None = None
    busy: str = ""
    floor: str = ""
    schemas: Mapping[str, Schema | None] = field(default_factory=dict)


@dataclass(frozen=True)
class Request:
    """What is asked for. `artifact` tells whether the controller has it; `steps` are a canary's percents,
    `batch` is how many hosts a rolling deploy moves at a time, `follow` whether anybody waits for the end. `schema` is
    None of a release that does not say which migrations it knows. `warm_tried` has slots tried before users get them
    even where they ran all the time: what is around them may have changed since they served. `pointed` tells whether
    the database's log can be given a point to restore to.
    """

    release: str
    strategy: str = "blue_green"
    steps: tuple[int, ...] = CANARY_STEPS
    batch: int = 1
    disk_mb: int = 0
    artifact: bool = True
    allow_unreachable: bool = False
    follow: bool = True
    schema: Schema | None = None
    warm_tried: bool = False
    pointed: bool = False


@dataclass(frozen=True)
class Step:
    """One thing that some hosts do at the same time. A failure of one that is not `critical` stops nothing.

    `slots` names the slot of each agent host. A rollout has its stages, the weights from which it begins, and whether
    the slots are to be tried before users get them.
    """

    action: str
    hosts: tuple[str, ...]
    slots: Targets = field(default_factory=dict)
    floor: str = ""
    stages: tuple[Stage, ...] = ()
    before: Weights = field(default_factory=dict)
    smoke: bool = False
    critical: bool = True
    undo: tuple[Step, ...] = ()


@dataclass(frozen=True)
class Plan:
    """`verdict` is go, nothing or refused; problems name the host that each is about, or none."""

    verdict: str
    release: str
    problems: tuple[tuple[str, str], ...] = ()
    steps: tuple[Step, ...] = ()
    targets: Targets = field(default_factory=dict)
    left_out: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def servers_of(agent: Agent, slot: str) -> list[str]:
    return server_names(agent.name, slot, agent.instances)


def final_weights(agents: Sequence[Agent], targets: Targets) -> dict[str, int]:
    """All traffic on the wanted slot of every host."""
    return {
        server: FULL if slot == targets[agent.name] else 0
        for agent in agents
        for slot in SLOTS
        for server in servers_of(agent, slot)
    }


def make_plan(agents: Sequence[Agent], edges: Sequence[Edge], request: Request) -> Plan:
    """The plan that brings every agent host to what is asked, with all traffic on it."""
    try:
        schedule(request.strategy, (), request.steps, request.batch)
    except ScheduleError as error:
        return refused(request, [("", str(error))])
    left_out = tuple(agent.name for agent in agents if agent.unreachable) if request.allow_unreachable else ()
    agents = [agent for agent in agents if agent.name not in left_out]
    problems = unready_hosts(agents, edges)
    if problems:
        return refused(request, problems)
    before = observed_weights(agents, edges)
    current = next((edge.current for edge in edges if edge.current), None)
    targets = {agent.name: wanted_slot(agent, before, current) for agent in agents}
    problems = schema_problems(agents, before, edges, request) + obstacles(agents, targets, edges, request)
    if problems:
        return refused(request, problems)
    steps = all_steps(agents, edges, targets, before, request)
    return Plan("go" if steps else "nothing", request.release, (), tuple(steps), targets, left_out)


def refused(request: Request, problems: Iterable[tuple[str, str]]) -> Plan:
    return Plan("refused", request.release, tuple(problems))


def unready_hosts(agents: Sequence[Agent], edges: Sequence[Edge]) -> list[tuple[str, str]]:
    """Hosts that nothing can be planned for, each with what mends it."""
    problems = []
    for group, hosts in (("agents", agents), ("edge", edges)):
        if not hosts:
            problems.append(("", f"the inventory has no host in group {group}: add one, then run site.yml"))
    problems += [(edge.name, edge.problem or edge.busy) for edge in edges if edge.problem or edge.busy]
    if len(edges) > 1:
        names = ", ".join(edge.name for edge in edges)
        problems.append(("", f"group edge has {names}: one edge moves the traffic, several are not supported yet"))
    problems += [(agent.name, agent.problem) for agent in agents if agent.problem]
    for agent in agents:
        if not agent.problem and not agent.prepared:
            problems.append((agent.name, f"{agent.name} is not prepared for the service: run site.yml first"))
    for edge in edges:
        missing = [
            server
            for agent in agents
            for slot in SLOTS
            for server in servers_of(agent, slot)
            if server not in edge.weights
        ]
        if missing and not edge.problem:
            text = f"the balancer of {edge.name} does not know {', '.join(missing)}: run site.yml first"
            problems.append((edge.name, text))
    return problems


def schema_problems(
    agents: Sequence[Agent], before: Weights, edges: Sequence[Edge], request: Request
) -> list[tuple[str, str]]:
    """What cannot run on the database: the wanted release now, or what serves once the wanted one has migrated."""
    floor = floor_of(edges)
    problem = unfit(request.release, request.schema, floor)
    if problem:
        return [("", problem)]
    if request.schema is None or not raises(request.schema, floor):
        return []
    used = {agent.slots[slot].release for agent in agents for slot in serving(agent.name, before)}
    found = []
    for release in sorted(name for name in used if name and name != request.release):
        known = next((edge.schemas[release] for edge in edges if release in edge.schemas), None)
        found.append(left_behind(release, known, request.schema.floor, request.release))
    return [("", text) for text in found if text]


def floor_of(edges: Sequence[Edge]) -> str:
    return next((edge.floor for edge in edges if edge.floor), "")


def obstacles(
    agents: Sequence[Agent], targets: Targets, edges: Sequence[Edge], request: Request
) -> list[tuple[str, str]]:
    """What keeps the wanted slots from being made, found before anything is changed."""
    problems = []
    for agent in agents:
        slot = agent.slots[targets[agent.name]]
        if not slot.matches and agent.disk_free_mb < request.disk_mb:
            text = (
                f"{agent.name} has {agent.disk_free_mb} MB of free disk, fleet_minimum_free_mb wants {request.disk_mb}"
            )
            problems.append((agent.name, text))
        for number in ports(targets[agent.name], agent.port, agent.instances):
            holder = agent.ports_taken.get(number)
            if holder:
                text = f"port {number} of {agent.name} is in use by {holder}: stop that, or choose another agent_port"
                problems.append((agent.name, text))
    lacking = [agent.name for agent in agents if not agent.slots[targets[agent.name]].matches and not agent.has_release]
    if lacking and not request.artifact and not any(request.release in edge.artifacts for edge in edges):
        text = f"release {request.release} is neither in this controller's cache nor in the edge's store: build it"
        problems.append((lacking[0], text))
    return problems


def observed_weights(agents: Sequence[Agent], edges: Sequence[Edge]) -> dict[str, int]:
    """Weight of every server on any edge; a server that an edge lost track of counts with the most it has anywhere."""
    servers = {server for edge in edges for server in edge.weights}
    servers |= {server for agent in agents for slot in SLOTS for server in servers_of(agent, slot)}
    return {server: max(edge.weights.get(server, 0) for edge in edges) for server in sorted(servers)}


def slot_weights(host: str, slot: str, weights: Weights) -> dict[str, int]:
    """The weights of the servers of one slot of HOST."""
    return {server: weight for server, weight in weights.items() if place_of(server) == f"{host}-{slot}"}


def serving(host: str, weights: Weights) -> frozenset[str]:
    """The slots of HOST that get traffic."""
    return frozenset(slot for slot in SLOTS if any(slot_weights(host, slot, weights).values()))


def wanted_slot(agent: Agent, weights: Weights, current: str | None) -> str:
    """The slot that shall serve: one that is what is wanted already, else the one that can best be spared."""
    live = serving(agent.name, weights)
    matching = [slot for slot in SLOTS if agent.slots[slot].matches]
    if matching:
        return max(matching, key=lambda slot: (slot in live, agent.slots[slot].running, agent.slots[slot].enabled))

    def worth(name: str) -> tuple[bool, bool, bool, bool, bool, bool, int]:
        slot = agent.slots[name]
        return (
            name in live and slot.running,
            name in live,
            slot.running,
            slot.active,
            slot.enabled,
            slot.release is not None and slot.release == current,
            sum(slot_weights(agent.name, name, weights).values()),
        )

    return min(SLOTS, key=worth)


def all_steps(
    agents: Sequence[Agent], edges: Sequence[Edge], targets: Targets, before: Weights, request: Request
) -> list[Step]:
    """Every step that is not done already, in order."""
    by_name = {agent.name: agent for agent in agents}
    edge_names = tuple(edge.name for edge in edges)
    slots = {name: by_name[name].slots[slot] for name, slot in targets.items()}
    final = {**dict.fromkeys(before, 0), **final_weights(agents, targets)}

    install = tuple(name for name, slot in slots.items() if not slot.matches)
    # A slot must not be in traffic while it is overwritten.
    overwritten = {f"{name}-{targets[name]}" for name in install}
    settled = {server: 0 if place_of(server) in overwritten else weight for server, weight in before.items()}
    raised = {name for name, slot in targets.items() if gains(name, slot, settled, final)}
    start = tuple(name for name, slot in slots.items() if name in install or not up(slot) or name in raised)
    fresh = tuple(name for name in start if name in install or not slots[name].running)
    stoppable = {name: targets[name] for name in fresh if targets[name] not in serving(name, settled)}

    steps = []
    if install:
        steps.append(Step("overwrite", edge_names, slots={name: targets[name] for name in install}))
    sources = tuple(edge.name for edge in edges if request.release in edge.artifacts)
    storing = tuple(name for name in edge_names if (request.artifact or sources) and name not in sources)
    if not request.artifact and (storing or any(not by_name[name].has_release for name in install)):
        steps.append(Step("fetch", sources[:1]))
    if storing:
        steps.append(Step("store", storing))
    migrating = tuple(name for name in fresh if by_name[name].migrates)[:1]
    back = (Step("stop", tuple(stoppable), slots=stoppable),) if stoppable else ()
    # Nothing comes between the two where nothing is migrated: one call on every host does both.
    at_once = bool(install) and install == start and not migrating
    if at_once:
        steps.append(Step("prepare", install, slots={name: targets[name] for name in install}, undo=back))
    elif install:
        steps.append(Step("install", install, slots={name: targets[name] for name in install}))
    if migrating and request.pointed and migrates_anew(edges, request.schema):
        steps.append(Step("point", migrating))
    if migrating and request.schema and raises(request.schema, floor_of(edges)):
        # Before the migration: whatever becomes of it and of this controller, nobody goes back to what may not run.
        steps.append(Step("contract", edge_names, floor=request.schema.floor))
    if migrating:
        steps.append(Step("migrate", migrating, slots={name: targets[name] for name in migrating}))
    if start and not at_once:
        steps.append(Step("start", start, slots={name: targets[name] for name in start}, undo=back))
    moves = any(settled.get(server, 0) != weight for server, weight in final.items())
    if moves or fresh or any(edge.current != request.release for edge in edges):
        stages = complete_stages(agents, targets, settled, request) if moves else (Stage(f"{FULL} %", final),)
        tried = bool(fresh) or (moves and request.warm_tried)
        steps.append(Step("rollout", edge_names, stages=stages, before=settled, smoke=tried))
    retire = {name: other(slot) for name, slot in targets.items() if to_retire(by_name[name], other(slot), final)}
    if retire:
        steps.append(Step("retire", tuple(retire), slots=retire, critical=False))
    return steps


def migrates_anew(edges: Sequence[Edge], schema: Schema | None) -> bool:
    """Whether a release has migrations that the current one does not know; what is not known counts as one."""
    current = [edge for edge in edges if edge.current]
    if not current:
        # Before the first release there is nothing to go back to.
        return False
    known = current[0].schemas.get(str(current[0].current))
    return schema is None or known is None or not set(schema.revisions) <= set(known.revisions)


def complete_stages(agents: Sequence[Agent], targets: Targets, settled: Weights, request: Request) -> tuple[Stage, ...]:
    """The strategy's stages; whatever is of no host of theirs has no traffic from the first on."""
    hosts = []
    for agent in agents:
        slot = targets[agent.name]
        # What does not run is no way to go: it gets nothing in any stage.
        lives = agent.slots[other(slot)].running
        old = tuple(server for server in servers_of(agent, other(slot)) if settled.get(server) and lives)
        hosts.append(Host(agent.name, tuple(servers_of(agent, slot)), old))
    stages = schedule(request.strategy, hosts, request.steps, request.batch)
    return tuple(Stage(stage.label, {**dict.fromkeys(settled, 0), **stage.weights}) for stage in stages)


def up(slot: Slot) -> bool:
    """Whether the slot runs and will after a reboot."""
    return slot.running and slot.enabled


def gains(host: str, slot: str, before: Weights, after: Weights) -> bool:
    """Whether a slot of HOST gets more traffic than it has."""
    return any(weight > before.get(server, 0) for server, weight in slot_weights(host, slot, after).items())


def to_retire(agent: Agent, slot: str, final: Weights) -> bool:
    """Whether a slot without traffic still starts at boot."""
    return slot not in serving(agent.name, final) and agent.slots[slot].enabled


def judge(step: Mapping[str, Any], results: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The hosts at which a step failed, each with what it said; a host that said nothing has failed."""
    problems = []
    for host in step["hosts"]:
        result = results.get(host)
        if not isinstance(result, Mapping) or result.get("skipped"):
            problems.append((host, "gave no result"))
        elif result.get("unreachable"):
            problems.append((host, f"could not be reached: {first_line(result.get('msg'))}"))
        elif result.get("failed"):
            problems.append((host, str(result.get("msg", "failed without a reason")).strip()))
    return problems


def first_line(text: object) -> str:
    """The reason in a message, without what Ansible puts before it."""
    line = next(iter(str(text or "").strip().splitlines()), "no reason given")
    return line.rpartition("can be reached over ssh: ")[2].removeprefix("Task failed: ")


def undo_of(steps: Sequence[Mapping[str, Any]], failed: int) -> list[Mapping[str, Any]]:
    """The way back once step number FAILED came to nothing: what was begun last is undone first."""
    return [back for step in reversed(steps[: failed + 1]) for back in step["undo"]]
