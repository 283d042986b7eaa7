"""What watching costs: memory and processor time of Prometheus, Alertmanager and every exporter of five hosts.

make bench ONLY=monitoring   MINUTES=3 to watch for that long, RATE=5 requests a second meanwhile

Memory is each process's part of what it shares with others (PSS), and its resident set beside it. Times between
readings are the usual ones.
"""

from __future__ import annotations

import os
import time
from collections import defaultdict
from dataclasses import dataclass

from common import lab, row_of, table
from support.fleet import HOSTS, Fleet
from support.load import load_on

NETWORK = "10.86.0.0/24"
MINUTES = float(os.environ.get("MINUTES", "3"))
RATE = float(os.environ.get("RATE", "5"))
LIMIT_MB, LIMIT_PERCENT = 400, 5
# A line for each process: its program, PSS and RSS in KB, and ticks of processor time.
LOOK = """
for directory in /proc/[0-9]*; do
    program=$(basename "$(readlink $directory/exe)" 2>/dev/null)
    case $program in
    prometheus*|systemd-socket-proxyd)
        set -- $(sed 's/.*) //' $directory/stat)
        kb=$(awk '/^Pss:/ {p = $2} /^Rss:/ {r = $2} END {print p, r}' $directory/smaps_rollup)
        echo "$program $kb $((${12} + ${13}))" ;;
    esac
done
"""


@dataclass(frozen=True)
class Seen:
    pss_kb: int
    rss_kb: int
    ticks: int


def look(fleet: Fleet) -> dict[tuple[str, str], Seen]:
    """What each host has of them, by host and program."""
    found = {}
    for host in HOSTS:
        for line in fleet.on(host, LOOK).ok().stdout.splitlines():
            program, *numbers = line.split()
            found[host, program] = Seen(*map(int, numbers))
    return found


def run() -> None:
    with lab("monitoring", NETWORK, agent_model_key="") as fleet:
        for name in ("site", "deploy"):
            fleet.playbook(name).ok()
        # What a start takes is not what it goes on with.
        time.sleep(60)
        before, began = look(fleet), time.monotonic()
        with load_on(fleet, RATE, seen=None):
            time.sleep(MINUTES * 60)
        after, seconds = look(fleet), time.monotonic() - began
    report(before, after, seconds)


def report(before: dict[tuple[str, str], Seen], after: dict[tuple[str, str], Seen], seconds: float) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    table("what", "processes", "PSS", "RSS", "of one processor")
    sums: dict[str, list[float]] = defaultdict(lambda: [0, 0, 0, 0])
    for key, seen in after.items():
        percent = (seen.ticks - before[key].ticks) / ticks / seconds * 100
        for program in (key[1], "all"):
            for position, value in enumerate((1, seen.pss_kb / 1000, seen.rss_kb / 1000, percent)):
                sums[program][position] += value
    for program, (number, pss, rss, percent) in sorted(sums.items(), key=lambda entry: entry[0] == "all"):
        row_of(program, int(number), f"{pss:.0f} MB", f"{rss:.0f} MB", f"{percent:.2f} %")
    row_of("limit", "", f"{LIMIT_MB} MB", "", f"{LIMIT_PERCENT} %")
