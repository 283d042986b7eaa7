from collections.abc import Callable
from typing import Any

from servers import wait_for
from service import Client, LocalService

Stored = Callable[[str], list[tuple[int, str, str]]]


def test_every_answer_names_the_offline_model(offline: LocalService, session_id: str, stored: Stored) -> None:
    body = offline.client.chat("Hello", session_id=session_id).json()
    assert body["model"] == "offline"
    assert len(body["response"].split()) == body["usage"]["output_tokens"] == 40
    assert stored(session_id) == [(1, "user", "Hello"), (2, "assistant", body["response"])]


def test_stream_has_as_many_tokens_as_the_answer(offline: LocalService) -> None:
    *tokens, done = offline.client.events("Hello")
    assert len(tokens) == done.data["usage"]["output_tokens"] == 40
    assert "".join(event.data["token"] for event in tokens) == done.data["response"]
    assert done.data["response"] == offline.client.chat("Hello").json()["response"]
    assert done.data["model"] == "offline"


def test_pace_is_kept_in_streams_only(
    run: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any]
) -> None:
    # The second token is hours away.
    slow: Client = run({**base_settings, "offline_tokens": 2, "offline_tokens_per_second": 1e-4}).client
    with slow.stream("POST", "/api/chat/stream", json={"message": "Hello"}) as response:
        # Kept: the connection ends with it.
        lines = response.iter_lines()
        assert next(lines) == "event: token"
        assert slow.chat("Hello").json()["usage"]["output_tokens"] == 2
        wait_for(lambda: slow.metric("agent_active_requests") == 1, 10, "the stream alone")


def test_ready_tells_that_no_model_is_set(offline: LocalService) -> None:
    check = offline.client.get("/ready").json()["checks"]["model"]
    assert (check["name"], check["status"]) == ("offline", "ok")
