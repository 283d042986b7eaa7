"""Deploys to a fleet under test: what the director says, releases that misbehave, playbooks that are cut off."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .fleet import TOP, Fleet, Result

Change = Callable[[Path], object]


def committed(fleet: Fleet, clone: Path, change: Change) -> Path:
    """The reference app in a clone of this checkout, with CHANGE made to it and committed."""
    fleet.run("git", "clone", "--quiet", str(TOP), str(clone)).ok()
    change(clone / "app")
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    fleet.run("git", "-C", str(clone), "add", "--all").ok()
    fleet.run("git", "-C", str(clone), *who, "commit", "--quiet", "--message", "Change the app").ok()
    return clone / "app"


def appended(text: str) -> Change:
    """A change: TEXT at the end of the app's main module."""

    def change(app: Path) -> None:
        main = app / "src/agent_service/main.py"
        main.write_text(f"{main.read_text()}\n{text}")

    return change


def director(fleet: Fleet) -> dict[str, Any]:
    """What the director says of everything."""
    return dict(json.loads(fleet.on("edge1", "agentfleet-director status --json").ok().stdout))


ASK_HAPROXY = """
import socket, sys
connection = socket.socket(socket.AF_UNIX)
connection.connect("/run/haproxy/admin.sock")
connection.sendall(sys.argv[1].encode() + b"\\n")
sys.stdout.write(connection.makefile().read())
"""


def haproxy(fleet: Fleet, command: str) -> list[list[str]]:
    """What HAProxy's runtime API says, a list of words for each line."""
    said = fleet.on("edge1", f"python3 - '{command}'", stdin=ASK_HAPROXY).ok().stdout
    return [words for line in said.splitlines() if (words := line.split())]


def backend(fleet: Fleet) -> dict[str, Any]:
    return dict(director(fleet)["backends"]["agent"])


def shares(fleet: Fleet) -> dict[str, float]:
    """The part of the traffic that each release gets, by HAProxy's own weights."""
    seen = backend(fleet)
    total: dict[str, float] = {}
    for name, server in seen["servers"].items():
        if server["weight"]:
            release = seen["slots"].get(name.rpartition("-")[0], "unknown")
            total[release] = total.get(release, 0) + server["weight"]
    return {release: weight / sum(total.values()) for release, weight in total.items()}


def serving(fleet: Fleet) -> str:
    """The one release that has all the traffic."""
    found = shares(fleet)
    assert len(found) == 1, found
    return next(iter(found))


def until(condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Wait for CONDITION, which costs a round trip to ask."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.3)


def under_way(fleet: Fleet, phase: str = "", share: float = 0.0) -> Callable[[], bool]:
    def seen() -> bool:
        rollout = backend(fleet)["rollout"]
        return bool(rollout) and not rollout["over"] and phase in rollout["phase"] and rollout["share"] >= share

    return seen


def over(fleet: Fleet) -> bool:
    rollout = backend(fleet)["rollout"]
    return not rollout or rollout["over"]


def options(app: Path, label: str, bake: float, fault: str = "", **more: Any) -> list[str]:
    """Options of a deploy of APP, misbehaving as FAULT says (tests/support/faulty.py)."""
    words = {"agent_source": str(app), "label": label, "bake_seconds": bake, **more}
    if fault:
        words["agent_environment"] = {"FAULT": fault, **more.get("agent_environment", {})}
    return ["-e", json.dumps(words)]


def started(fleet: Fleet, *words: str, name: str = "deploy") -> subprocess.Popen[str]:
    """A playbook that goes on by itself, in a group of its own, as from another terminal."""
    return subprocess.Popen(
        fleet.command(name, *words),
        cwd=TOP,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def kill(process: subprocess.Popen[str]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Ctrl-C, pressed again where nothing happens: Python loses one that comes while it forks."""
    for _press in range(3):
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(timeout=3)
            return
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("Ctrl-C does not end it")


def power(fleet: Fleet, state: str, host: str, inventory: Path | None = None) -> Result:
    """Pull a host's plug, or boot it."""
    words = ("-e", f"lab_state={state}", "-e", json.dumps({"lab_only": [host]}))
    return fleet.playbook("lab", *words, inventory=inventory).ok()
