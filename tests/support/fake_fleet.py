"""A fleet without machines: agent hosts that keep slots in memory and fail when told to, the real director on a fake
HAProxy, and the loop that playbooks/tasks/{transaction,carry_out,take_steps,undo,close}.yml are, over the real filters.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.agentfleet.vm.plugins.filter import deploy
from ansible_collections.agentfleet.vm.plugins.module_utils.director.answers import REFUSALS, answer
from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Director
from fake_haproxy import FakeHaproxy

EDGE = "edge1"
SLOTS = ("blue", "green")
BAKE_SECONDS = 10.0

# What becomes of a host's part in a step: it fails and did nothing, or did it and says that it failed; it cannot be
# reached, before or after it did it; it says nothing; it loses its power, and has it again before the next deploy.
REFUSES, LIES, UNREACHED, CUT_OFF, SILENT, DIES = "refuses", "lies", "unreached", "cut off", "silent", "dies"
FAULTS = (REFUSES, LIES, UNREACHED, CUT_OFF, SILENT, DIES)


@dataclass
class FakeSlot:
    release: str = ""
    state: str = "empty"
    enabled: bool = False


@dataclass
class FakeHost:
    slots: dict[str, FakeSlot] = field(default_factory=lambda: {slot: FakeSlot() for slot in SLOTS})
    powered: bool = True
    releases: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Fault:
    """KIND at step NUMBER on HOST; `back` counts the steps of the way back."""

    number: int
    host: str
    kind: str
    back: bool = False


@dataclass
class Outcome:
    plan: Mapping[str, Any]
    phase: str
    failures: Mapping[str, str]
    lines: Sequence[str]


Watcher = Callable[["FakeFleet", str, int], None]


class FakeFleet:
    """Agent hosts of one instance each, with a release that serves."""

    def __init__(self, hosts: Sequence[str], director: Director, haproxy: FakeHaproxy, clock: Any) -> None:
        self.hosts = {host: FakeHost() for host in hosts}
        self.director, self.haproxy, self.clock = director, haproxy, clock
        self.watch: Watcher = lambda _fleet, _phase, _stage: None
        """Asked at every look of the director: what happens to a host while traffic moves."""
        self.follows = True
        self.migrates = True

    # What is seen of it

    def serving(self) -> dict[str, str]:
        """Release by server that has traffic."""
        return {name: self.slot_of(name).release for name, server in self.haproxy.servers.items() if server.weight}

    def slot_of(self, server: str) -> FakeSlot:
        host, slot, _number = server.rsplit("-", 2)
        return self.hosts[host].slots[slot]

    def sync(self) -> None:
        """HAProxy's checks."""
        for name, server in self.haproxy.servers.items():
            host = self.hosts[name.rsplit("-", 2)[0]]
            server.up = host.powered and self.slot_of(name).state == "running"

    def power(self, host: str, on: bool) -> None:
        place = self.hosts[host]
        place.powered = on
        for slot in place.slots.values():
            if not on and slot.state == "running":
                slot.state = "stopped"
            if on and slot.enabled:
                slot.state = "running"
        self.sync()

    # What is asked of it

    def ask(self, do: str, **request: Any) -> dict[str, Any]:
        return asyncio.run(answer(self.director, {"do": do, **request}))

    def observe(self, host: str, release: str) -> dict[str, Any]:
        place = self.hosts[host]
        if not place.powered:
            return {"unreachable": True, "msg": "no route to host"}
        slots = {
            name: {
                "release": slot.release,
                "state": slot.state,
                "matches": slot.release == release and slot.state != "empty",
                "active": slot.state == "running",
                "enabled": slot.enabled,
            }
            for name, slot in place.slots.items()
        }
        rest = {"prepared": True, "migrates": self.migrates, "port": 8100, "instances": 1, "disk_free_mb": 9999}
        return {"observed": {"slots": slots, "has_release": release in place.releases, "ports_taken": {}, **rest}}

    def deploy(self, release: str, strategy: str, fault: Fault | None = None) -> Outcome:
        """deploy.yml, from the lease to the exit status."""
        generation = self.ask("lease", holder="ann", work="deploy")["generation"]
        hostvars: dict[str, dict[str, Any]] = {
            host: {"__deploy_agent": self.observe(host, release)} for host in self.hosts
        }
        hostvars[EDGE] = {"__deploy_edge": {"backend": self.ask("status", backend="agent")["backends"]["agent"]}}
        groups = {"agents": list(self.hosts), "edge": [EDGE]}
        play = [EDGE, *self.hosts]
        current = deploy.deploy_current(groups, hostvars, "deploy", "")["current"]
        plan = deploy.deploy_plan(
            groups,
            hostvars,
            {**REQUEST, "release": {"id": release, "schema": SCHEMAS[release]}, "strategy": strategy, "hosts": play},
        )
        progress = plan["progress"]
        if plan["verdict"] != "go":
            self.ask("release", generation=generation)
            return Outcome(plan, plan["verdict"], plan["refusals"], plan["lines"])
        facts = {**FACTS, "previous": current, "strategy": strategy, "generation": generation}
        asked = deploy.deploy_rollout(plan, facts)
        for steps, phase in ((plan["steps"], "forward"), (None, "back")):
            listed = progress["undo"] if steps is None else steps
            for number, step in enumerate(listed):
                for host in step["hosts"]:
                    hostvars[host]["__deploy_step"] = {"skipped": True}
                    if progress["phase"] == phase:
                        met = fault and (number, host, phase == "back") == (fault.number, fault.host, fault.back)
                        kind = fault.kind if fault and met else ""
                        result = self.act(step, host, kind, asked, generation, release)
                        hostvars[host]["__deploy_step"] = result
                if progress["phase"] == phase:
                    progress = deploy.deploy_advance(progress, listed, number, hostvars)
        if progress["phase"] in ("back", "stuck") and not progress["outcome"] and asked:
            self.ask("record", generation=generation, record=deploy.deploy_record(progress, asked, 1.0))
        result = deploy.deploy_result(plan, progress, 1.0, play)
        if self.follows:
            self.ask("release", generation=generation)
        return Outcome(plan, progress["phase"], result["failures"], result["lines"])

    def act(
        self, step: Mapping[str, Any], host: str, kind: str, asked: Mapping[str, Any], generation: int, release: str
    ) -> dict[str, Any] | None:
        """What a step's task on HOST returns."""
        failed = {"failed": True, "msg": "as it was told to"}
        gone = {"unreachable": True, "msg": "no route to host"}
        if kind == DIES and host != EDGE:
            self.power(host, False)
        if host != EDGE and not self.hosts[host].powered:
            return gone
        if kind in (REFUSES, DIES):
            return failed
        if kind == UNREACHED:
            return gone
        if kind == SILENT:
            return None
        try:
            done = self.on_edge(step, asked, generation) if host == EDGE else self.on_agent(step, host, release)
        except REFUSALS as error:
            return {"failed": True, "msg": str(error)}
        self.sync()
        if kind == LIES:
            return {**done, **failed}
        return gone if kind == CUT_OFF else done

    def on_agent(self, step: Mapping[str, Any], host: str, release: str) -> dict[str, Any]:
        if step["action"] == "point":
            # Made on another host, and none of the agents' own.
            return {"changed": True}
        name = step["slots"].get(host, "")
        slot = self.hosts[host].slots[name]
        serves = self.haproxy.servers[f"{host}-{name}-1"].weight
        action = step["action"]
        if action == "install":
            assert not serves, "a slot in traffic is overwritten"
            slot.release, slot.state = release, "stopped"
            self.hosts[host].releases.add(release)
        elif action == "prepare":
            assert not serves, "a slot in traffic is overwritten"
            slot.release, slot.state, slot.enabled = release, "running", True
            self.hosts[host].releases.add(release)
        elif action == "migrate":
            assert slot.release == release
        elif action == "start":
            assert slot.release == release
            slot.state, slot.enabled = "running", True
        elif action == "stop":
            assert not serves, "a slot in traffic is stopped"
            slot.state, slot.enabled = "stopped", False
        elif action == "retire":
            assert not serves, "a slot in traffic is retired"
            slot.enabled = False
        return {"changed": True}

    def on_edge(self, step: Mapping[str, Any], asked: Mapping[str, Any], generation: int) -> dict[str, Any]:
        action = step["action"]
        if action == "overwrite":
            slots = [f"{host}-{slot}" for host, slot in step["slots"].items()]
            self.ask("overwrite", backend="agent", slots=slots, generation=generation)
        elif action == "store":
            artifacts = self.director.places.store / "agent/artifacts"
            artifacts.mkdir(parents=True, exist_ok=True)
            (artifacts / f"{asked['release']}.tar.gz").touch()
            (artifacts / f"{asked['release']}.json").write_text(
                json.dumps({"id": asked["release"], "schema": SCHEMAS[asked["release"]]})
            )
        elif action == "contract":
            self.ask("contract", backend="agent", floor=step["floor"], generation=generation)
        elif action == "rollout":
            reply = self.ask("submit", generation=generation, rollout=asked)
            if not self.follows:
                return {"failed": True, "outcome": "submitted", "msg": "nobody watches", "id": reply["id"]}
            return self.follow()
        return {"changed": True}

    def follow(self) -> dict[str, Any]:
        """What the director makes of its rollout, as plugins/action/director.py tells it."""
        self.carry_on()
        work = self.director.memory.works["agent"]
        weights = {name: server.weight for name, server in self.haproxy.servers.items()}
        phase = work.state.phase
        verdict = (work.state.verdicts or ({},))[-1]
        result = {"changed": True, "outcome": phase, "weights": weights}
        if phase != "promoted" or verdict.get("kind") == "fail":
            return {**result, "failed": True, "msg": f"the director went back: {work.state.reason}"}
        return result

    def carry_on(self) -> None:
        """Time goes on until the director has nothing under way."""

        async def work() -> None:
            for _look in range(2000):
                active = self.director.memory.active("agent")
                if not active:
                    return
                self.watch(self, active.state.phase, active.state.stage)
                self.sync()
                self.director.carry_on(active)
                await asyncio.sleep(0)
                if active.state.phase == "baking" or self.director.memory.active("agent") == active:
                    self.clock.now += 1
            raise AssertionError(f"the rollout does not end: {active.state}")

        asyncio.run(work())


# All know the first two migrations; the second one's contract and a third one come with release 2.
SCHEMAS = {
    "1": {"revisions": ["0001", "0002"], "floor": ""},
    "2": {"revisions": ["0001", "0002", "0003"], "floor": "0002"},
    "3": {"revisions": ["0001", "0002", "0003"], "floor": "0002"},
}
REQUEST = {
    "steps": "5,50,100",
    "batch": 1,
    "allow_unreachable": False,
    "follow": True,
    "disk_mb": 100,
    "artifact": True,
    "by_identity": True,
    "pointed": True,
    "slots": [],
}
FACTS = {
    "backend": "agent",
    "kind": "deploy",
    "bake_seconds": BAKE_SECONDS,
    # Verdicts without probes, which would ask a port of this machine.
    "policy": {"minimum_sample": 0},
    "gates": {
        "name": "agent",
        "memory_max": "1G",
        "memory": 0,
        "cpu_quota": "100%",
        "cpu": 0,
        "first_token": 0,
        "conditions": [],
    },
    "prometheus": "",
    "balancer_port": 8080,
    "probe_path": "/ready",
    "by": "ann",
    "where": "a test",
}
