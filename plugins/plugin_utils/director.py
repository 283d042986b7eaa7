"""Asking the director on an edge over the connection that a task has, without a module's round trips."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError
from ansible.plugins.action import ActionBase
from ansible.utils.display import Display
from ansible_collections.agentfleet.vm.plugins.module_utils.director import lease as leases

COMMAND = "/usr/local/bin/agentfleet-director request"
MISSING = 127
RENEW_SECONDS = 10.0
# Three of these fit into what is left of a lease by then.
ATTEMPT_SECONDS = 6.0
AGREED, UNANSWERED, REFUSED = 0, 1, 2
# A holder that renewed so lately is alive; one that did not has two thirds of its lease left at most.
ALIVE_SECONDS = 12.0
# So long may the edge be away while a rollout is followed: a reboot.
AWAY_SECONDS = 90.0
# Streams end when they end: how often to look, and how often to say that some are left.
LOOK_SECONDS = 1.0
TELL_SECONDS = 10.0

Reply = dict[str, Any]
Asker = Callable[..., Reply]


class NoDirector(AnsibleError):
    """The edge has no director yet, or one that does not run."""


def asker(action: ActionBase) -> Asker:
    """A function that sends one request to the director of the action's host."""

    def ask(do: str, **request: Any) -> Reply:
        done = action._low_level_execute_command(f"{COMMAND} {do}", in_data=json.dumps(request).encode(), sudoable=True)
        if done["rc"] == MISSING or "No such file" in done.get("stderr", ""):
            raise NoDirector("the edge has no director yet: run site.yml first")
        try:
            reply = json.loads(done["stdout"].strip().splitlines()[-1])
        except (ValueError, IndexError) as error:
            said = (done.get("stderr") or done["stdout"]).strip().splitlines()[-1:] or [f"exit status {done['rc']}"]
            raise AnsibleError(f"the edge's director cannot be asked: {said[0]}") from error
        if not reply.get("running", True):
            raise NoDirector(str(reply["error"]))
        return dict(reply)

    return ask


def tell(seconds: float, text: str) -> None:
    """A line of progress, as it happens."""
    Display().display(f"  {seconds:6.1f} s  {text}")


def under_way(sessions: Mapping[str, int]) -> str:
    """What each server still has."""
    parts = [f"{server} has {number}" for server, number in sorted(sessions.items())]
    return f"{', '.join(parts)} requests and streams under way"


def follow(ask: Asker, backend: str, since: int, until: float | None = None) -> Reply | None:
    """Show a rollout's events until it is over; it with the weights then, or None when the time was up before."""
    start, patience = math.inf, time.monotonic() + AWAY_SECONDS
    while until is None or time.monotonic() < until:
        try:
            answer = ask("events", backend=backend, since=since, wait=10)
            problem = "" if answer.get("ok") else str(answer.get("error"))
        except (AnsibleError, OSError) as error:
            problem = str(error)
        if problem:
            # The director is being restarted, or the edge: it goes on where it was, and so does this.
            if time.monotonic() > patience:
                raise AnsibleError(problem)
            time.sleep(1)
            continue
        patience = time.monotonic() + AWAY_SECONDS
        for event in answer["events"]:
            start = min(start, event["at"])
            tell(event["at"] - start, event["text"])
        since = answer["last"]
        rollout = answer["rollout"]
        if not rollout or rollout["over"]:
            return {**(rollout or {}), "weights": answer["weights"]}
    return None


def take_lease(ask: Asker, holder: str, work: str, wait_seconds: float) -> Reply:
    """The lease; waits for a holder that is gone and for a rollout that nobody follows, not for one who works."""
    began = time.monotonic()
    until = began + wait_seconds
    while True:
        reply = ask("lease", holder=holder, work=work)
        left = until - time.monotonic()
        if reply.get("ok") or left <= 0:
            return reply
        if reply.get("rollout"):
            tell(time.monotonic() - began, f"waiting for its end: {reply['error']}")
            follow(ask, reply["rollout"]["backend"], 0, until)
        elif reply.get("lapses_in", 0.0) > 0:
            lapses = float(reply["lapses_in"])
            lease = reply["lease"]
            doubt = lapses - (leases.SECONDS - ALIVE_SECONDS)
            if doubt > 0:
                if lease["expires"] - lease["since"] != leases.SECONDS:
                    return reply
                # Just taken: whether its holder lives shows at the first renewal.
                lapses = doubt + 1
            tell(time.monotonic() - began, f"waiting for the lease to lapse: {reply['error']}")
            time.sleep(min(left, lapses + 0.2))
        else:
            return reply


def renew_in_background(action: ActionBase, ask: Asker, generation: int, note: Path) -> None:
    """Renew the lease every ten seconds for as long as ansible-playbook runs, then give it back.

    A process of its own: tasks come and go, and while one waits on a host for minutes no other runs. It writes its
    id to NOTE, and ends when that is gone.
    """
    playbook = os.getppid()
    if os.fork():
        return
    status = 0
    try:
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        silence()
        note.write_text(str(os.getpid()))
        due = time.monotonic() + RENEW_SECONDS
        while note.exists() and alive(playbook):
            time.sleep(0.5)
            if time.monotonic() < due:
                continue
            said = attempt(lambda: ask("renew", generation=generation))
            if said is False:
                break
            # An edge that is away or busy for a moment is asked again at once: the lease does not wait.
            due = time.monotonic() + (RENEW_SECONDS if said else 0.0)
        if not alive(playbook):
            ask("release", generation=generation)
    except (AnsibleError, AnsibleConnectionFailure, OSError):
        # The lease lapses by itself.
        status = 1
    finally:
        note.unlink(missing_ok=True)
        os._exit(status)


def attempt(ask: Callable[[], Reply], seconds: float = ATTEMPT_SECONDS) -> bool | None:
    """Whether the director agreed to what is asked; None where it did not answer, or not in time.

    In a process of its own, which is ended then: with twenty hosts on two cores a lease lapsed while its holder lived.
    """
    child = os.fork()
    if not child:
        status = UNANSWERED
        try:
            os.setpgid(0, 0)
            status = AGREED if ask().get("ok", False) else REFUSED
        finally:
            os._exit(status)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            return {AGREED: True, REFUSED: False}.get(os.waitstatus_to_exitcode(status))
        time.sleep(0.05)
    # Its SSH with it; a group that is not there yet is the process alone.
    for end in (os.killpg, os.kill):
        with suppress(ProcessLookupError):
            end(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def silence() -> None:
    """Nothing of this process is the playbook's to show or to wait for."""
    display = Display()
    display._final_q = None
    display.verbosity = 0
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
