"""A rollout: the director's work on one release, from its smoke test to traffic on it alone, or back. Pure.

`advance` is asked again and again with what is seen. It answers with the state to go on with and at most one thing to
do. What was done is never assumed: the next call sees whether it is so. So a rollout goes on from any of its states
after the director was killed, HAProxy restarted or the edge rebooted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Summary
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import Stage, Weights, share
from ansible_collections.agentfleet.vm.plugins.module_utils.director.verdict import (
    FAIL,
    NO_DATA,
    Measured,
    Policy,
    judge,
)

SMOKE, MOVING, BAKING, REVERTING = "smoke", "moving", "baking", "reverting"
PROMOTED, REVERTED = "promoted", "reverted"
OVER = (PROMOTED, REVERTED)
# A process that has just started uses more of the processor than it will.
MEASURE_AFTER_SECONDS = 30.0


@dataclass(frozen=True)
class Condition:
    """A question to Prometheus: QUERY gives one number, which must not exceed LIMIT."""

    name: str
    query: str
    limit: float


@dataclass(frozen=True)
class Rollout:
    """What is asked of the director. `slots` names the release in each slot (host-blue …) once all is prepared."""

    id: str
    backend: str
    kind: str
    release: str
    previous: str
    strategy: str
    stages: tuple[Stage, ...]
    before: Weights
    slots: Mapping[str, str]
    bake_seconds: float = 30.0
    smoke: bool = False
    policy: Policy = field(default_factory=Policy)
    prometheus: str = ""
    conditions: tuple[Condition, ...] = ()
    balancer_port: int = 8080
    probe_path: str = "/ready"
    by: str = ""
    where: str = ""
    generation: int = 0
    submitted_at: float = 0.0
    notes: tuple[str, ...] = ()

    @property
    def final(self) -> Weights:
        return self.stages[-1].weights

    @property
    def candidates(self) -> tuple[str, ...]:
        """Servers that shall serve in the end."""
        return tuple(server for server, weight in self.final.items() if weight)

    @property
    def stables(self) -> tuple[str, ...]:
        """Servers that serve before and shall not in the end."""
        return tuple(server for server, weight in self.before.items() if weight and not self.final.get(server))

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def rollout_from(raw: Mapping[str, Any]) -> Rollout:
    """What to_dict() gave, or a playbook; ValueError says what is wrong with it."""
    known = {entry.name for entry in fields(Rollout)}
    unknown = sorted(set(raw) - known)
    if unknown:
        raise ValueError(f"a rollout has no {', '.join(unknown)}")
    try:
        made = {
            **raw,
            "stages": tuple(Stage(str(stage["label"]), whole(stage["weights"])) for stage in raw["stages"]),
            "before": whole(raw["before"]),
            "slots": {str(slot): str(release) for slot, release in raw["slots"].items()},
            "policy": Policy(**{name: value for name, value in raw.get("policy", {}).items()}),
            "conditions": tuple(Condition(**condition) for condition in raw.get("conditions", ())),
            "notes": tuple(str(note) for note in raw.get("notes", ())),
        }
        rollout = Rollout(**made)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"a rollout of another form: {error}") from error
    if not rollout.stages or not rollout.candidates:
        raise ValueError("a rollout needs stages, the last of which gives somebody traffic")
    return rollout


def whole(weights: Mapping[str, Any]) -> dict[str, int]:
    return {str(server): int(weight) for server, weight in weights.items()}


@dataclass(frozen=True)
class State:
    """How far a rollout is. `since` is when the phase began, by the edge's clock."""

    phase: str
    since: float
    stage: int = 0
    reason: str = ""
    verdicts: tuple[Mapping[str, Any], ...] = ()
    down_since: Mapping[str, float] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        return self.phase in OVER

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def state_from(raw: Mapping[str, Any]) -> State:
    return State(**{**raw, "verdicts": tuple(raw["verdicts"]), "down_since": dict(raw["down_since"])})


@dataclass(frozen=True)
class Seen:
    """What there is now. `smoke` is None while it runs, "" when it passed, else why it failed.

    `candidate` and `stable` count since the stage began; `measured` are the conditions asked of Prometheus.
    """

    weights: Weights
    ready: frozenset[str]
    smoke: str | None = None
    candidate: Summary = field(default_factory=Summary)
    stable: Summary = field(default_factory=Summary)
    measured: Sequence[Measured] = ()


@dataclass(frozen=True)
class Do:
    """What to do now: `weights` to set, or the smoke test to run; `note` is for people and the journal."""

    weights: Weights | None = None
    smoke: bool = False
    note: str = ""


NOTHING = Do()


def begin(rollout: Rollout, now: float) -> State:
    return State(SMOKE if rollout.smoke else MOVING, now)


def advance(rollout: Rollout, state: State, seen: Seen, now: float) -> tuple[State, Do]:
    """The state to go on with, and what to do."""
    if state.over:
        return state, NOTHING
    return PHASES[state.phase](rollout, state, seen, now)


def smoking(rollout: Rollout, state: State, seen: Seen, now: float) -> tuple[State, Do]:
    waiting = [server for server in rollout.candidates if server not in seen.ready]
    if seen.smoke is None and waiting:
        if now - state.since < rollout.policy.move_seconds:
            return state, NOTHING
        return revert(state, now, f"{', '.join(waiting)} not up after {rollout.policy.move_seconds:g} s")
    if seen.smoke is None:
        return state, Do(smoke=True)
    if seen.smoke:
        return revert(state, now, f"the smoke test of the new slots failed: {seen.smoke}")
    return replace(state, phase=MOVING, since=now), Do(note="the new slots passed the smoke test at the edge")


def moving(rollout: Rollout, state: State, seen: Seen, now: float) -> tuple[State, Do]:
    stage = rollout.stages[state.stage]
    if matches(seen.weights, stage.weights):
        part = share(stage.weights, rollout.candidates)
        note = f"stage {state.stage + 1} of {len(rollout.stages)} ({stage.label}): {part:.0%} on {rollout.release}"
        return replace(state, phase=BAKING, since=now, down_since={}), Do(note=note)
    waiting = [
        server
        for server in rollout.candidates
        if stage.weights.get(server, 0) > seen.weights.get(server, 0) and server not in seen.ready
    ]
    if not waiting:
        return state, Do(weights=stage.weights)
    if now - state.since < rollout.policy.move_seconds:
        return state, NOTHING
    return revert(state, now, f"{', '.join(waiting)} not ready for traffic after {rollout.policy.move_seconds:g} s")


def baking(rollout: Rollout, state: State, seen: Seen, now: float) -> tuple[State, Do]:
    stage = rollout.stages[state.stage]
    if not matches(seen.weights, stage.weights):
        # HAProxy was restarted, or somebody else was here: the traffic is the rollout's as long as it runs.
        return state, Do(weights=stage.weights, note="weights were not what the stage wants; set again")
    state = replace(state, down_since=down_times(rollout, state, seen, now))
    baked = now - state.since
    due = baked >= rollout.bake_seconds
    if due and not rollout.bake_seconds:
        return next_stage(rollout, state, now, "")
    down = [name for name, since in state.down_since.items() if now - since >= rollout.policy.down_seconds]
    measured = seen.measured if baked >= min(MEASURE_AFTER_SECONDS, rollout.bake_seconds) else ()
    verdict = judge(seen.candidate, seen.stable, rollout.policy, measured, down, early=not due)
    if verdict.kind == FAIL:
        return revert(note_verdict(state, stage, verdict.to_dict()), now, verdict.words())
    if not due:
        return state, NOTHING
    if verdict.kind == NO_DATA and not rollout.policy.accept_no_data:
        if baked < rollout.bake_seconds + rollout.policy.hold_seconds:
            return state, NOTHING
        text = f"{verdict.words()}, after {rollout.policy.hold_seconds:g} s more; accept_no_data=true goes on without"
        return revert(note_verdict(state, stage, verdict.to_dict()), now, text)
    return next_stage(rollout, note_verdict(state, stage, verdict.to_dict()), now, verdict.words())


def reverting(rollout: Rollout, state: State, seen: Seen, now: float) -> tuple[State, Do]:
    usable = {server for server, weight in rollout.before.items() if weight and server in seen.ready}
    serving = {server for server, weight in rollout.before.items() if weight}
    if serving and not usable and any(server in seen.ready for server in rollout.candidates):
        # Traffic is never left on a dead slot: what nobody can go back to is not gone back to.
        if matches(seen.weights, rollout.final):
            reason = f"{state.reason}; kept all the same, for nothing of {rollout.previous or 'before'} answers"
            return replace(state, phase=PROMOTED, since=now, reason=reason), Do(note=reason)
        return state, Do(weights=rollout.final)
    if matches(seen.weights, rollout.before):
        place = f"all traffic is on {rollout.previous}" if rollout.previous else "nothing has traffic, as before"
        return replace(state, phase=REVERTED, since=now), Do(note=f"reverted: {place}")
    return state, Do(weights=rollout.before)


PHASES = {SMOKE: smoking, MOVING: moving, BAKING: baking, REVERTING: reverting}


def matches(weights: Weights, wanted: Weights) -> bool:
    return all(weights.get(server) == weight for server, weight in wanted.items())


def revert(state: State, now: float, reason: str) -> tuple[State, Do]:
    """Turn back; also what an operator's word does."""
    return replace(state, phase=REVERTING, since=now, reason=reason), Do(note=f"going back: {reason}")


def next_stage(rollout: Rollout, state: State, now: float, words: str) -> tuple[State, Do]:
    if state.stage + 1 < len(rollout.stages):
        return replace(state, phase=MOVING, since=now, stage=state.stage + 1), Do(note=words)
    note = f"promoted: all traffic is on {rollout.release}" + (f"; {words}" if words else "")
    return replace(state, phase=PROMOTED, since=now, reason=words), Do(note=note)


def note_verdict(state: State, stage: Stage, verdict: Mapping[str, Any]) -> State:
    return replace(state, verdicts=(*state.verdicts, {"stage": stage.label, **verdict}))


def down_times(rollout: Rollout, state: State, seen: Seen, now: float) -> dict[str, float]:
    """Since when each server that shall serve in this stage has been down."""
    weights = rollout.stages[state.stage].weights
    down = [server for server in rollout.candidates if weights.get(server) and server not in seen.ready]
    return {server: state.down_since.get(server, now) for server in down}
