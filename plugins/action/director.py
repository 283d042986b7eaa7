"""Ask the director on the edge; see modules/director.py for the options."""

from __future__ import annotations

import getpass
import os
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.agentfleet.vm.plugins.module_utils import transaction
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import host_and_slot
from ansible_collections.agentfleet.vm.plugins.modules.director import ARGUMENTS
from ansible_collections.agentfleet.vm.plugins.plugin_utils import director

Result = dict[str, Any]
MOVING = ("overwritten", "contracted", "rolled_out", "rolled_back", "drained", "undrained")


class ActionModule(ActionBase):
    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> Result:
        self._wanted = self.validate_argument_spec(argument_spec=ARGUMENTS)[1]
        result: Result = super().run(tmp, task_vars)
        self._ask = director.asker(self)
        if self._task.check_mode and self._wanted["state"] != "observed":
            moving = self._wanted["state"] in MOVING
            return {**result, "changed": moving, "generation": 0}
        act: Mapping[str, Callable[[], Result]] = {
            "observed": self._observe,
            "leased": self._lease,
            "released": self._release,
            "overwritten": self._overwrite,
            "contracted": self._contract,
            "rolled_out": self._roll_out,
            "rolled_back": self._roll_back,
            "drained": self._drain,
            "undrained": self._drain,
            "recorded": self._record,
        }
        try:
            return {**result, **act[self._wanted["state"]]()}
        except director.NoDirector as error:
            if self._wanted["optional"]:
                return {**result, "changed": False, "skipped_reason": str(error), "generation": 0}
            raise

    def _asked(self, do: str, **request: Any) -> Result:
        reply = self._ask(do, **request)
        if not reply.pop("ok", False):
            raise AnsibleError(str(reply.get("error", "the director refused without a reason")))
        return reply

    def _observe(self) -> Result:
        backend = self._wanted["backend"]
        status = self._asked("status", backend=backend, certificate=self._wanted["certificate"])
        return {
            "changed": False,
            "lease": status["lease"],
            "backend": status["backends"][backend],
            "certificate_days": status.get("certificate_days"),
        }

    def _note(self, generation: int) -> Path:
        """Where the process that renews this playbook's lease has its id."""
        return Path(tempfile.gettempdir()) / f"agentfleet-{os.getppid()}-{generation}.lease"

    def _lease(self) -> Result:
        holder = self._wanted["holder"] or who()
        reply = director.take_lease(self._ask, holder, self._wanted["work"], self._wanted["wait_seconds"])
        if not reply.get("ok"):
            raise AnsibleError(str(reply.get("error")))
        generation = int(reply["generation"])
        note = self._note(generation)
        note.touch(mode=0o600)
        director.renew_in_background(self, self._ask, generation, note)
        # The lease is the run's own and over with it: nothing of the host is changed by it.
        return {"changed": False, "generation": generation, "holder": holder}

    def _release(self) -> Result:
        generation = self._wanted["generation"]
        if generation:
            self._note(generation).unlink(missing_ok=True)
            # One that is gone has no lease.
            with suppress(director.NoDirector):
                self._ask("release", generation=generation)
        return {"changed": False}

    def _overwrite(self) -> Result:
        """Take slots out of the traffic; what they still have may end, as long as `wait_seconds` allow."""
        wanted = self._wanted
        slots = [f"{host}-{slot}" for host, slot in wanted["slots"].items()]
        began = time.monotonic()
        emptied: list[str] = []
        shown = 0.0
        while True:
            reply = self._asked("overwrite", backend=wanted["backend"], slots=slots, generation=wanted["generation"])
            emptied += reply["emptied"]
            sessions = {server: number for server, number in reply["sessions"].items() if number}
            passed = time.monotonic() - began
            if not sessions or passed > wanted["wait_seconds"]:
                return {"changed": bool(emptied), "emptied": emptied, "sessions": sum(sessions.values())}
            if passed >= shown:
                director.tell(passed, f"{director.under_way(sessions)}: waiting, {wanted['wait_seconds']:g} s at most")
                shown = passed + director.TELL_SECONDS
            time.sleep(director.LOOK_SECONDS)

    def _contract(self) -> Result:
        wanted = self._wanted
        reply = self._asked(
            "contract", backend=wanted["backend"], floor=wanted["floor"], generation=wanted["generation"]
        )
        return {"changed": bool(reply["changed"])}

    def _roll_out(self) -> Result:
        wanted = self._wanted
        rollout, backend = wanted["rollout"], wanted["backend"]
        reply = self._asked("submit", generation=wanted["generation"], rollout=rollout, smoke=wanted["smoke"] or None)
        if not wanted["follow"]:
            return {"changed": True, "outcome": "submitted", "id": reply["id"]}
        # From here on the director goes on whatever becomes of this.
        try:
            ended = director.follow(self._ask, backend, reply["since"])
        except AnsibleError as error:
            return {"failed": True, "outcome": "submitted", "msg": f"the director could not be followed: {error}"}
        ended = ended or {}
        result: Result = {"changed": True, "outcome": ended.get("phase", ""), "id": reply["id"]}
        result["weights"] = ended.get("weights", {})
        result["verdicts"] = ended.get("verdicts", [])
        verdict = (result["verdicts"] or [{}])[-1]
        if ended.get("phase") != "promoted" or verdict.get("kind") == "fail":
            return {
                **result,
                "failed": True,
                "msg": f"the director went back: {ended.get('reason', 'no reason given')}",
            }
        return result

    def _roll_back(self) -> Result:
        backend, began = self._wanted["backend"], time.monotonic()
        release = self._wanted["release"]
        reply = self._ask("rollback", backend=backend, release=release, holder=who(), where="ansible-playbook")
        if not reply.get("ok"):
            return {"changed": False, "warm": False, "reason": reply.get("error", "")}
        ended = director.follow(self._ask, backend, reply["since"]) or {}
        releases: dict[str, dict[str, str]] = {}
        for place, held in reply["slots"].items():
            host, slot = host_and_slot(place)
            releases.setdefault(host, {})[slot] = held
        plan = {"release": reply["release"], "targets": reply["targets"], "left_out": [], "releases": releases}
        result: Result = {"changed": True, "warm": True, "generation": reply["generation"], "plan": plan}
        result |= {"previous": reply["previous"], "by": who()}
        result["progress"] = {**transaction.begin(ended.get("weights", {})), "outcome": ended.get("phase", "")}
        result["seconds"] = time.monotonic() - began
        if ended.get("phase") != "promoted":
            self._ask("release", generation=reply["generation"])
            return {
                **result,
                "failed": True,
                "msg": f"the director did not go back: {ended.get('reason', 'no reason')}",
            }
        return result

    def _drain(self) -> Result:
        """Drain until nothing is under way, or undrain until all that has a part of the traffic answers."""
        wanted = self._wanted
        on = wanted["state"] == "drained"
        by = who()
        until = time.monotonic() + wanted["wait_seconds"]
        changed = False
        while True:
            reply = self._asked("drain", backend=wanted["backend"], host=wanted["host"], on=on, by=by)
            changed = changed or bool(reply["changed"])
            left = reply["sessions"] if on else reply["down"]
            result = {"changed": changed, "sessions": int(reply["sessions"])}
            if not left:
                return result
            if time.monotonic() > until:
                return result if on else {**result, "failed": True, "msg": silent(wanted["host"], left)}
            time.sleep(director.LOOK_SECONDS)

    def _record(self) -> Result:
        self._asked("record", generation=self._wanted["generation"], record=self._wanted["record"])
        return {"changed": False}


def who() -> str:
    """Who asks, for the lease and the history."""
    return f"{getpass.getuser()} on {socket.gethostname()}"


def silent(host: str, servers: Sequence[str]) -> str:
    """What to say of a host that may have requests again and does not answer."""
    names = ", ".join(servers)
    return f"{names} may have requests again but does not answer the edge's health check: site.yml --limit {host},edge"
