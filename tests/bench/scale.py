"""What a deploy costs the controller with many hosts: the ten-line app on twenty agent hosts, and on two of them."""

from __future__ import annotations

import os
import resource
import tempfile
import time
from pathlib import Path
from statistics import median

from common import SMALL_APP, Fleet, inventory, lab, row_of, table

NETWORK = "10.86.0.0/24"
HOSTS = int(os.environ.get("HOSTS", "20"))
FEW, TIMES = 2, 3
# Of twenty hosts on one machine.
PROVISIONING_SECONDS = 3600


def run() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    suites = {f"agent{number}": ("bookworm", "trixie")[number % 2] for number in range(1, HOSTS + 1)}
    table("ten-line app, blue-green", f"{FEW} hosts", f"{HOSTS} hosts", "ratio")
    few = measure(directory / "few", dict(list(suites.items())[:FEW]), keep=False)
    many = measure(directory / "many", suites)
    row_of("wall clock, median", f"{few[0]:.1f} s", f"{many[0]:.1f} s", f"{many[0] / few[0]:.1f}")
    row_of("the controller's processor time a host", f"{few[1] / FEW:.2f} s", f"{many[1] / HOSTS:.2f} s", "")


def measure(target: Path, suites: dict[str, str], keep: bool = True) -> tuple[float, float]:
    """Median wall clock and processor time of a deploy, in seconds."""
    with lab("scale", NETWORK, inventory(target, "scale", NETWORK, suites), keep, **SMALL_APP) as fleet:
        for name in ("site", "deploy"):
            fleet.run(*fleet.command(name), timeout=PROVISIONING_SECONDS).ok()
        costs = [cost(fleet, f"scale-{number}") for number in range(TIMES)]
    return median(wall for wall, _cpu in costs), median(cpu for _wall, cpu in costs)


def cost(fleet: Fleet, label: str) -> tuple[float, float]:
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    fleet.playbook("deploy", "-e", f"label={label}").ok()
    wall, after = time.monotonic() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
