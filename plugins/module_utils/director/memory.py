"""What the director knows: the fold of its journal. Pure.

Every change is an entry first; `apply` makes the knowledge after it. Read again from the journal it is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.lease import Lease, lease_from
from ansible_collections.agentfleet.vm.plugins.module_utils.director.rollout import (
    PROMOTED,
    Rollout,
    State,
    rollout_from,
    state_from,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import place_of

Entry = Mapping[str, Any]

HISTORY = 200
EVENTS = 500


@dataclass(frozen=True)
class Work:
    """A rollout and how far it is."""

    rollout: Rollout
    state: State

    @property
    def over(self) -> bool:
        return self.state.over


@dataclass(frozen=True)
class Memory:
    """By backend: the last rollout, the record of what is current, the release that each slot holds, and the migration
    that the database needs its code to know.
    """

    lease: Lease = field(default_factory=Lease)
    works: Mapping[str, Work] = field(default_factory=dict)
    current: Mapping[str, Entry] = field(default_factory=dict)
    slots: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    floors: Mapping[str, str] = field(default_factory=dict)
    history: tuple[Entry, ...] = ()
    events: tuple[Entry, ...] = ()
    last_event: int = 0

    def active(self, backend: str) -> Work | None:
        work = self.works.get(backend)
        return None if work is None or work.over else work


def apply(memory: Memory, entry: Entry) -> Memory:
    """The knowledge after ENTRY; an entry of an unknown kind changes nothing, for an older program reads it too."""
    known = KINDS.get(str(entry.get("event")))
    return known(memory, entry) if known else memory


def fold(entries: Iterable[Entry]) -> Memory:
    memory = Memory()
    for entry in entries:
        memory = apply(memory, entry)
    return memory


def leased(memory: Memory, entry: Entry) -> Memory:
    return replace(memory, lease=lease_from(entry["lease"]))


def submitted(memory: Memory, entry: Entry) -> Memory:
    rollout = rollout_from(entry["rollout"])
    works = {**memory.works, rollout.backend: Work(rollout, state_from(entry["state"]))}
    slots = {**memory.slots, rollout.backend: dict(rollout.slots)}
    memory = replace(memory, works=works, slots=slots)
    return told(memory, entry, rollout.backend, f"{rollout.kind} of {rollout.release} by {rollout.strategy} begins")


def advanced(memory: Memory, entry: Entry) -> Memory:
    backend = str(entry["backend"])
    work = memory.works[backend]
    if work.rollout.id != entry["id"]:
        return memory
    after = Work(work.rollout, state_from(entry["state"]))
    memory = replace(memory, works={**memory.works, backend: after})
    if entry.get("note"):
        memory = told(memory, entry, backend, str(entry["note"]))
    if after.over and not work.over:
        memory = ended(memory, after, float(entry["at"]))
    return memory


def ended(memory: Memory, work: Work, at: float) -> Memory:
    rollout, state = work.rollout, work.state
    record = {
        "id": rollout.id,
        "backend": rollout.backend,
        "kind": rollout.kind,
        "release": rollout.release,
        "previous": rollout.previous,
        "strategy": rollout.strategy,
        "by": rollout.by,
        "where": rollout.where,
        "began_at": rollout.submitted_at,
        "seconds": round(at - rollout.submitted_at, 1),
        "outcome": state.phase,
        "reason": state.reason,
        "verdicts": list(state.verdicts),
        "notes": list(rollout.notes),
        "before": dict(rollout.before),
    }
    memory = recorded(memory, {"record": record})
    if state.phase == PROMOTED:
        memory = replace(memory, current={**memory.current, rollout.backend: {**record, "at": at}})
    return memory


def before_current(memory: Memory, backend: str) -> Entry:
    """What a rollback without a name goes back to: its `release`, and the `slots` that it served from if known.

    Deploys pile up, and a rollback takes away what lies above its release. So a second rollback goes one further back,
    and never to the release that the first one left.
    """
    pile: list[Entry] = []
    for entry in memory.history:
        if entry.get("backend") != backend or entry["outcome"] != PROMOTED or entry["kind"] == "join":
            continue
        if entry["kind"] == "rollback":
            below = [number for number, older in enumerate(pile[:-1]) if older["release"] == entry["release"]]
            pile = pile[: below[-1] + 1] if below else [*pile, entry]
        else:
            pile.append(entry)
    if len(pile) < 2:
        return {}
    current = memory.current.get(backend) or {}
    slots = set()
    if current.get("id") == pile[-1]["id"]:
        slots = {place_of(server) for server, weight in current["before"].items() if weight}
    held = memory.slots.get(backend, {})
    release = str(pile[-2]["release"])
    return {"release": release, "slots": sorted(slot for slot in slots if held.get(slot) == release)}


def recorded(memory: Memory, entry: Entry) -> Memory:
    return replace(memory, history=(*memory.history, dict(entry["record"]))[-HISTORY:])


def overwritten(memory: Memory, entry: Entry) -> Memory:
    """Slots that are about to get another release hold none that could be gone back to."""
    backend = str(entry["backend"])
    gone = set(entry["slots"])
    kept = {slot: release for slot, release in memory.slots.get(backend, {}).items() if slot not in gone}
    return replace(memory, slots={**memory.slots, backend: kept})


def contracted(memory: Memory, entry: Entry) -> Memory:
    """Before a contract migration, or after the database was restored from before it."""
    backend, floor = str(entry["backend"]), str(entry["floor"])
    text = f"the database needs code that knows migration {floor}" if floor else "the database needs no certain code"
    return told(replace(memory, floors={**memory.floors, backend: floor}), entry, backend, text)


def said(memory: Memory, entry: Entry) -> Memory:
    return told(memory, entry, str(entry.get("backend", "")), str(entry["note"]))


def told(memory: Memory, entry: Entry, backend: str, text: str) -> Memory:
    number = memory.last_event + 1
    event = {"number": number, "at": float(entry["at"]), "backend": backend, "text": text}
    return replace(memory, events=(*memory.events, event)[-EVENTS:], last_event=number)


def remembered(_memory: Memory, entry: Entry) -> Memory:
    raw = entry["memory"]
    return Memory(
        lease=lease_from(raw["lease"]),
        works={
            backend: Work(rollout_from(work["rollout"]), state_from(work["state"]))
            for backend, work in raw["works"].items()
        },
        current=raw["current"],
        slots=raw["slots"],
        floors=raw.get("floors", {}),
        history=tuple(raw["history"]),
        events=tuple(raw["events"]),
        last_event=int(raw["last_event"]),
    )


KINDS = {
    "lease": leased,
    "rollout": submitted,
    "state": advanced,
    "record": recorded,
    "overwrite": overwritten,
    "floor": contracted,
    "note": said,
    "snapshot": remembered,
}


def snapshot(memory: Memory, at: float) -> Entry:
    """One entry that gives the same knowledge as all before it."""
    return {
        "event": "snapshot",
        "at": at,
        "memory": {
            "lease": memory.lease.to_dict(),
            "works": {
                backend: {"rollout": work.rollout.to_dict(), "state": work.state.to_dict()}
                for backend, work in memory.works.items()
            },
            "current": dict(memory.current),
            "slots": {backend: dict(slots) for backend, slots in memory.slots.items()},
            "floors": dict(memory.floors),
            "history": list(memory.history),
            "events": list(memory.events),
            "last_event": memory.last_event,
        },
    }
