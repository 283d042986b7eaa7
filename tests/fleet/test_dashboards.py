"""What Grafana's panels ask is answered by the fleet's Prometheus, from traffic that there was."""

from __future__ import annotations

import json
import math
import shlex
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from support.dashboards import expressions, filled, load
from support.deploys import until
from support.fleet import TOP, Fleet

FILES = sorted((TOP / "files/dashboards").glob("*.json"))
QUERIES = {path.stem: dict(expressions(load(path))) for path in FILES}
# One round trip for all of a dashboard's queries, over a time as Grafana asks, from the edge as its director asks.
ASK = """\
import json, sys, time, urllib.parse, urllib.request
answers, end, seconds = {}, time.time(), int(sys.argv[2])
for name, query in json.load(sys.stdin).items():
    words = {"query": query, "start": end - seconds, "end": end, "step": max(15, seconds // 400)}
    words = urllib.parse.urlencode(words).encode()
    with urllib.request.urlopen(sys.argv[1] + "/api/v1/query_range", words, timeout=30) as answer:
        answers[name] = json.load(answer)["data"]["result"]
json.dump(answers, sys.stdout)
"""
ARGUMENTS = {"revenue": "1000", "costs": "600"}
# What takes more than a minute's traffic: a rehearsed restore, a backup, a conversation that is summarized, six hours.
RARE = {
    "data": {"Last backup A", "Last rehearsal A", "Log that waits for its archive A"},
    "agents": {"Summaries and memories A"},
}
# What is there only while a job lasts.
QUEUE = "Jobs that wait or run A"


def ask(fleet: Fleet, queries: dict[str, str], seconds: int = 120) -> dict[str, list[dict[str, Any]]]:
    command = f"python3 -c {shlex.quote(ASK)} http://{fleet.address('ops1')}:9090 {seconds}"
    sent = json.dumps({name: filled(query) for name, query in queries.items()})
    return dict(json.loads(fleet.on("edge1", command, stdin=sent).ok().stdout))


def empty(answers: dict[str, list[dict[str, Any]]]) -> set[str]:
    """Those without any number: a share of nothing is none."""
    return {
        name
        for name, result in answers.items()
        if all(math.isnan(float(value)) for series in result for _at, value in series["values"])
    }


def converse(client: httpx.Client, model_server: httpx.Client) -> None:
    """A little of everything that users do, well and badly."""
    session = str(uuid.uuid4())
    client.cookies.clear()
    body = {"message": "What is the margin of revenue 1000 and costs 600?", "session_id": session, "user_id": "ana"}
    answer = client.post("/api/chat", json=body)
    assert answer.status_code == 200, answer.text
    rating = {"session_id": session, "request_id": answer.headers["X-Request-Id"], "rating": 1, "user_id": "ana"}
    client.post("/api/feedback", json=rating).raise_for_status()
    client.post("/api/analyze", json={"text": "In March 40 units were sold."}).raise_for_status()
    with client.stream("POST", "/api/chat/stream", json={**body, "message": "And in words?"}) as stream:
        assert "event: done" in stream.read().decode()
    assert client.post("/api/chat", json=body, headers={"Authorization": "Bearer nobody"}).status_code == 401


@pytest.fixture(scope="module")
def traffic(fleet: Fleet, model_server: httpx.Client) -> Iterator[None]:
    """Users who go on for as long as the panels are looked at."""
    over = threading.Event()
    said: list[BaseException] = []

    def users() -> None:
        try:
            with fleet.client() as client:
                while not over.is_set():
                    converse(client, model_server)
                    over.wait(0.5)
        except BaseException as error:
            said.append(error)

    model_server.post("/_control", json={"tool_call": {"name": "margin", "arguments": ARGUMENTS}}).raise_for_status()
    thread = threading.Thread(target=users)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        model_server.post("/_control", json={"reset": True}).raise_for_status()
    assert said == []


def await_all(fleet: Fleet, queries: dict[str, str], seconds: int = 120) -> None:
    found: set[str] = set()

    def all_there() -> bool:
        found.clear()
        found.update(empty(ask(fleet, queries, seconds)))
        return not found

    try:
        until(all_there, "every query")
    except AssertionError:
        pytest.fail(f"nothing in {', '.join(sorted(found))}")


def test_a_job_is_shown_while_it_lasts(fleet: Fleet, client: httpx.Client, model_server: httpx.Client) -> None:
    model_server.post("/_control", json={"latency_seconds": 15}).raise_for_status()
    try:
        client.post("/api/analyze", json={"text": "In March 40 units were sold."}).raise_for_status()
        await_all(fleet, {QUEUE: QUERIES["agents"][QUEUE]})
    finally:
        model_server.post("/_control", json={"reset": True}).raise_for_status()


@pytest.mark.parametrize("name", QUERIES)
def test_every_panel_shows_something(fleet: Fleet, traffic: None, name: str) -> None:
    rare = RARE.get(name, set()) | ({QUEUE} if name == "agents" else set())
    shown = {where: query for where, query in QUERIES[name].items() if not where.startswith("annotation")}
    assert rare <= set(shown)
    await_all(fleet, {where: query for where, query in shown.items() if where not in rare})


def test_deploys_are_marked(fleet: Fleet) -> None:
    """The fleet's own deploy was within the hours that a dashboard opens with."""
    marks = {where: query for where, query in QUERIES["deploys"].items() if where.startswith("annotation")}
    assert set(marks) == {"annotation Deploys", "annotation Traffic"}
    await_all(fleet, marks, 6 * 3600)
    for series in ask(fleet, marks, 6 * 3600)["annotation Deploys"]:
        assert series["metric"]["release"]
        assert all(0 < float(moment) / 1000 <= at for at, moment in series["values"])


@pytest.mark.soak
def test_what_comes_rarely_is_shown_too(fleet: Fleet, client: httpx.Client, model_server: httpx.Client) -> None:
    fleet.playbook("backup").ok()
    fleet.playbook("drill").ok()
    body = {"message": "And then?", "session_id": str(uuid.uuid4()), "user_id": "ana"}
    # More than a turn may read, so that what came before is summarized.
    for _turn in range(60):
        client.post("/api/chat", json=body).raise_for_status()
    for name, rare in RARE.items():
        await_all(fleet, {where: QUERIES[name][where] for where in rare})


def test_a_panel_without_figures_is_seen(fleet: Fleet) -> None:
    assert empty(ask(fleet, {"a": "up", "b": "no_such_metric", "c": "0 * up / 0"})) == {"b", "c"}
