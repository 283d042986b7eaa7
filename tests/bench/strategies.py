"""What deploys cost users: every strategy and its rollback under load, counted and drawn.

RATE requests a second and STREAMS open streams run through it all, on two agent hosts with the reference service and a
model that takes 300 ms. What is sent is counted with the window in which it was to leave; a rollback begins when the
deploy before it has been left alone for a while.
"""

from __future__ import annotations

import json
import os
import secrets
import sys
import time
from typing import Any

from common import MODEL_PORT, TOP, Fleet, Result, lab, row_of, table, variables
from plot import draw
from shares import Share, shares
from support.load import REQUEST, STREAM, Load, load_on
from support.model import model_server

STRATEGIES = ("rolling", "blue_green", "canary")
STEPS = "5,25,50,100"
RATE, STREAMS = float(os.environ.get("RATE", "50")), int(os.environ.get("STREAMS", "20"))
MODEL_SECONDS, WORDS_PER_SECOND = 0.3, 2.0
CALM_SECONDS = 20
"""What lies before, between and after the two moves."""
JOURNAL = "/var/lib/agentfleet/director/journal.jsonl"
IMAGES = TOP / "docs/images"


def run() -> None:
    key = secrets.token_hex(24)
    with lab("bench", "10.89.0.0/24") as fleet:
        address = f"{fleet.prefix}.1"
        more = {"agent_model_key": key, "agent_model_url": f"http://{address}:{MODEL_PORT}"}
        fleet = Fleet(fleet.name, fleet.network, variables(fleet.name, fleet.network, **more), fleet.inventory)
        with model_server(address, MODEL_PORT, key, fleet.variables.with_name("model.log")) as model:
            control = {"latency_seconds": MODEL_SECONDS, "tokens_per_second": WORDS_PER_SECOND}
            model.post("/_control", json=control).raise_for_status()
            for name in ("site", "deploy"):
                fleet.playbook(name).ok()
            measure(fleet)


def measure(fleet: Fleet) -> None:
    """A table of two rows a strategy, and its plot."""
    wanted = os.environ.get("STRATEGIES", "").split() or STRATEGIES
    if unknown := set(wanted) - set(STRATEGIES):
        sys.exit(f"no strategy {', '.join(sorted(unknown))}; there are {', '.join(STRATEGIES)}")
    table(
        *("what", "seconds", "sent", "failed", "cut", "duplicated", "streams whole"),
        *("p99 before", "p99 during", "p99 after", "load average"),
    )
    went_wrong = []
    for strategy in wanted:
        load, runs, moved = under_load(fleet, strategy)
        for name, before, after in ((strategy, "before", "between"), ("rollback", "between", "after")):
            line = strategy if name == strategy else f"its {name}"
            row_of(*figures(load, line, runs[name], (before, name, after)))
        IMAGES.mkdir(exist_ok=True)
        draw(load, moved, f"{strategy.replace('_', '-')} and its rollback", IMAGES / f"deploy-{strategy}.png")
        print("\n".join(load.failures[:20]), file=sys.stderr, flush=True)
        went_wrong += [f"{strategy}: {name}\n{run.stdout[-6000:]}" for name, run in runs.items() if run.returncode]
    if went_wrong:
        sys.exit("\n".join(went_wrong))


def under_load(fleet: Fleet, strategy: str) -> tuple[Load, dict[str, Result], list[Share]]:
    """A deploy and the way back: what became of the load, of the playbooks, and how the traffic moved."""
    bake = ("-e", f"bake_seconds={os.environ.get('BAKE', '30')}")
    steps = ("-e", f"steps={STEPS}") if strategy == "canary" else ()
    label = f"bench-{strategy.replace('_', '-')}-{int(time.time())}"
    runs = {}
    with load_on(
        fleet,
        RATE,
        streams=STREAMS,
        words_per_second=WORDS_PER_SECOND,
        round_trip=float(os.environ.get("ROUND_TRIP", "0")),
    ) as load:
        load.wait_for(int(RATE * CALM_SECONDS))
        load.mark(strategy)
        runs[strategy] = timed_run(fleet, "deploy", "-e", f"strategy={strategy}", "-e", f"label={label}", *steps, *bake)
        load.mark("between")
        load.wait_for(int(RATE * CALM_SECONDS))
        load.mark("rollback")
        runs["rollback"] = timed_run(fleet, "rollback", *bake)
        load.mark("after")
        load.wait_for(int(RATE * CALM_SECONDS))
    return load, runs, shares(journal(fleet), load.began_at)


def timed_run(fleet: Fleet, name: str, *options: str) -> Result:
    began = time.monotonic()
    # In a session of its own, as from another terminal: the kernel shares the processor between sessions, and a
    # playbook in the load's own would slow what is to be measured.
    done = fleet.run("setsid", "--wait", *fleet.command(name, *options))
    return Result(done.returncode, done.stdout, time.monotonic() - began)


def journal(fleet: Fleet) -> list[dict[str, Any]]:
    return [json.loads(line) for line in fleet.on("edge1", f"cat {JOURNAL}").ok().stdout.splitlines() if line]


def figures(load: Load, what: str, done: Result, windows: tuple[str, str, str]) -> list[object]:
    """The row of one playbook, whose window stands between two others."""
    during = windows[1]
    requests, streams, both = (load.count(during, kind) for kind in (REQUEST, STREAM, None))
    failed = both.failed + both.refused + both.stalled + both.lost
    p99 = [f"{load.percentile(0.99, window) * 1000:.0f} ms" for window in windows]
    ending = "" if done.returncode == 0 else f" (exit status {done.returncode})"
    whole = f"{streams.answered} of {streams.sent}"
    counted = [requests.sent, failed, both.cut, both.duplicated, whole]
    return [what + ending, f"{done.seconds:.1f}", *counted, *p99, f"{os.getloadavg()[1]:.0f}"]
