"""What the agent service costs beside its model: one process, everything on, measured in turn with what others are.

Rounds of all in turn, and medians of each round's ratios: what else the machine does touches all alike. APP_ROUNDS and
APP_SECONDS change how many rounds there are and how long each is.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping

import httpx
from app_servers import KEY, PEERS, Bench, Server, bench, seconds_until_ready
from app_streams import open_streams
from common import TOP, row_of, table

ROUNDS = int(os.environ.get("APP_ROUNDS", "7"))
SECONDS = int(os.environ.get("APP_SECONDS", "8"))
OFFLINE = {"model_key": "", "queue": ""}
# What no such service can do without.
BARE_IMPORT = "import fastapi, uvicorn, langchain_core.language_models"
COMMAND = "`make bench ONLY=app`"
STREAMS = 500
# One a second: longer than it takes to open all of the streams.
PIECES = 60

Rates = dict[str, list[float]]


def run() -> None:
    subprocess.run([TOP / "tests/tools/apt-install", "postgresql", "redis-server", "wrk"], check=True)
    one, five, _ = os.getloadavg()
    print(f"Load average before: {one:.1f} (a minute), {five:.1f} (five)\n")
    with bench() as servers:
        starts(servers)
        with servers.service() as service, servers.peer("floor") as floor, servers.peer("squad") as squad:
            print(f"\nThe model alone answers {load(servers.model, 8, 3, '/chat/completions')[0]:.0f} requests/s.\n")
            calls_of_a_sure_message(servers, service)
            with_a_model_of_300_ms(servers, service, floor, squad)
            without_a_model(servers, service, floor, squad)
        streams(servers)


def starts(servers: Bench) -> None:
    """Until the first ready answer, and the memory of a process that waits."""
    figures: Rates = {"bare": [], "offline": [], "everything": []}
    memory: Rates = {"offline": [], "everything": []}
    for _ in range(ROUNDS):
        figures["bare"].append(servers.import_seconds(BARE_IMPORT))
        for name, changes in (("offline", OFFLINE), ("everything", {})):
            seconds, megabytes = seconds_until_ready(servers.service(**changes))
            figures[name].append(seconds)
            memory[name].append(megabytes)
    table("what", "seconds until ready", "limit", f"times `{BARE_IMPORT}`", "resident, idle", "limit", "command")
    for name in memory:
        ready, ratio = statistics.median(figures[name]), median_ratio(figures[name], figures["bare"])
        row_of(name, f"{ready:.2f}", "3", f"{ratio:.1f}", f"{max(memory[name]):.0f} MB", "150 MB", COMMAND)


def with_a_model_of_300_ms(servers: Bench, service: Server, floor: Server, squad: Server) -> None:
    servers.control(latency=0.3)
    rates = rounds({"service": service, "floor": floor}, clients=64)
    # It answers one after the other: a few answers tell its rate, and what is left takes it a while.
    chat(squad)
    squad_rate, _ = load(squad, 64, 20)
    servers.control(latency=0)
    httpx.get(f"{squad.url}/ready", timeout=120).raise_for_status()
    print("\n300 ms model, 64 clients:\n")
    head()
    compare("FastAPI + AsyncOpenAI, one call", rates["service"], rates["floor"], 0.85)
    compare("agent-squad, two calls", rates["service"], [squad_rate] * ROUNDS, 50)


def without_a_model(servers: Bench, service: Server, floor: Server, squad: Server) -> None:
    rates = rounds({"service": service, "floor": floor, "squad": squad}, clients=8)
    print("\n0 ms model, 8 clients:\n")
    head()
    compare("agent-squad, two calls, memory in the process", rates["service"], rates["squad"], 0.8)
    compare("FastAPI + AsyncOpenAI, one call, nothing kept", rates["service"], rates["floor"], None)


def head() -> None:
    table("beside", "requests/s, ours and theirs", "ratio", "least and most of a round", "limit", "command")


def compare(what: str, ours: list[float], theirs: list[float], limit: float | None) -> None:
    ratios = [one / other for one, other in zip(ours, theirs, strict=True)]
    rates = f"{statistics.median(ours):.0f}, {statistics.median(theirs):.1f}"
    spread = f"{min(ratios):.2f}, {max(ratios):.2f}"
    row_of(what, rates, f"{statistics.median(ratios):.2f}", spread, limit or "", COMMAND)


def calls_of_a_sure_message(servers: Bench, service: Server) -> None:
    before = servers.calls()
    answer = chat(service)
    print(f"\n{answer['agent']}, {answer['confidence']}: {servers.calls() - before} call of the model (limit 1)\n")


def streams(servers: Bench) -> None:
    """Many streams at a time on one process, each piece of each looked for."""
    servers.control(latency=0.3, pieces=PIECES, pause=1)
    with servers.service() as service:
        chat(service)
        outcome = open_streams(service.port, KEY, STREAMS, PIECES)
        table("streams opened", "open at a time", "whole", "failed", "seconds", "resident", "command")
        if outcome.failed:
            print(f"The last failure: {outcome.reason}", file=sys.stderr)
        row_of(
            STREAMS, outcome.most_open, outcome.whole, outcome.failed, f"{outcome.seconds:.1f}",
            f"{service.resident():.0f} MB", COMMAND,
        )  # fmt: skip


def chat(service: Server) -> Mapping[str, object]:
    answer = httpx.post(
        f"{service.url}/api/chat",
        json={"message": "How is our cash flow this month?"},
        headers={"Authorization": f"Bearer {KEY}"},
        timeout=30,
    )
    answer.raise_for_status()
    return dict(answer.json())


def rounds(servers: Mapping[str, Server], clients: int) -> Rates:
    """Requests a second of each server, in rounds of one after the other; a first one warms them up."""
    rates: Rates = {name: [] for name in servers}
    for number in range(ROUNDS + 1):
        for name, server in servers.items():
            rate, processor = load(server, clients, SECONDS if number else 3)
            if number:
                rates[name].append(rate)
                print(f"{name}: {rate:.1f}/s, {processor:.2f} ms of processor time each", file=sys.stderr)
    return rates


def load(server: Server, clients: int, seconds: int, path: str = "/api/chat") -> tuple[float, float]:
    """Requests a second, and the milliseconds of processor time that one cost the server."""
    before = server.processor_seconds()
    done = subprocess.run(
        [
            *("wrk", "--threads", "1", "--connections", str(clients), "--duration", f"{seconds}s"),
            *("--timeout", "120s", "--script", PEERS / "load.lua", f"{server.url}{path}"),
        ],
        env={**os.environ, "BENCH_KEY": KEY},
        capture_output=True,
        text=True,
    )
    line = next((line for line in done.stdout.splitlines() if line.startswith("RESULT ")), None)
    if done.returncode or line is None:
        sys.exit(f"wrk failed: {done.stdout}{done.stderr}")
    result = json.loads(line.removeprefix("RESULT "))
    if result["failed"]:
        sys.exit(f"{result['failed']} of {result['requests']} requests failed")
    spent = server.processor_seconds() - before
    return result["requests"] / result["seconds"], 1000 * spent / max(1, result["requests"])


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    return statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
