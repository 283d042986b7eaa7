"""What status.yml takes on twenty agent hosts, all of them there and with one that is not."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from statistics import median

from common import SMALL_APP, Fleet, inventory, lab, row, timed
from support.fleet import BIN

NETWORK = "10.88.0.0/24"
HOSTS = int(os.environ.get("HOSTS", "20"))
TIMES = 3
LIMIT = "15 s"
# Of twenty hosts on one machine.
PROVISIONING_SECONDS = 3600


def run() -> None:
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    suites = {f"agent{number}": ("bookworm", "trixie")[number % 2] for number in range(1, HOSTS + 1)}
    with lab("status", NETWORK, inventory(directory / "many", "status", NETWORK, suites), **SMALL_APP) as fleet:
        for name in ("site", "deploy"):
            fleet.run(*fleet.command(name), timeout=PROVISIONING_SECONDS).ok()
        what = f"`status.yml`, {HOSTS} agent hosts and an edge, median of {TIMES}"
        row(what, measured(fleet), LIMIT, "make bench ONLY=status")
        # As one whose power is gone: nobody says goodbye.
        words = ["-m", "ansible.builtin.command", "-a", "systemd-run --on-active=1 ip link set host0 down"]
        where = ["-i", str(fleet.inventory), "-e", f"@{fleet.variables}"]
        fleet.run(str(BIN / "ansible"), f"agent{HOSTS}", *where, *words).ok()
        row("the same with one host that does not answer", measured(fleet), LIMIT, "make bench ONLY=status")


def measured(fleet: Fleet) -> float:
    return median(timed(lambda: fleet.playbook("status")) for _ in range(TIMES))
