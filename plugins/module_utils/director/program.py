"""The director's program: reads HAProxy's log, carries rollouts out, answers at its control socket.

Everything is decided in rollout.py, verdict.py, lease.py and memory.py; here is only what touches the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils.director import journal as journals
from ansible_collections.agentfleet.vm.plugins.module_utils.director import lease as leases
from ansible_collections.agentfleet.vm.plugins.module_utils.director import memory as memories
from ansible_collections.agentfleet.vm.plugins.module_utils.director import rollout as rollouts
from ansible_collections.agentfleet.vm.plugins.module_utils.director import store
from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Figures, Overdue, Summary, parse
from ansible_collections.agentfleet.vm.plugins.module_utils.director.requests import Smoke, measure, probe, smoke_server
from ansible_collections.agentfleet.vm.plugins.module_utils.director.schedule import FULL, Stage, share
from ansible_collections.agentfleet.vm.plugins.module_utils.director.verdict import Measured

JOURNAL = "journal.jsonl"
TICK_SECONDS = 0.05
BAKING_SECONDS = 0.5
IDLE_SECONDS = 2.0
MEASURE_SECONDS = 5.0
# The journal is written anew at a start when it has grown past this.
COMPACT_BYTES = 4 << 20


class Refusal(Exception):
    """One line for whoever asked: why not; BUSY is the rollout that is in the way, if one is."""

    def __init__(self, text: str, busy: memories.Work | None = None) -> None:
        super().__init__(text)
        self.busy = busy


@dataclass(frozen=True)
class Places:
    """Where the director finds what it works with."""

    directory: Path = Path("/var/lib/agentfleet/director")
    store: Path = store.ROOT
    control: Path = Path("/run/agentfleet/director.sock")
    requests: Path = Path("/var/lib/haproxy/agentfleet/requests.sock")
    runtime: str = haproxy.SOCKET
    state_file: str = haproxy.STATE_FILE
    config: str = haproxy.CONFIG
    route_key: Path = Path("/etc/haproxy/agentfleet-route-key")
    balancer_port: int = 8080


class Watch:
    """What is seen of one rollout beside its figures: the smoke test, probes, conditions."""

    def __init__(self, work: memories.Work, smoke: Smoke | None) -> None:
        self.id = work.rollout.id
        self.smoke = smoke
        self.smoked: str | None = None
        self.smoking: asyncio.Task[None] | None = None
        self.measured: list[Measured] = []
        self.measuring: asyncio.Task[None] | None = None
        self.measured_at = 0.0
        self.probing: set[asyncio.Task[None]] = set()
        self.probed_at = 0.0
        self.turn = 0
        self.overdue = Overdue(work.rollout.policy.overdue_seconds)
        # Given and answered before a restart of the director do not count: its figures begin now.
        self.watched_since = time.time()


class Director:
    def __init__(self, places: Places, clock: Callable[[], float] = time.time) -> None:
        self.places = places
        self.clock = clock
        self.figures = Figures()
        self.runtime = haproxy.Runtime(places.runtime)
        self.watches: dict[str, Watch] = {}
        self.smokes: dict[str, Smoke] = {}
        self.problem = ""
        self.told = asyncio.Event()
        self.wake = asyncio.Event()
        places.directory.mkdir(parents=True, exist_ok=True)
        path = places.directory / JOURNAL
        self.memory = memories.fold(journals.read(path))
        if path.exists() and path.stat().st_size > COMPACT_BYTES:
            journals.rewrite(path, [memories.snapshot(self.memory, clock())])
        self.journal = journals.Journal(path)

    def note(self, event: str, **entry: Any) -> None:
        """Write an entry, then know it."""
        full = {"event": event, "at": self.clock(), **entry}
        self.journal.append(full)
        self.memory = memories.apply(self.memory, full)
        self.told.set()
        self.told = asyncio.Event()

    def received(self, line: bytes) -> None:
        request = parse(line, self.clock())
        if request:
            self.figures.add(request)

    # The rollouts

    async def run(self) -> None:
        """Carry on whatever is not over, until cancelled."""
        while True:
            active = [work for work in self.memory.works.values() if not work.over]
            for work in active:
                try:
                    self.carry_on(work)
                    self.problem = ""
                except (haproxy.HaproxyError, OSError) as error:
                    # HAProxy is being restarted, or the disk is full: nothing is known now, so nothing is decided.
                    self.tell_problem(work, str(error))
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), self.pause())
            self.wake.clear()

    def pause(self) -> float:
        """How long nothing is likely to happen."""
        phases = {work.state.phase for work in self.memory.works.values() if not work.over}
        if not phases:
            return IDLE_SECONDS
        return BAKING_SECONDS if phases == {rollouts.BAKING} and not self.problem else TICK_SECONDS

    def tell_problem(self, work: memories.Work, problem: str) -> None:
        if problem != self.problem:
            self.problem = problem
            with contextlib.suppress(OSError):
                self.note("note", backend=work.rollout.backend, note=f"waiting: {problem}")

    def carry_on(self, work: memories.Work) -> None:
        rollout, backend = work.rollout, work.rollout.backend
        watch = self.watches.get(backend)
        if watch is None or watch.id != rollout.id:
            watch = self.watches[backend] = Watch(work, self.smokes.pop(rollout.id, None))
        seen = self.look(work, watch)
        state, todo = rollouts.advance(rollout, work.state, seen, self.clock())
        if state != work.state or todo.note:
            self.note("state", backend=backend, id=rollout.id, state=state.to_dict(), note=todo.note)
            self.wake.set()
        if todo.smoke:
            self.start_smoke(rollout, watch)
        if todo.weights is not None:
            self.set_weights(backend, todo.weights)
            self.wake.set()
        if state.phase == rollouts.BAKING:
            self.start_probe(rollout, state, seen, watch)
            self.start_measuring(rollout, watch)

    def look(self, work: memories.Work, watch: Watch) -> rollouts.Seen:
        rollout, state, now = work.rollout, work.state, self.clock()
        servers, counters = self.runtime.observe(rollout.backend)
        watch.overdue.read(now, counters)
        weights = {name: server.weight for name, server in servers.items()}
        ready = frozenset(name for name, server in servers.items() if server.ready)
        candidate, stable = Summary(), Summary()
        if state.phase == rollouts.BAKING and rollout.bake_seconds:
            since = max(state.since, watch.watched_since)
            late = watch.overdue.of(rollout.candidates)
            candidate = self.figures.summary(keys(rollout, rollout.candidates), since, late)
            stable = self.figures.summary(keys(rollout, rollout.stables), since)
            if stable.sample < rollout.policy.minimum_sample:
                # After the last move nothing of the old release serves: what it did just before is what there is.
                earlier = rollout.submitted_at - rollout.bake_seconds
                stable = self.figures.summary(keys(rollout, rollout.stables), earlier)
        return rollouts.Seen(weights, ready, watch.smoked, candidate, stable, watch.measured)

    def set_weights(self, backend: str, weights: Mapping[str, int]) -> None:
        haproxy.move(self.runtime, backend, weights, self.places.state_file, self.places.config)

    def route_key(self) -> str:
        return self.places.route_key.read_text().strip()

    def start_smoke(self, rollout: rollouts.Rollout, watch: Watch) -> None:
        if watch.smoking:
            return
        if watch.smoke is None:
            # Its key is never written down, so after a restart of the director the test cannot be run.
            watch.smoked = "the director was restarted before it was over"
            return
        watch.smoking = asyncio.create_task(self.smoke_all(rollout, watch, watch.smoke))

    async def smoke_all(self, rollout: rollouts.Rollout, watch: Watch, smoke: Smoke) -> None:
        try:
            key = self.route_key()
            tests = [asyncio.to_thread(smoke_server, smoke, server, key) for server in rollout.candidates]
            watch.smoked = "; ".join(problem for problem in await asyncio.gather(*tests) if problem)
        except (OSError, KeyError, TypeError, ValueError) as error:
            watch.smoked = f"the smoke test cannot be run: {error}"
        self.wake.set()

    def start_probe(self, rollout: rollouts.Rollout, state: rollouts.State, seen: rollouts.Seen, watch: Watch) -> None:
        """Send what users do not send, so that a verdict has its minimum sample at the end of the bake."""
        lacking = rollout.policy.minimum_sample - seen.candidate.sample - len(watch.probing)
        interval = rollout.bake_seconds * 0.8 / max(1, rollout.policy.minimum_sample)
        now = self.clock()
        due = int((now - max(state.since, watch.probed_at)) / interval) if interval else 0
        if lacking <= 0 or due <= 0:
            return
        weights = rollout.stages[state.stage].weights
        servers = [server for server in rollout.candidates if weights.get(server)]
        seconds = rollout.policy.overdue_seconds + 5
        watch.probed_at = now
        for _ in range(min(due, lacking)):
            server, watch.turn = servers[watch.turn % len(servers)], watch.turn + 1
            work = asyncio.to_thread(
                probe, self.places.balancer_port, rollout.probe_path, server, self.route_key(), seconds
            )
            task = asyncio.create_task(work)
            watch.probing.add(task)
            task.add_done_callback(watch.probing.discard)

    def start_measuring(self, rollout: rollouts.Rollout, watch: Watch) -> None:
        if not rollout.conditions or watch.measuring or self.clock() - watch.measured_at < MEASURE_SECONDS:
            return

        async def ask() -> None:
            if rollout.prometheus:
                watch.measured = await asyncio.to_thread(measure, rollout.prometheus, rollout.conditions)
            else:
                watch.measured = [Measured(condition.name, condition.limit, None) for condition in rollout.conditions]
            watch.measuring = None

        watch.measured_at = self.clock()
        watch.measuring = asyncio.create_task(ask())

    # What is asked of it

    async def answer(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """The answer to one request at the control socket."""
        do = str(request.get("do"))
        if do == "events":
            return await self.events(request)
        if do not in COMMANDS:
            raise Refusal(f"unknown request {do!r}; the director is another version: run site.yml --limit edge")
        answer = COMMANDS[do](self, request)
        self.wake.set()
        return answer

    async def events(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Events after a number; waits up to `wait` seconds for one."""
        since = int(request.get("since", 0))
        if self.memory.last_event <= since:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.told.wait(), min(30.0, float(request.get("wait", 0))))
        backend = str(request.get("backend", ""))
        wanted = [
            event
            for event in self.memory.events
            if (event["number"] > since and event["backend"] in (backend, "")) or not backend
        ]
        work = self.memory.works.get(backend)
        return {
            "events": [event for event in wanted if event["number"] > since],
            "last": self.memory.last_event,
            "rollout": show_work(work) if work else None,
        }

    def status(self, request: Mapping[str, Any]) -> dict[str, Any]:
        now = self.clock()
        lease = self.memory.lease
        backends = [str(request["backend"])] if request.get("backend") else sorted(self.backends())
        return {
            "now": now,
            "lease": {**lease.to_dict(), "live": lease.live(now)},
            "backends": {backend: self.backend(backend) for backend in backends},
            "last_event": self.memory.last_event,
        }

    def backends(self) -> set[str]:
        return {*self.memory.works, *self.memory.current, *self.memory.slots}

    def backend(self, backend: str) -> dict[str, Any]:
        work = self.memory.works.get(backend)
        servers = self.runtime.servers(backend)
        now = self.clock()
        return {
            "servers": {name: server.as_dict() for name, server in servers.items()},
            "slots": dict(self.memory.slots.get(backend, {})),
            "current": self.memory.current.get(backend),
            "previous": memories.before_current(self.memory, backend),
            "artifacts": store.kept(self.places.store / backend),
            "rollout": show_work(work) if work else None,
            "history": [entry for entry in self.memory.history if entry.get("backend") == backend][-20:],
            "figures": {
                name: self.figures.summary([f"{backend}/{name}"], now - 300).words()
                for name, server in servers.items()
                if server.weight
            },
        }

    def take_lease(self, request: Mapping[str, Any]) -> dict[str, Any]:
        lease = leases.acquire(self.memory.lease, str(request["holder"]), str(request["work"]), self.clock())
        for backend in self.memory.works:
            self.refuse_active(backend)
        self.note("lease", lease=lease.to_dict())
        return {"generation": lease.generation, "seconds": leases.SECONDS}

    def renew_lease(self, request: Mapping[str, Any]) -> dict[str, Any]:
        generation = int(request["generation"])
        lease = leases.renew(self.memory.lease, generation, self.clock(), str(request.get("stage", "")))
        # Each renewal on disk would be one write in ten seconds for nothing: after a crash the lease is a bit shorter.
        self.memory = replace(self.memory, lease=lease)
        return {"generation": generation}

    def release_lease(self, request: Mapping[str, Any]) -> dict[str, Any]:
        lease = leases.release(self.memory.lease, int(request["generation"]))
        if lease != self.memory.lease:
            self.note("lease", lease=lease.to_dict())
        return {}

    def check_lease(self, request: Mapping[str, Any]) -> None:
        leases.check(self.memory.lease, int(request["generation"]), self.clock())

    def refuse_active(self, backend: str) -> None:
        work = self.memory.active(backend)
        if work:
            raise Refusal(busy(work), work)

    def overwrite(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Take slots out of the traffic for good: another release is about to be written into them."""
        self.check_lease(request)
        backend, slots = str(request["backend"]), [str(slot) for slot in request["slots"]]
        self.refuse_active(backend)
        servers = self.runtime.servers(backend)
        emptied = {name: 0 for name, server in servers.items() if server.weight and name.rpartition("-")[0] in slots}
        if len(emptied) == len([server for server in servers.values() if server.weight]) and emptied:
            raise Refusal(f"{', '.join(sorted(emptied))} would be all that serves; nothing was changed")
        if emptied:
            self.set_weights(backend, emptied)
        if set(slots) & set(self.memory.slots.get(backend, {})):
            self.note("overwrite", backend=backend, slots=slots)
        return {"emptied": sorted(emptied)}

    def submit(self, request: Mapping[str, Any]) -> dict[str, Any]:
        self.check_lease(request)
        rollout = rollouts.rollout_from({**request["rollout"], "submitted_at": self.clock()})
        backend = rollout.backend
        self.refuse_active(backend)
        servers = self.runtime.servers(backend)
        unknown = sorted({name for stage in rollout.stages for name in stage.weights} - set(servers))
        if unknown:
            raise Refusal(f"the balancer does not know {', '.join(unknown)}: run site.yml first")
        smoke = request.get("smoke") or None
        if smoke:
            self.smokes[rollout.id] = Smoke(**smoke)
            rollout = replace(rollout, smoke=True)
        state = rollouts.begin(rollout, self.clock())
        before = self.memory.last_event
        self.note("rollout", rollout=rollout.to_dict(), state=state.to_dict())
        return {"id": rollout.id, "since": before}

    def abort(self, request: Mapping[str, Any]) -> dict[str, Any]:
        backend = str(request["backend"])
        work = self.memory.active(backend)
        if not work:
            raise Refusal(f"no rollout of {backend} is under way")
        if work.state.phase != rollouts.REVERTING:
            reason = f"stopped by {request.get('by', 'an operator')}"
            state, todo = rollouts.revert(work.state, self.clock(), reason)
            self.note("state", backend=backend, id=work.rollout.id, state=state.to_dict(), note=todo.note)
        return {"id": work.rollout.id}

    def rollback(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Go back to what is still warm, by this machine alone."""
        backend = str(request["backend"])
        self.refuse_active(backend)
        servers = self.runtime.servers(backend)
        before = {name: server.weight for name, server in servers.items()}
        now = self.clock()
        made = rollback_rollout(self.memory, backend, str(request.get("release", "")), servers, before)
        lease = leases.acquire(self.memory.lease, str(request["holder"]), "rollback", now)
        self.note("lease", lease=lease.to_dict())
        rollout = replace(made, by=str(request["holder"]), generation=lease.generation, submitted_at=now)
        since = self.memory.last_event
        self.note("rollout", rollout=rollout.to_dict(), state=rollouts.begin(rollout, now).to_dict())
        return {"id": rollout.id, "since": since, "release": rollout.release, "generation": lease.generation}

    def drain(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Keep new requests from the servers of a host, or let them come again; weights stay as they are."""
        backend, host, on = str(request["backend"]), str(request["host"]), bool(request.get("on", True))
        servers = self.runtime.servers(backend)
        mine = [name for name in servers if name.rpartition("-")[0].rpartition("-")[0] == host]
        if not mine:
            raise Refusal(f"backend {backend} has no server of {host}; it has {', '.join(sorted(servers))}")
        others = [
            server for name, server in servers.items() if name not in mine and server.weight and server.state == "up"
        ]
        if on and not others:
            raise Refusal(f"{host} is all that serves; nothing was changed")
        changed = []
        with haproxy.locked(self.places.state_file):
            for name in mine:
                if (servers[name].state == "drain") != on:
                    self.runtime.set_state(backend, name, "drain" if on else "ready")
                    changed.append(name)
            if changed:
                haproxy.save_state(self.runtime, self.places.state_file, self.places.config)
        if changed:
            words = "gets no new requests" if on else "gets requests again"
            self.note("note", backend=backend, note=f"{host} {words}, by {request.get('by', 'an operator')}")
        after = self.runtime.servers(backend)
        return {"changed": changed, "sessions": sum(after[name].sessions for name in mine)}

    def record(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Keep in the history what came to nothing before it reached the traffic."""
        self.check_lease(request)
        self.note("record", record=dict(request["record"]))
        return {}


def keys(rollout: rollouts.Rollout, servers: tuple[str, ...]) -> list[str]:
    return [f"{rollout.backend}/{server}" for server in servers]


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
        if (slot := name.rpartition("-")[0]) in named and slots.get(slot) == wanted and server.ready
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
    return server.rpartition("-")[0].rpartition("-")[0]


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


COMMANDS: Mapping[str, Callable[[Director, Mapping[str, Any]], dict[str, Any]]] = {
    "status": Director.status,
    "lease": Director.take_lease,
    "renew": Director.renew_lease,
    "release": Director.release_lease,
    "overwrite": Director.overwrite,
    "submit": Director.submit,
    "abort": Director.abort,
    "rollback": Director.rollback,
    "drain": Director.drain,
    "record": Director.record,
}

REFUSALS = (Refusal, leases.LeaseError, haproxy.HaproxyError, ValueError, KeyError, TypeError, OSError)


def standing(director: Director, error: Exception) -> dict[str, Any]:
    """What a refused asker needs to know whether waiting helps."""
    if isinstance(error, leases.LeaseError):
        lease = director.memory.lease
        return {"lease": lease.to_dict(), "lapses_in": lease.expires - director.clock()}
    work = getattr(error, "busy", None)
    return {"rollout": show_work(work)} if work else {}


async def serve_one(director: Director, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request a connection: a line of JSON each way."""
    try:
        line = await asyncio.wait_for(reader.readline(), 30)
        if not line.strip():
            return
        try:
            reply = {"ok": True, **await director.answer(json.loads(line))}
        except REFUSALS as error:
            missing = f"the request lacks {error}" if isinstance(error, KeyError) else str(error)
            reply = {"ok": False, "error": missing, **standing(director, error)}
        writer.write(json.dumps(reply, ensure_ascii=False).encode() + b"\n")
        await writer.drain()
    except (OSError, TimeoutError):
        return
    finally:
        writer.close()


def notify(message: str) -> None:
    """Tell systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(message.encode())


async def watchdog() -> None:
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 3e6)


@contextlib.contextmanager
def requests_socket(path: Path) -> Iterator[socket.socket]:
    """Where HAProxy sends a datagram a request."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        channel.bind(str(path))
        # HAProxy writes as its own user.
        path.chmod(0o666)
        yield channel


def drain_socket(director: Director, channel: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            director.received(channel.recv(65536))


async def serve(places: Places) -> None:
    """Run until told to end; what is under way goes on at the next start."""
    director = Director(places)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    with requests_socket(places.requests) as channel:
        loop.add_reader(channel, drain_socket, director, channel)
        places.control.parent.mkdir(parents=True, exist_ok=True)
        places.control.unlink(missing_ok=True)
        old = os.umask(0o177)
        server = await asyncio.start_unix_server(
            lambda reader, writer: serve_one(director, reader, writer), str(places.control), limit=1 << 22
        )
        os.umask(old)
        tasks = [asyncio.create_task(director.run()), asyncio.create_task(watchdog())]
        notify("READY=1")
        stopping = asyncio.create_task(ending.wait())
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.close()
        for task in tasks:
            if task.done():
                # Neither ends by itself: what ended it is why the director ends.
                task.result()
            task.cancel()
    director.journal.close()
