from collections.abc import Callable
from typing import Any

import pytest
from servers import Model, wait_for
from service import KEY, Client, LocalService, parse_events
from test_chat import LANGUAGES

Stored = Callable[[str], list[tuple[int, str, str]]]


@pytest.mark.parametrize("message", LANGUAGES.values(), ids=LANGUAGES.keys())
def test_tokens_join_to_the_answer(client: Client, session_id: str, message: str, stored: Stored) -> None:
    *tokens, done = client.events(message, session_id=session_id)
    assert {event.name for event in tokens} == {"token"}
    assert len(tokens) > 1
    assert done.name == "done"
    assert "".join(event.data["token"] for event in tokens) == done.data["response"] == f"(1) You said: {message}"
    assert stored(session_id) == [(1, "user", message), (2, "assistant", done.data["response"])]


def test_done_carries_what_a_plain_answer_does(client: Client, session_id: str) -> None:
    done = client.events("Hello", session_id=session_id)[-1].data
    plain = client.chat("Hello").json()
    assert done.keys() == plain.keys()
    assert done["usage"] == plain["usage"]
    assert done["session_id"] == session_id


def test_time_to_the_first_token_is_counted_once_a_stream(client: Client, model: Model) -> None:
    names = ("agent_first_token_seconds_count", "agent_first_token_seconds_sum", "agent_model_seconds_sum")
    before = [client.metric(name) for name in names]
    model.control(tokens_per_second=20, answer="one two three four five six seven eight")
    client.events("Hello")
    count, first, whole = (client.metric(name) - then for name, then in zip(names, before, strict=True))
    assert count == 1
    assert 0 < first < whole
    client.chat("Hello")
    assert client.metric(names[0]) == before[0] + 1


def test_stream_by_get(client: Client, session_id: str) -> None:
    response = client.get("/chat/stream", params={"message": "Olá, ação", "session_id": session_id})
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert response.headers["x-accel-buffering"] == "no"
    assert response.headers["x-session-id"] == session_id
    assert parse_events(response.text)[-1].data["response"] == "(1) You said: Olá, ação"


def test_streams_and_plain_answers_share_a_conversation(client: Client, peer: LocalService, session_id: str) -> None:
    client.events("First", session_id=session_id)
    peer.client.chat("Second", session_id=session_id)
    assert client.events("Third", session_id=session_id)[-1].data["response"] == "(3) You said: Third"


def test_tokens_arrive_as_the_model_makes_them(client: Client, model: Model) -> None:
    # The model makes them for longer than anything here waits; who goes away before the end lets it stop.
    model.control(tokens_per_second=2, answer="word " * 200)
    idle = client.metric("agent_active_requests")
    with client.stream("POST", "/api/chat/stream", json={"message": "Hi"}) as response:
        # Kept: the connection ends with it.
        lines = response.iter_lines()
        assert next(lines) == "event: token"
        assert client.metric("agent_active_requests") == idle + 1


def test_failure_before_the_first_token_is_a_plain_error(client: Client, model: Model, session_id: str) -> None:
    model.control(fail_next=10, status=500)
    response = client.post("/api/chat/stream", json={"message": "Hi", "session_id": session_id})
    assert response.status_code == 502
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-agent-error-source"] == "model"


@pytest.mark.parametrize("cleanly", [False, True], ids=["reset", "ended"])
def test_cut_stream_ends_with_an_error_and_stores_nothing(
    client: Client, model: Model, session_id: str, stored: Stored, cleanly: bool
) -> None:
    model.control(cut_after_tokens=3, cut_cleanly=cleanly)
    *tokens, last = client.events("Hello, this is a message of several tokens", session_id=session_id)
    assert [event.name for event in tokens] == ["token"] * 3
    assert last.name == "error"
    assert last.data["status"] == 502
    assert last.data["request_id"]
    assert stored(session_id) == []
    model.control(reset=True)
    assert client.chat("Again", session_id=session_id).json()["response"] == "(1) You said: Again"


def test_stalled_stream_times_out(client: Client, model: Model, session_id: str, stored: Stored) -> None:
    model.control(tokens_per_second=0.4)
    last = client.events("Hello", session_id=session_id)[-1]
    assert (last.name, last.data["status"]) == ("error", 504)
    assert stored(session_id) == []


def test_client_that_leaves_ends_the_turn(client: Client, model: Model, session_id: str, stored: Stored) -> None:
    model.control(tokens_per_second=4, answer="one two three four five six seven eight nine ten")
    with client.stream("POST", "/api/chat/stream", json={"message": "Hi", "session_id": session_id}) as response:
        next(response.iter_lines())
    wait_for(lambda: client.metric("agent_active_requests") == 0, 2, "end of the turn")
    model.control(reset=True)
    # The turn's lock is free, and nothing of it was kept.
    assert client.chat("Again", session_id=session_id).json()["response"] == "(1) You said: Again"
    assert len(stored(session_id)) == 2


def test_whole_turn_has_a_limit(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], model: Model, session_id: str
) -> None:
    hasty = run({**model_settings, "turn_seconds": 0.5}).client
    model.control(tokens_per_second=5, answer="one two three four five six seven eight nine ten")
    last = hasty.events("Hi", session_id=session_id)[-1]
    assert (last.name, last.data["status"]) == ("error", 504)
    model.control(latency_seconds=0.9)
    assert hasty.chat("Hi", session_id=session_id).status_code == 504


def test_waiting_for_the_model_is_filled_with_comments(
    client: Client, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_service.api.streams.PING_SECONDS", 0.2)
    model.control(latency_seconds=0.7)
    response = client.post("/api/chat/stream", json={"message": "Hi"})
    assert response.text.startswith(": waiting\n\n")
    assert parse_events(response.text)[-1].name == "done"
    model.control(reset=True, fail_next=5, latency_seconds=0.5)
    response = client.post("/api/chat/stream", json={"message": "Hi"})
    assert response.status_code == 200
    assert parse_events(response.text)[-1].name == "error"


def test_stream_needs_the_key(client: Client) -> None:
    response = client.get("/chat/stream", params={"message": "Hi"}, headers={"Authorization": f"Bearer {KEY}x"})
    assert response.status_code == 401
