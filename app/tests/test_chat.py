import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from servers import Model
from service import Client, LocalService

Stored = Callable[[str], list[tuple[int, str, str]]]

LANGUAGES = {
    "english": "What is our cash position this month? It's urgent!",
    "portuguese": "Qual é a posição de caixa deste mês? Não há pressa, só atenção à ação.",
    "chinese": "请问本月的现金流情况如何？谢谢您的帮助。",  # noqa: RUF001
    "korean": "이번 달 현금 흐름은 어떻습니까? 감사합니다.",
    "emoji": "\U0001f469\u200d\U0001f467 family, \U0001f1f0\U0001f1f7 flag, e\u0301 combining",
}


def said(body: dict[str, Any]) -> list[tuple[str, str]]:
    return [(message["role"], message["content"]) for message in body["messages"] if message["role"] != "system"]


def test_answer_has_the_agreed_shape(client: Client, session_id: str) -> None:
    response = client.chat("Hello", session_id=session_id, user_id="ana")
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    usage, confidence = body.pop("usage"), body.pop("confidence")
    assert body == {
        "response": "(1) You said: Hello",
        "session_id": session_id,
        "agent": "general",
        "intent": None,
        "model": "deepseek-v4-flash",
        "degraded": False,
    }
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0
    assert 0 < confidence < 1


@pytest.mark.parametrize(("path", "field"), [("/chat", "message"), ("/api/agent", "input")])
def test_aliases_answer_the_same(client: Client, session_id: str, path: str, field: str) -> None:
    response = client.post(path, json={field: "Hello", "session_id": session_id})
    assert response.json()["response"] == "(1) You said: Hello"
    assert response.json()["session_id"] == session_id


@pytest.mark.parametrize("message", LANGUAGES.values(), ids=LANGUAGES.keys())
def test_every_language_survives_the_round_trip(
    client: Client, session_id: str, message: str, model: Model, stored: Stored
) -> None:
    answer = client.chat(message, session_id=session_id).json()["response"]
    assert answer == f"(1) You said: {message}"
    assert said(model.requests()[-1]["body"])[-1] == ("user", message)
    assert stored(session_id) == [(1, "user", message), (2, "assistant", answer)]


def test_model_gets_the_prompt_and_no_thinking(client: Client, model: Model) -> None:
    client.chat("Hello")
    body = model.requests()[-1]["body"]
    assert body["messages"][0]["role"] == "system"
    assert body["model"] == "deepseek-v4-flash"
    assert body["thinking"] == {"type": "disabled"}


def test_conversation_goes_on_at_another_instance(
    client: Client, peer: LocalService, session_id: str, model: Model, stored: Stored
) -> None:
    client.chat("My name is Ana", session_id=session_id)
    peer.client.chat("I live in Porto", session_id=session_id)
    assert client.chat("Who am I?", session_id=session_id).json()["response"] == "(3) You said: Who am I?"
    assert said(model.requests()[-1]["body"]) == [
        ("user", "My name is Ana"),
        ("assistant", "(1) You said: My name is Ana"),
        ("user", "I live in Porto"),
        ("assistant", "(2) You said: I live in Porto"),
        ("user", "Who am I?"),
    ]
    assert [position for position, _, _ in stored(session_id)] == [1, 2, 3, 4, 5, 6]


def test_sessions_are_apart(client: Client, model: Model) -> None:
    client.chat("A secret", session_id="one-of-two")
    client.chat("Hello", session_id="two-of-two")
    assert said(model.requests()[-1]["body"]) == [("user", "Hello")]


def test_header_stands_in_for_a_missing_session(client: Client, session_id: str) -> None:
    response = client.post("/api/chat", json={"message": "Hi"}, headers={"X-Session-Id": session_id})
    assert response.json()["session_id"] == session_id
    assert response.headers["x-session-id"] == session_id


def test_body_names_the_conversation_and_the_header_is_echoed(client: Client, session_id: str) -> None:
    response = client.post(
        "/api/chat", json={"message": "Hi", "session_id": session_id}, headers={"X-Session-Id": "route-me"}
    )
    assert response.json()["session_id"] == session_id
    assert response.headers["x-session-id"] == "route-me"


def test_new_session_gets_an_id_to_go_on_with(client: Client) -> None:
    first, second = client.chat("Hi"), client.chat("Hi")
    assert first.json()["session_id"] == first.headers["x-session-id"]
    assert first.json()["session_id"] != second.json()["session_id"]


def test_request_id_is_kept_or_made(client: Client) -> None:
    assert (
        client.post("/api/chat", json={"message": "Hi"}, headers={"X-Request-Id": "abc-1"}).headers["x-request-id"]
        == "abc-1"
    )
    made = client.post("/api/chat", json={"message": "Hi"}, headers={"X-Request-Id": 'a"b'}).headers["x-request-id"]
    assert re.fullmatch(r"[0-9a-f]{32}", made)


def test_conversation_of_another_user_is_refused(client: Client, session_id: str, stored: Stored) -> None:
    client.chat("Mine", session_id=session_id, user_id="ana")
    response = client.chat("Show me", session_id=session_id, user_id="eve")
    assert response.status_code == 403
    assert response.json()["title"] == "Conversation of another user"
    assert len(stored(session_id)) == 2
    assert client.chat("Still mine", session_id=session_id, user_id="ana").status_code == 200


def test_history_is_bounded(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], model: Model, session_id: str
) -> None:
    bounded = run({**model_settings, "history_messages": 4, "history_characters": 500}).client
    for number in range(4):
        bounded.chat(f"Message {number}", session_id=session_id)
    assert [text for role, text in said(model.requests()[-1]["body"]) if role == "user"] == [
        "Message 1",
        "Message 2",
        "Message 3",
    ]
    bounded.chat("x" * 400, session_id=session_id)
    bounded.chat("After a long one", session_id=session_id)
    # The long answer alone fits, its question does not: half a turn is left out too.
    assert said(model.requests()[-1]["body"]) == [("user", "After a long one")]


def test_concurrent_messages_of_a_conversation_take_turns(
    client: Client, peer: LocalService, session_id: str, model: Model, stored: Stored
) -> None:
    model.control(latency_seconds=0.05)
    clients = [client, peer.client]
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda n: clients[n % 2].chat(f"Message {n}", session_id=session_id), range(8)))
    assert {answer.status_code for answer in answers} == {200}
    rows = stored(session_id)
    assert [position for position, _, _ in rows] == list(range(1, 17))
    assert {text for _, role, text in rows if role == "user"} == {f"Message {n}" for n in range(8)}
    # Each saw all that came before it: the model counts the questions it was shown.
    for turn in range(8):
        assert rows[2 * turn + 1][2] == f"({turn + 1}) You said: {rows[2 * turn][2]}"


def test_message_waits_no_longer_than_allowed(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], model: Model, session_id: str
) -> None:
    impatient = run({**model_settings, "session_wait_seconds": 0.2}).client
    model.control(latency_seconds=0.8)
    first = threading.Thread(target=impatient.chat, args=("First",), kwargs={"session_id": session_id})
    first.start()
    while not model.requests():
        pass
    response = impatient.chat("Second", session_id=session_id)
    first.join()
    assert response.status_code == 409
    assert response.json()["type"] == "urn:agent:problem:conversation-busy"
    assert response.headers["retry-after"] == "5"
    assert impatient.chat("Third", session_id=session_id).json()["response"] == "(2) You said: Third"


def test_usage_and_requests_are_counted(client: Client) -> None:
    before = {name: client.metric(name) for name in ("agent_tokens_total", "agent_model_seconds_count")}
    usage = client.chat("Hello").json()["usage"]
    assert client.metric("agent_tokens_total") - before["agent_tokens_total"] == usage["total_tokens"]
    assert client.metric("agent_model_seconds_count") - before["agent_model_seconds_count"] == 1
    text = client.get("/metrics").text
    assert 'agent_requests_total{route="/api/chat",status="200"}' in text
    assert "agent_active_requests 0.0" in text
    assert "process_resident_memory_bytes" in text
