"""The director's program: reads HAProxy's log, carries rollouts out, answers at its control socket.

Everything is decided in rollout.py, verdict.py, lease.py and memory.py; here is only what touches the machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
from ansible_collections.agentfleet.vm.plugins.module_utils.director import exposition, store
from ansible_collections.agentfleet.vm.plugins.module_utils.director import journal as journals
from ansible_collections.agentfleet.vm.plugins.module_utils.director import memory as memories
from ansible_collections.agentfleet.vm.plugins.module_utils.director import rollout as rollouts
from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Figures, Overdue, Summary, parse
from ansible_collections.agentfleet.vm.plugins.module_utils.director.requests import Smoke, measure, probe, smoke_server
from ansible_collections.agentfleet.vm.plugins.module_utils.director.verdict import Measured

JOURNAL = "journal.jsonl"
TICK_SECONDS = 0.05
BAKING_SECONDS = 0.5
IDLE_SECONDS = 2.0
MEASURE_SECONDS = 5.0
# The journal is written anew at a start when it has grown past this.
COMPACT_BYTES = 4 << 20


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
    figures: Path = exposition.FILE


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
        exposition.publish(self.memory, places.figures)

    def note(self, event: str, **entry: Any) -> None:
        """Write an entry, then know it."""
        full = {"event": event, "at": self.clock(), **entry}
        self.journal.append(full)
        self.memory = memories.apply(self.memory, full)
        exposition.publish(self.memory, self.places.figures)
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
                probe, rollout.balancer_port, rollout.probe_path, server, self.route_key(), seconds
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


def keys(rollout: rollouts.Rollout, servers: tuple[str, ...]) -> list[str]:
    return [f"{rollout.backend}/{server}" for server in servers]
