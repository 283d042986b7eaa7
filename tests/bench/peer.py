"""A peer's role that deploys and this collection, in turn on the same three hosts with the same ten-line app.

PEER=/path/to/role           the role, checked out by whoever compares; Ansistrano's variables are set
PEER_ROLLBACK=/path/to/role  the role that goes back, where that is another

The peer copies an archive, changes a symlink and restarts a service: the hosts need no more for it than the app's
dependencies, which are there. Here a release is installed beside the one that serves, started, tried through the edge
and given the traffic; nothing is watched afterwards (bake_seconds=0), for a peer does not watch either.
"""

from __future__ import annotations

import os
import sys
import tarfile
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from common import SMALL_APP, TOP, Fleet, Result, inventory, lab, row_of, table, timed, variables

APP = TOP / "tests/support/small_app"
PLAYBOOKS = Path(__file__).parent / "peer_role"
NETWORK = "10.89.0.0/24"
SUITES = {"agent1": "bookworm", "agent2": "trixie", "agent3": "trixie"}
TIMES = 3


def run() -> None:
    role = Path(os.environ.get("PEER", ""))
    if not (role / "tasks").is_dir():
        sys.exit("make bench ONLY=peer PEER=/path/to/role: name the directory of a role that deploys")
    rollback = os.environ.get("PEER_ROLLBACK", "")
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    with lab(
        "bench", NETWORK, inventory(directory / "inventory", "bench", NETWORK, SUITES, data=True), **SMALL_APP
    ) as fleet:
        for name in ("site", "deploy"):
            fleet.playbook(name).ok()
        play(fleet, "prepare").ok()
        theirs = compare(fleet, directory, role.resolve(), Path(rollback).resolve() if rollback else None)
        reference = replace(fleet, variables=variables(fleet.name, fleet.network))
        for name in ("site", "deploy"):
            reference.playbook(name).ok()
        ours = median(timed(deploy(reference, "-e", f"label=reference-{number}")) for number in range(TIMES))
        row_of("blue_green, the reference service", f"{ours:.1f} s", f"{theirs:.1f} s", f"{ours / theirs:.2f}")


def compare(fleet: Fleet, directory: Path, role: Path, rollback: Path | None) -> float:
    """In turn, so that what else the machine does falls on both; what the peer's deploy takes, in seconds."""
    ours: dict[str, list[float]] = {"blue_green": [], "rolling": [], "warm rollback": []}
    theirs: dict[str, list[float]] = {"deploy": [], "rollback": []}
    for number in range(TIMES):
        for strategy in ("blue_green", "rolling"):
            options = ("-e", f"strategy={strategy}", "-e", f"label=bench-{number}-{strategy.replace('_', '-')}")
            ours[strategy].append(timed(deploy(fleet, *options)))
            archive = pack(directory, f"{number}-{strategy}")
            theirs["deploy"].append(timed(let(fleet, role, "-e", f"ansistrano_deploy_from={archive}")))
        ours["warm rollback"].append(timed(lambda: fleet.playbook("rollback", "-e", "bake_seconds=0")))
        if rollback:
            theirs["rollback"].append(timed(let(fleet, rollback)))
    table(f"3 hosts, ten-line app, median of {TIMES}", "Agentfleet", "the peer", "ratio")
    for what, times in ours.items():
        beside = theirs["rollback" if what == "warm rollback" else "deploy"]
        mine, other = median(times), median(beside) if beside else None
        shown = ("", "") if other is None else (f"{other:.1f} s", f"{mine / other:.2f}")
        row_of(what, f"{mine:.1f} s", *shown)
    return median(theirs["deploy"])


def deploy(fleet: Fleet, *options: str) -> Callable[[], Result]:
    return lambda: fleet.playbook("deploy", "-e", "bake_seconds=0", *options)


def let(fleet: Fleet, role: Path, *options: str) -> Callable[[], Result]:
    """A run of the peer's."""
    return lambda: play(fleet, "run", "-e", f"peer_role={role}", *options)


def play(fleet: Fleet, name: str, *options: str) -> Result:
    playbook = str(PLAYBOOKS / f"{name}.yml")
    command = [playbook if word == f"playbooks/{name}.yml" else word for word in fleet.command(name, *options)]
    return fleet.run(*command)


def pack(directory: Path, label: str) -> Path:
    """The app as the peer ships it, a little different each time."""
    path = directory / f"app-{label}.tar.gz"
    note = directory / "label"
    note.write_text(label)
    with tarfile.open(path, "w:gz") as archive:
        for file in (*APP.iterdir(), note):
            if file.is_file():
                archive.add(file, file.name)
    return path
