"""The deployed fleet as users see it: HTTPS at the edge, Nginx, HAProxy, agents of two Debian releases, both stores."""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

import httpx
import pytest
import yaml
from support.deploys import haproxy, until
from support.fleet import Fleet, Result

CORPUS = yaml.safe_load((Path(__file__).parent / "corpus.yml").read_text())
STREAM_HEADERS = {"Accept": "text/event-stream"}


def live_slots(fleet: Fleet) -> dict[str, str]:
    """The slot of each agent host that has traffic, as status.yml reports it."""
    return {
        host["name"]: slot
        for host in fleet.status()["hosts"]
        for slot, state in (host["slots"] or {}).items()
        if state and state["weight"]
    }


def answered(fleet: Fleet, host: str, slot: str) -> float:
    """Chat requests that one instance has answered, by its own metrics."""
    port = 8100 if slot == "blue" else 8150
    code = (
        f"import urllib.request as u; print(u.urlopen('http://{fleet.address(host)}:{port}/metrics').read().decode())"
    )
    metrics = fleet.on("edge1", f'python3 -c "{code}"').ok().stdout
    lines = [line for line in metrics.splitlines() if line.startswith("agent_requests_total{") and "/api/chat" in line]
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines)


def test_both_debian_releases_serve_side_by_side(fleet: Fleet, client: httpx.Client) -> None:
    slots = live_slots(fleet)
    assert set(slots) == {"agent1", "agent2"}
    before = {host: answered(fleet, host, slot) for host, slot in slots.items()}
    for _ in range(40):
        session = str(uuid.uuid4())
        answer = client.post(
            "/api/chat", json={"message": "Hello", "session_id": session}, headers={"X-Session-Id": session}
        )
        assert answer.status_code == 200, answer.text
    served = {host: answered(fleet, host, slot) - before[host] for host, slot in slots.items()}
    assert sum(served.values()) == 40
    assert all(served.values()), served


def test_conversation_goes_on_where_its_host_is_stopped(
    fleet: Fleet, client: httpx.Client, model_server: httpx.Client
) -> None:
    session, word = str(uuid.uuid4()), f"zebra-{uuid.uuid4().hex[:8]}"
    slots = live_slots(fleet)

    def say(message: str) -> dict[str, object]:
        body = {"message": message, "session_id": session, "user_id": "ana"}
        answer = client.post("/api/chat", json=body, headers={"X-Session-Id": session})
        assert answer.status_code == 200, answer.text
        return answer.json()

    say(f"Remember the word {word}.")
    for host in ("agent1", "agent2"):
        unit = f"agent@{slots[host]}-1"
        try:
            fleet.on(host, f"systemctl stop {unit}").ok()
            assert say("Which word was it?")["session_id"] == session
            asked = model_server.get("/_requests").json()["requests"][-1]
            assert any(word in json.dumps(message) for message in asked["body"]["messages"]), asked
        finally:
            fleet.on(host, f"systemctl start {unit}").ok()
        until(lambda host=host: up(fleet, host), f"{host} back in traffic")
    stored = fleet.sql(f"SELECT count(*) FROM messages WHERE conversation_id = '{session}'")
    assert stored == "6"


def up(fleet: Fleet, host: str) -> bool:
    """Whether HAProxy sends users to this host again."""
    _version, _heading, *servers = haproxy(fleet, "show servers state agent")
    # Its name, operational state and weight.
    return any(words[3].startswith(f"{host}-") and words[5] == "2" and words[7] != "0" for words in servers)


def test_corpus_goes_through_and_is_stored(fleet: Fleet, client: httpx.Client) -> None:
    assert len(CORPUS) >= 30
    assert {entry["language"] for entry in CORPUS} == {"en", "pt", "zh", "ko"}
    session = str(uuid.uuid4())
    for number, entry in enumerate(CORPUS):
        answer = client.post(
            "/api/chat",
            json={"message": entry["text"], "session_id": f"{session}-{number}", "user_id": "corpus"},
            headers={"X-Session-Id": f"{session}-{number}"},
        )
        assert answer.status_code == 200, answer.text
        assert entry["text"] in answer.json()["response"]
        assert answer.json()["model"] != "offline"
        assert answer.json()["usage"]["input_tokens"] > 0
    rows = json.loads(
        fleet.sql(
            "SELECT json_agg(json_build_array(conversation_id, position, role, content) ORDER BY position)"
            f" FROM messages WHERE conversation_id LIKE '{session}-%'"
        )
    )
    for number, entry in enumerate(CORPUS):
        turns = [row for row in rows if row[0] == f"{session}-{number}"]
        assert [row[2] for row in turns] == ["user", "assistant"]
        assert turns[0][3] == entry["text"]
        assert entry["text"] in turns[1][3]


@pytest.mark.parametrize("entry", CORPUS[::8], ids=lambda entry: entry["language"])
def test_stream_arrives_token_by_token(client: httpx.Client, model_server: httpx.Client, entry: dict[str, str]) -> None:
    # Of an agent with tools the first 160 characters are held back, since they may turn out to be no answer.
    long = f"{entry['text']} {'and on ' * 40}"
    model_server.post("/_control", json={"tokens_per_second": 40, "answer": long}).raise_for_status()
    try:
        arrived: list[float] = []
        events: list[tuple[str, dict[str, object]]] = []
        body = {"message": entry["text"], "session_id": str(uuid.uuid4())}
        with client.stream("POST", "/api/chat/stream", json=body, headers=STREAM_HEADERS) as answer:
            assert answer.status_code == 200
            name = ""
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    arrived.append(time.monotonic())
                    events.append((name, json.loads(line.removeprefix("data: "))))
    finally:
        model_server.post("/_control", json={"tokens_per_second": 0, "answer": None}).raise_for_status()
    assert [name for name, _ in events].count("done") == 1
    assert events[-1][0] == "done"
    assert entry["text"] in str(events[-1][1]["response"])
    # Held back by a buffer, all would arrive at once.
    assert arrived[-1] - arrived[0] > 0.1
    assert len(arrived) > 3


def test_smoke_and_status_agree(fleet: Fleet) -> None:
    smoke = fleet.playbook("smoke").ok()
    assert "https://agent.lab.test" in smoke.stdout
    document = fleet.status()
    assert document["traffic"] == {document["release"]: 1.0} or document["traffic"] == {document["release"]: 100}
    table: Result = fleet.playbook("status").ok()
    for host in ("edge1", "agent1", "agent2", "data1", "ops1"):
        assert host in table.stdout
    assert str(document["release"]) in table.stdout
