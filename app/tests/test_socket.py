"""The conversation over a WebSocket."""

import contextlib
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from access import FREE, GUARD, bearer, token
from servers import Model, Postgres, wait_for
from service import KEY, LocalService
from sockets import Socket, closed
from websockets.exceptions import ConnectionClosed, InvalidStatus

Stored = Callable[[str], list[tuple[int, str, str]]]


@pytest.fixture(scope="module")
def guarded(run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any]) -> LocalService:
    """What tests of this module ask for that others do not."""
    settings = {
        **GUARD,
        "tiers": {
            **GUARD["tiers"],
            "free": {"requests_per_day": 2},
            "tiny": {"requests_per_day": None, "tokens_per_request": 99},
        },
        "cors_origins": ["https://shop.example.com"],
        "body_max_bytes": 2048,
        "release": "sockets",
    }
    return run({**model_settings, **settings})


def named(credential: str) -> dict[str, str]:
    """The first message of who cannot send a header."""
    return {"authorization": f"Bearer {credential}"}


def test_events_are_those_of_a_stream(service: LocalService, model: Model, session_id: str, stored: Stored) -> None:
    with Socket(service.port) as socket:
        *tokens, done = socket.ask("Olá, ação", session_id=session_id)
    streamed = service.client.events("Olá, ação")[-1].data
    assert {frame["event"] for frame in tokens} == {"token"}
    assert len(tokens) > 1
    assert "".join(frame["data"]["token"] for frame in tokens) == done["data"]["response"]
    assert {**done["data"], "session_id": None} == {**streamed, "session_id": None}
    assert stored(session_id) == [(1, "user", "Olá, ação"), (2, "assistant", done["data"]["response"])]


def test_socket_keeps_its_conversation(service: LocalService, model: Model, session_id: str) -> None:
    with Socket(service.port, headers={"X-Session-Id": session_id}) as socket:
        first, second = socket.ask("First")[-1], socket.ask("Second")[-1]
        assert [frame["data"]["session_id"] for frame in (first, second)] == [session_id] * 2
        assert second["data"]["response"] == "(2) You said: Second"
        assert first["request_id"] != second["request_id"]
        other = socket.ask("Other", session_id=f"{session_id}-other")[-1]["data"]
        assert other["response"] == "(1) You said: Other"
        assert socket.ask("More")[-1]["data"]["session_id"] == f"{session_id}-other"


def test_messages_are_answered_one_after_another(service: LocalService, model: Model) -> None:
    with Socket(service.port) as socket:
        for number in range(5):
            socket.send(message=f"Number {number}")
        answers = [socket.answer()[-1]["data"] for _ in range(5)]
    assert [answer["response"] for answer in answers] == [f"({n + 1}) You said: Number {n}" for n in range(5)]
    assert len({answer["session_id"] for answer in answers}) == 1


def test_stream_begun_anew_is_told(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], model: Model, other_model: Model
) -> None:
    fallback = {"model_fallbacks": ["openai:gpt-4.1-mini"], "openai_url": f"{other_model.url}/v1"}
    both = run({**model_settings, **fallback, "openai_key": other_model.key, "release": "restarted"})
    model.control(cut_after_tokens=2)
    with Socket(both.port) as socket:
        frames = socket.ask("A message of several words")
    names = [frame["event"] for frame in frames]
    assert names.count("restart") == 1
    kept = frames[names.index("restart") + 1 : -1]
    assert "".join(frame["data"]["token"] for frame in kept) == frames[-1]["data"]["response"]


@pytest.mark.parametrize(
    ("frame", "status", "code"),
    [
        ("not json", 400, "invalid-json"),
        ("[]", 422, "invalid-request"),
        ("{}", 422, "invalid-request"),
        ('{"message": "Hi", "colour": "red"}', 422, "invalid-request"),
        ('{"message": "a\\u0000b"}', 422, "invalid-request"),
        ('{"message": "a\\ud800b"}', 400, "invalid-json"),
        ('{"message": "  "}', 422, "invalid-request"),
        (json.dumps({"message": "a" * 3000}), 413, "body-too-large"),
        (json.dumps({"message": "漢" * 600}, ensure_ascii=False), 413, "prompt-too-large"),
        ("[" * 1500, 400, "invalid-json"),
    ],
)  # fmt: skip
def test_what_is_no_message_is_an_error_and_the_socket_goes_on(
    guarded: LocalService, model: Model, frame: str, status: int, code: str
) -> None:
    with Socket(guarded.port, key=None) as socket:
        credential = token("ana", tier="tiny") if code == "prompt-too-large" else KEY
        socket.send(**named(credential))
        socket.connection.send(frame)
        (error,) = socket.answer()
        assert (error["event"], error["data"]["status"]) == ("error", status), error
        assert error["data"]["type"] == f"urn:agent:problem:{code}"
        assert error["data"]["request_id"]
        assert socket.ask("And now?")[-1]["event"] == "done"


@pytest.mark.parametrize(
    "first",
    [
        named(f"{KEY}x"),
        named(""),
        {"authorization": KEY},
        named("ключ"),
        {"message": "Hi"},
        {**named(KEY), "message": "Hi"},
    ],
)
def test_nobody_speaks_without_a_credential(guarded: LocalService, model: Model, first: dict[str, str]) -> None:
    with Socket(guarded.port, key=None) as socket:
        socket.send(**first)
        with contextlib.suppress(ConnectionClosed):
            socket.send(message="Hi")
        assert socket.next()["data"]["status"] == 401
        assert closed(socket) == 1008
    assert model.requests() == []


def test_credential_may_not_be_kept_back(guarded: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_service.api.socket.CREDENTIAL_SECONDS", 0.1)
    with Socket(guarded.port, key=None) as socket:
        assert closed(socket) == 1008


def test_wrong_header_is_refused_at_once(guarded: LocalService) -> None:
    with pytest.raises(InvalidStatus) as refused, Socket(guarded.port, key=f"{KEY}x"):
        pass
    assert refused.value.response.status_code == 401
    assert json.loads(refused.value.response.body)["type"] == "urn:agent:problem:unauthorized"


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        ("https://shop.example.com", True),
        ("http://127.0.0.1:8443", True),
        ("https://evil.example.com", False),
        ("https://127.0.0.1.evil.example.com", False),
        ("null", False),
        ("http://[", False),
    ],
)
def test_pages_of_other_origins_are_kept_out(guarded: LocalService, origin: str, allowed: bool) -> None:
    if allowed:
        with Socket(guarded.port, headers={"Origin": origin}) as socket:
            assert socket.ask("Hi")[-1]["event"] == "done"
        return
    with pytest.raises(InvalidStatus) as refused, Socket(guarded.port, headers={"Origin": origin}):
        pass
    assert refused.value.response.status_code == 403
    assert json.loads(refused.value.response.body)["type"] == "urn:agent:problem:origin-not-allowed"


def test_each_message_is_counted(guarded: LocalService, model: Model) -> None:
    with Socket(guarded.port, key=None) as socket:
        socket.send(**named(FREE))
        assert [socket.ask("Hi")[-1]["event"] for _ in range(2)] == ["done"] * 2
        refused = socket.ask("Hi")[-1]["data"]
    assert refused["type"] == "urn:agent:problem:too-many-requests"
    assert 0 < refused["retry_after"] <= 24 * 3600
    assert guarded.client.post("/api/chat", json={"message": "Hi"}, headers=bearer(FREE)).status_code == 429


def test_token_that_ends_ends_the_socket(guarded: LocalService, model: Model) -> None:
    with Socket(guarded.port, key=None) as socket:
        until = int(time.time()) + 2
        socket.send(**named(token("ana", tier="pro", exp=until)))
        assert socket.ask("Hi")[-1]["event"] == "done"
        wait_for(lambda: time.time() > until, 5, "the token's end")
        assert socket.ask("Hi")[-1]["data"]["status"] == 401
        assert closed(socket) == 1008


def test_binary_messages_are_not_read(guarded: LocalService) -> None:
    with Socket(guarded.port) as socket:
        socket.connection.send(b"Hi")
        assert closed(socket) == 1003


def test_silent_socket_is_closed(guarded: LocalService, monkeypatch: pytest.MonkeyPatch) -> None:
    # Settings are frozen, so that nothing but a test may do this.
    monkeypatch.setitem(guarded.settings.__dict__, "socket_idle_seconds", 0.1)
    with Socket(guarded.port) as socket:
        assert closed(socket) == 1000


def test_client_that_leaves_ends_its_answer(
    guarded: LocalService, model: Model, session_id: str, stored: Stored
) -> None:
    model.control(tokens_per_second=4, answer="one two three four five six seven eight nine ten")
    with Socket(guarded.port) as socket:
        socket.send(message="Hi", session_id=session_id)
        assert socket.next()["event"] == "token"
    wait_for(lambda: guarded.client.metric("agent_active_requests") == 0, 2, "end of the turn")
    model.control(reset=True)
    assert guarded.client.chat("Again", session_id=session_id).json()["response"] == "(1) You said: Again"
    assert len(stored(session_id)) == 2


def test_client_that_reads_nothing_is_given_up(
    guarded: LocalService, model: Model, session_id: str, stored: Stored, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent_service.api.socket.SEND_SECONDS", 0.3)
    # In few pieces that nothing makes small: what has to be slow is the client, not the service.
    model.control(answer=(" " * 20_000 + "word") * 1_000)
    name = 'agent_requests_total{route="/api/chat/ws",status="499"}'
    before = guarded.client.metric(name)
    with Socket(guarded.port, max_queue=1, ping_interval=None, compression=None, close_timeout=1) as socket:
        socket.send(message="Hi", session_id=session_id)
        wait_for(lambda: guarded.client.metric(name) == before + 1, 60, "the turn given up")
    assert stored(session_id) == []


def test_messages_are_measured_and_recorded(
    guarded: LocalService, model: Model, postgres: Postgres, database: str, session_id: str
) -> None:
    name = 'agent_requests_total{route="/api/chat/ws",status="200"}'
    before = guarded.client.metric(name)
    with Socket(guarded.port, key=None) as socket:
        user = f"user-{uuid.uuid4()}"
        socket.send(**named(token(user, tier="pro")))
        done = socket.ask("Hi", session_id=session_id)[-1]
        socket.send(colour="red")
        assert socket.next()["event"] == "error"
    rows = "SELECT request_id, kind, status, conversation_id FROM audit WHERE user_id = %s ORDER BY happened_at"
    wait_for(lambda: len(postgres.execute(rows, database, [user])) == 3, 10, "the audit rows")
    message, refused, socket_row = postgres.execute(rows, database, [user])
    assert message == (done["request_id"], "change", 200, session_id)
    assert refused[1:] == ("access", 422, None)
    assert socket_row[1:] == ("access", 101, None)
    wait_for(lambda: guarded.client.metric(name) == before + 1, 5, "the metric")
