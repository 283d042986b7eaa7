"""What the director is asked at its control socket: status, the lease, rollouts, drains. Each answer is a dict."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils.director import lease as leases
from ansible_collections.agentfleet.vm.plugins.module_utils.director import memory as memories
from ansible_collections.agentfleet.vm.plugins.module_utils.director import rollout as rollouts
from ansible_collections.agentfleet.vm.plugins.module_utils.director import store
from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Director
from ansible_collections.agentfleet.vm.plugins.module_utils.director.requests import Smoke
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import FULL, Stage, share
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import schema_from, unfit
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import host_and_slot, place_of

# What is shown of requests is of so long.
MEASURED_SECONDS = 300

Request = Mapping[str, Any]
Answer = dict[str, Any]


class Refusal(Exception):
    """One line for whoever asked: why not; BUSY is the rollout that is in the way, if one is."""

    def __init__(self, text: str, busy: memories.Work | None = None) -> None:
        super().__init__(text)
        self.busy = busy


async def answer(director: Director, request: Request) -> Answer:
    """The answer to one request at the control socket."""
    do = str(request.get("do"))
    if do == "events":
        return await events(director, request)
    if do not in COMMANDS:
        raise Refusal(f"unknown request {do!r}; the director is another version: run site.yml --limit edge")
    reply = COMMANDS[do](director, request)
    director.wake.set()
    return reply


async def events(director: Director, request: Request) -> Answer:
    """Events after a number, waiting up to `wait` seconds; the weights as they are once a rollout is over."""
    since = int(request.get("since", 0))
    if director.memory.last_event <= since:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(director.told.wait(), min(30.0, float(request.get("wait", 0))))
    backend = str(request.get("backend", ""))
    concerned = (backend, "") if backend else (*known_backends(director), "")
    work = director.memory.works.get(backend)
    over = bool(work and work.state.over)
    return {
        "events": [
            event for event in director.memory.events if event["number"] > since and event["backend"] in concerned
        ],
        "last": director.memory.last_event,
        "rollout": show_work(work) if work else None,
        "weights": {name: server.weight for name, server in director.runtime.servers(backend).items()} if over else {},
    }


def status(director: Director, request: Request) -> Answer:
    now = director.clock()
    lease = director.memory.lease
    backends = [str(request["backend"])] if request.get("backend") else sorted(known_backends(director))
    certificate = str(request.get("certificate") or "")
    return {
        "now": now,
        "certificate_days": certificates.days_left(Path(certificate)) if certificate else None,
        "lease": {**lease.to_dict(), "live": lease.live(now)},
        "backends": {backend: describe(director, backend) for backend in backends},
        "last_event": director.memory.last_event,
    }


def known_backends(director: Director) -> set[str]:
    return {*director.memory.works, *director.memory.current, *director.memory.slots}


def describe(director: Director, backend: str) -> Answer:
    work = director.memory.works.get(backend)
    servers = director.runtime.servers(backend)
    now = director.clock()
    return {
        "servers": {name: server.as_dict() for name, server in servers.items()},
        "slots": dict(director.memory.slots.get(backend, {})),
        "current": director.memory.current.get(backend),
        "previous": memories.before_current(director.memory, backend),
        "floor": director.memory.floors.get(backend, ""),
        "artifacts": store.kept(director.places.store / backend),
        "rollout": show_work(work) if work else None,
        "history": [entry for entry in director.memory.history if entry.get("backend") == backend][-20:],
        "figures": {
            name: director.figures.summary([f"{backend}/{name}"], now - MEASURED_SECONDS).words()
            for name, server in servers.items()
            if server.weight
        },
        "measured": measured(director, backend, now),
    }


def measured(director: Director, backend: str, now: float) -> Answer:
    """What users got of late, of all slots and of each, probes included."""

    def slot(server: str) -> str:
        of, _slash, name = server.partition("/")
        return place_of(name) if of == backend else ""

    found = director.figures.grouped(now - MEASURED_SECONDS, slot)
    everything = found.pop("").numbers()
    return {"seconds": MEASURED_SECONDS, **everything, "slots": {name: one.numbers() for name, one in found.items()}}


def take_lease(director: Director, request: Request) -> Answer:
    lease = leases.acquire(director.memory.lease, str(request["holder"]), str(request["work"]), director.clock())
    for backend in director.memory.works:
        refuse_active(director, backend)
    director.note("lease", lease=lease.to_dict())
    return {"generation": lease.generation, "seconds": leases.SECONDS}


def renew_lease(director: Director, request: Request) -> Answer:
    generation = int(request["generation"])
    lease = leases.renew(director.memory.lease, generation, director.clock(), str(request.get("stage", "")))
    # Each renewal on disk would be one write in ten seconds for nothing: after a crash the lease is a bit shorter.
    director.memory = replace(director.memory, lease=lease)
    return {"generation": generation}


def release_lease(director: Director, request: Request) -> Answer:
    lease = leases.release(director.memory.lease, int(request["generation"]))
    if lease != director.memory.lease:
        director.note("lease", lease=lease.to_dict())
    return {}


def check_lease(director: Director, request: Request) -> None:
    leases.check(director.memory.lease, int(request["generation"]), director.clock())


def refuse_active(director: Director, backend: str) -> None:
    work = director.memory.active(backend)
    if work:
        raise Refusal(busy(work), work)


def overwrite(director: Director, request: Request) -> Answer:
    """Take slots out of the traffic for good: another release is about to be written into them."""
    check_lease(director, request)
    backend, slots = str(request["backend"]), [str(slot) for slot in request["slots"]]
    refuse_active(director, backend)
    servers = director.runtime.servers(backend)
    mine = [name for name in servers if place_of(name) in slots]
    emptied = {name: 0 for name in mine if servers[name].weight}
    if len(emptied) == len([server for server in servers.values() if server.weight]) and emptied:
        raise Refusal(f"{', '.join(sorted(emptied))} would be all that serves; nothing was changed")
    if emptied:
        director.set_weights(backend, emptied)
    if set(slots) & set(director.memory.slots.get(backend, {})):
        director.note("overwrite", backend=backend, slots=slots)
    return {"emptied": sorted(emptied), "sessions": {name: servers[name].sessions for name in mine}}


def contract(director: Director, request: Request) -> Answer:
    """Note which migration the database needs its code to know."""
    check_lease(director, request)
    backend, floor = str(request["backend"]), str(request["floor"])
    changed = director.memory.floors.get(backend, "") != floor
    if changed:
        director.note("floor", backend=backend, floor=floor)
    return {"changed": changed}


def refuse_unfit(director: Director, backend: str, release: str, must_tell: bool) -> None:
    """Refuse a release that cannot run on the database, by what the store knows of it.

    Whoever plans has looked at releases that are not in the store as well; one that nobody described passes then.
    """
    described = store.kept(director.places.store / backend).get(release, {})
    known = schema_from(described.get("schema"))
    problem = unfit(release, known, director.memory.floors.get(backend, "")) if known or must_tell else ""
    if problem:
        raise Refusal(f"{problem}; nothing was changed")


def submit(director: Director, request: Request) -> Answer:
    check_lease(director, request)
    rollout = rollouts.rollout_from({**request["rollout"], "submitted_at": director.clock()})
    backend = rollout.backend
    refuse_active(director, backend)
    refuse_unfit(director, backend, rollout.release, must_tell=False)
    servers = director.runtime.servers(backend)
    unknown = sorted({name for stage in rollout.stages for name in stage.weights} - set(servers))
    if unknown:
        raise Refusal(f"the balancer does not know {', '.join(unknown)}: run site.yml first")
    smoke = request.get("smoke") or None
    if smoke:
        director.smokes[rollout.id] = Smoke(**smoke)
        rollout = replace(rollout, smoke=True)
    state = rollouts.begin(rollout, director.clock())
    before = director.memory.last_event
    director.note("rollout", rollout=rollout.to_dict(), state=state.to_dict())
    return {"id": rollout.id, "since": before}


def abort(director: Director, request: Request) -> Answer:
    backend = str(request["backend"])
    work = director.memory.active(backend)
    if not work:
        raise Refusal(f"no rollout of {backend} is under way")
    if work.state.phase != rollouts.REVERTING:
        reason = f"stopped by {request.get('by', 'an operator')}"
        state, todo = rollouts.revert(work.state, director.clock(), reason)
        director.note("state", backend=backend, id=work.rollout.id, state=state.to_dict(), note=todo.note)
    return {"id": work.rollout.id}


def rollback(director: Director, request: Request) -> Answer:
    """Go back to what is still warm, by this machine alone."""
    backend = str(request["backend"])
    refuse_active(director, backend)
    servers = director.runtime.servers(backend)
    before = {name: server.weight for name, server in servers.items()}
    now = director.clock()
    made = rollback_rollout(director.memory, backend, str(request.get("release", "")), servers, before)
    refuse_unfit(director, backend, made.release, must_tell=True)
    lease = leases.acquire(director.memory.lease, str(request["holder"]), "rollback", now)
    director.note("lease", lease=lease.to_dict())
    where = str(request.get("where", made.where))
    by = str(request["holder"])
    rollout = replace(made, by=by, where=where, generation=lease.generation, submitted_at=now)
    since = director.memory.last_event
    director.note("rollout", rollout=rollout.to_dict(), state=rollouts.begin(rollout, now).to_dict())
    targets = dict(host_and_slot(place_of(name)) for name in rollout.candidates)
    return {
        "id": rollout.id,
        "since": since,
        "release": rollout.release,
        "previous": rollout.previous,
        "targets": targets,
        "slots": dict(rollout.slots),
        "generation": lease.generation,
    }


def drain(director: Director, request: Request) -> Answer:
    """Keep new requests from a host's servers, or let them come again; weights stay as they are.

    Without a backend of every service that is known: the host itself is about to go away.
    """
    wanted, host, on = str(request["backend"]), str(request["host"]), bool(request.get("on", True))
    seen = {name: director.runtime.servers(name) for name in ([wanted] if wanted else sorted(known_backends(director)))}
    mine = {backend: [name for name in servers if host_of(name) == host] for backend, servers in seen.items()}
    if not any(mine.values()):
        known = ", ".join(sorted({name for servers in seen.values() for name in servers}))
        raise Refusal(f"{f'backend {wanted}' if wanted else 'the balancer'} has no server of {host}; it has {known}")
    for backend, servers in seen.items():
        if on and is_all_that_serves(servers, mine[backend]):
            of = "" if wanted else f" of {backend}"
            raise Refusal(f"{host} is all that serves{of}; nothing was changed")
    changed = []
    with haproxy.locked(director.places.state_file):
        for backend, names in mine.items():
            changing = [name for name in names if (seen[backend][name].state == "drain") != on]
            for name in changing:
                director.runtime.set_state(backend, name, "drain" if on else "ready")
            changed += changing
        if changed:
            haproxy.save_state(director.runtime, director.places.state_file, director.places.config)
    if changed:
        words = "gets no new requests" if on else "gets requests again"
        director.note("note", backend=wanted, note=f"{host} {words}, by {request.get('by', 'an operator')}")
    after = [director.runtime.servers(backend)[name] for backend, names in mine.items() for name in names]
    return {
        "changed": changed,
        "sessions": sum(server.sessions for server in after),
        "down": [server.name for server in after if server.weight and not server.ready],
    }


def is_all_that_serves(servers: Mapping[str, haproxy.Server], names: Collection[str]) -> bool:
    """Whether nobody but NAMES would answer who may answer now."""
    others = any(server.weight and server.state == "up" for name, server in servers.items() if name not in names)
    return any(servers[name].weight for name in names) and not others


def record(director: Director, request: Request) -> Answer:
    """Keep in the history what came to nothing before it reached the traffic."""
    check_lease(director, request)
    director.note("record", record=dict(request["record"]))
    return {}


def busy(work: memories.Work) -> str:
    rollout, state = work.rollout, work.state
    stage = rollout.stages[state.stage].label
    return (
        f"{rollout.kind} of {rollout.release} by {rollout.by or 'somebody'} is under way ({state.phase}, {stage});"
        f" wait for it, or turn it back on the edge with: agentfleet-director abort {rollout.backend}"
    )


def rollback_rollout(
    memory: memories.Memory,
    backend: str,
    release: str,
    servers: Mapping[str, haproxy.Server],
    before: Mapping[str, int],
) -> rollouts.Rollout:
    """A rollout to slots that are ready now and hold RELEASE, or the one before the current."""
    slots = memory.slots.get(backend, {})
    current = memory.current.get(backend) or {}
    earlier = memories.before_current(memory, backend)
    wanted = release or str(earlier.get("release") or "")
    if not wanted:
        raise Refusal(f"{backend} has no release before the current one in the director's history")
    named = set(earlier["slots"]) if not release and earlier["slots"] else set(slots)
    serving = {name for name, weight in before.items() if weight}
    new = [
        name
        for name, server in servers.items()
        if (slot := place_of(name)) in named and slots.get(slot) == wanted and server.ready
    ]
    lacking = {host_of(name) for name in serving} - {host_of(name) for name in new}
    if not new or lacking:
        where = f" on {', '.join(sorted(lacking))}" if lacking else ""
        raise Refusal(
            f"{wanted} is not warm{where}: start it with ansible-playbook playbooks/rollback.yml -e release={wanted}"
        )
    weights = {name: FULL if name in new else 0 for name in servers}
    if all(before.get(name) == weight for name, weight in weights.items()):
        raise Refusal(f"{wanted} serves already; nothing was changed")
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return rollouts.Rollout(
        id=f"{now}-rollback-{os.urandom(3).hex()}",
        backend=backend,
        kind="rollback",
        release=wanted,
        previous=str(current.get("release") or ""),
        strategy="blue_green",
        stages=(Stage("100 %", weights),),
        before=dict(before),
        slots=dict(slots),
        bake_seconds=0.0,
        where="the edge",
    )


def host_of(server: str) -> str:
    return host_and_slot(place_of(server))[0]


def show_work(work: memories.Work) -> dict[str, Any]:
    rollout, state = work.rollout, work.state
    stage = rollout.stages[state.stage]
    return {
        "id": rollout.id,
        "backend": rollout.backend,
        "kind": rollout.kind,
        "release": rollout.release,
        "previous": rollout.previous,
        "strategy": rollout.strategy,
        "phase": state.phase,
        "stage": stage.label,
        "stages": len(rollout.stages),
        "share": share(stage.weights, rollout.candidates),
        "since": state.since,
        "reason": state.reason,
        "verdicts": list(state.verdicts),
        "by": rollout.by,
        "over": state.over,
    }


COMMANDS: Mapping[str, Callable[[Director, Request], Answer]] = {
    "status": status,
    "lease": take_lease,
    "renew": renew_lease,
    "release": release_lease,
    "overwrite": overwrite,
    "contract": contract,
    "submit": submit,
    "abort": abort,
    "rollback": rollback,
    "drain": drain,
    "record": record,
}

REFUSALS = (Refusal, leases.LeaseError, haproxy.HaproxyError, ValueError, KeyError, TypeError, OSError)


def standing(director: Director, error: Exception) -> dict[str, Any]:
    """What a refused asker needs to know whether waiting helps."""
    if isinstance(error, leases.LeaseError):
        lease = director.memory.lease
        return {"lease": lease.to_dict(), "lapses_in": lease.expires - director.clock()}
    work = getattr(error, "busy", None)
    return {"rollout": show_work(work)} if work else {}
