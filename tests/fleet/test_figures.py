"""What Prometheus says of two minutes is what happened, by those who asked and by the model's server."""

from __future__ import annotations

import json
import shlex
import time
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from support.deploys import options, serving
from support.fleet import TOP, Fleet
from support.load import Load, load_on

pytestmark = pytest.mark.soak

RATE = 8
SECONDS = 120
# Long beside what client and server see of the way between them.
MODEL_SECONDS = 1.0
MODEL = "deepseek-v4-flash"
CHAT = 'route="/api/chat"'
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=30).read().decode())"


@dataclass(frozen=True)
class Span:
    """A time in which something happened, and what came of it on either side."""

    load: Load
    begin: float
    end: float
    usage: dict[str, int]


@pytest.fixture(scope="module")
def ask(fleet: Fleet) -> Callable[..., list[dict[str, Any]]]:
    def call(query: str, at: float) -> list[dict[str, Any]]:
        url = f"http://127.0.0.1:9090/api/v1/query?{urlencode({'query': query, 'time': at})}"
        text = fleet.on("ops1", f"python3 -c {shlex.quote(FETCH)} {shlex.quote(url)}").ok().stdout
        return list(json.loads(text)["data"]["result"])

    return call


@pytest.fixture(scope="module")
def span(fleet: Fleet, app: Path, model_server: httpx.Client) -> Iterator[Span]:
    """Two minutes of questions, in which a blue-green deploy brings a release that begins to fail three of ten."""
    fleet.playbook("deploy", *options(app, "figures-stable", 0)).ok()
    model_server.post("/_control", json={"latency_seconds": MODEL_SECONDS}).raise_for_status()
    try:
        # What the deploy itself asked is read before.
        time.sleep(15)
        before, begin = usage(model_server), time.time()
        with load_on(fleet, RATE) as load:
            fleet.playbook(
                "deploy", *options(app, "figures", 0, "errors", agent_environment={"FAULT_AFTER": "45"})
            ).ok()
            assert serving(fleet).startswith("figures-")
            load.wait_for(max(1, int(RATE * (SECONDS - (time.time() - begin)))))
        # The last of it is read, too.
        time.sleep(15)
        after = usage(model_server)
        yield Span(load, begin, time.time(), {name: after[name] - before[name] for name in after})
    finally:
        model_server.post("/_control", json={"reset": True}).raise_for_status()
        fleet.playbook("deploy", *options(app, "figures-after", 0)).ok()


def usage(model_server: httpx.Client) -> dict[str, int]:
    found = model_server.get("/_usage").raise_for_status().json()
    return {"calls": 0, "input": 0, "output": 0} | found.get(MODEL, {})


def counted(ask: Callable[..., list[dict[str, Any]]], selector: str, span: Span) -> float:
    """How much a counter grew, over all processes, each of which begins at 0; by its readings alone.

    A process that has just been tried has counted as much as the one before it had: when it began tells them apart.
    """
    window, total = f"[{span.end - span.begin + 15:.0f}s]", 0.0
    begun = {target(series): dict(series["values"]) for series in ask(f"process_start_time_seconds{window}", span.end)}
    for series in ask(f"{selector}{window}", span.end):
        processes = begun.get(target(series), {})
        last, process = 0.0, None
        for at, text in series["values"]:
            value = float(text)
            if value < last or processes.get(at) != process:
                last = 0.0
            if float(at) > span.begin:
                total += value - last
            last, process = value, processes.get(at)
    return total


def target(series: dict[str, Any]) -> tuple[str, str]:
    return series["metric"].get("job", ""), series["metric"].get("instance", "")


def test_requests_and_errors_agree(ask: Callable[..., list[dict[str, Any]]], span: Span) -> None:
    seen = span.load.count()
    assert seen.sent > RATE * SECONDS * 0.9
    assert seen.failed > 50, "the release was to fail"
    # What is refused before the service is not counted by it.
    errors = counted(ask, 'haproxy_frontend_http_responses_total{proxy="edge:agent",code="5xx"}', span)
    requests = counted(ask, f"agent_requests_total{{{CHAT}}}", span) + errors
    assert errors == pytest.approx(seen.failed, rel=0.02)
    assert requests == pytest.approx(seen.sent, rel=0.02)
    whole = counted(ask, 'haproxy_frontend_http_responses_total{proxy="edge:agent"}', span)
    assert whole == pytest.approx(seen.sent, rel=0.1), "with what watches and tries the site"


def test_what_19_of_20_answers_stay_under_agrees(ask: Callable[..., list[dict[str, Any]]], span: Span) -> None:
    window = f"{span.end - span.begin:.0f}s"
    query = f"histogram_quantile(0.95, sum by (le) (increase(agent_request_seconds_bucket{{{CHAT}}}[{window}])))"
    [series] = ask(query, span.end)
    assert float(series["value"][1]) == pytest.approx(span.load.percentile(0.95), rel=0.1)


def test_tokens_and_cost_agree_exactly_across_the_deploy(ask: Callable[..., list[dict[str, Any]]], span: Span) -> None:
    assert span.usage["calls"] > 100
    for direction in ("input", "output"):
        assert (
            counted(ask, f'agent_tokens_total{{model="{MODEL}",direction="{direction}"}}', span)
            == span.usage[direction]
        )
    assert counted(ask, f'agent_cost_usd_total{{model="{MODEL}"}}', span) == pytest.approx(
        price_of(span.usage), rel=1e-9
    )


def price_of(usage: dict[str, int]) -> float:
    """By the same table, at this hour."""
    prices = tomllib.loads((TOP / "app/src/agent_service/models/prices.toml").read_text())[MODEL]
    now = datetime.now(UTC).strftime("%H:%M")
    peak = any(first <= now < last for first, last in (hours.split("-") for hours in prices["peak"]["hours"]))
    rate = {**prices, **prices["peak"]} if peak else prices
    return (usage["input"] * rate["input"] + usage["output"] * rate["output"]) / 1e6
