import json
import socket
from typing import Any

import httpx
import pytest
from servers import Model
from service import KEY, Client, LocalService

LIMIT = 256 * 1024
JSON = {"Content-Type": "application/json"}

BODIES: dict[str, tuple[Any, int, str]] = {
    "empty": ({"message": ""}, 422, "message: is empty"),
    "blank": ({"message": " \n\t\u3000"}, 422, "message: is empty"),
    "missing": ({}, 422, "message: is missing"),
    "null": ({"message": None}, 422, "message: "),
    "number": ({"message": 5}, 422, "message: "),
    "list": ({"message": ["a"]}, 422, "message: "),
    "unknown field": ({"message": "Hi", "mesage": "x"}, 422, "mesage: is not known"),
    "nul": ({"message": "a\x00b"}, 422, "U+0000"),
    "escape": ({"message": "a\x1b[31m"}, 422, "U+001B"),
    "c1 control": ({"message": "a\x85b"}, 422, "U+0085"),
    "carriage return": ({"message": "a\rb"}, 422, "U+000D"),
    "too long": ({"message": "x" * 32_001}, 422, "32001 characters; 32000 are allowed"),
    "empty session": ({"message": "Hi", "session_id": ""}, 422, "session_id: "),
    "session with a space": ({"message": "Hi", "session_id": "a b"}, 422, "session_id: "),
    "session with a line": ({"message": "Hi", "session_id": "a\n"}, 422, "session_id: "),
    "long session": ({"message": "Hi", "session_id": "a" * 129}, 422, "session_id: "),
    "number as session": ({"message": "Hi", "session_id": 7}, 422, "session_id: "),
    "surrogate in user": ({"message": "Hi", "user_id": "a\ud800"}, 422, "lone surrogate"),
    "nul in user": ({"message": "Hi", "user_id": "a\x00"}, 422, "U+0000"),
    "line in user": ({"message": "Hi", "user_id": "a\nb"}, 422, "user_id: "),
    "long user": ({"message": "Hi", "user_id": "a" * 129}, 422, "user_id: "),
    "array": ([1, 2], 422, "JSON object"),
    "string": ("Hi", 422, "JSON object"),
}

RAW: dict[str, tuple[bytes, int, str]] = {
    "nothing": (b"", 422, "is missing"),
    "not json": (b"message=Hi", 400, "not JSON"),
    "cut json": (b'{"message": "Hi', 400, "not JSON"),
    "not utf-8": (b'{"message": "\xff\xfe"}', 400, ""),
    "lone surrogate": (b'{"message": "a\\ud800b"}', 422, "lone surrogate"),
    "surrogate in a name": (b'{"message": "Hi", "\\udfff": 1}', 422, "lone surrogate"),
    "nul escape": (b'{"message": "a\\u0000b"}', 422, "U+0000"),
    "deep nesting": (b'{"message": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, ""),
    "endless number": (b'{"message": ' + b"9" * 10_000 + b"}", 400, ""),
    "over the limit": (json.dumps({"message": "x" * 2**20}).encode(), 413, f"{LIMIT} bytes"),
}


def check_problem(response: httpx.Response, status: int, reason: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == status
    assert problem["type"].startswith("urn:agent:problem:")
    assert problem["title"]
    assert problem["request_id"] == response.headers["x-request-id"]
    assert reason in problem["detail"]


@pytest.mark.parametrize(("body", "status", "reason"), BODIES.values(), ids=BODIES.keys())
@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
def test_bad_body(client: Client, model: Model, path: str, body: Any, status: int, reason: str) -> None:
    check_problem(client.post(path, content=json.dumps(body), headers=JSON), status, reason)
    assert model.requests() == []


@pytest.mark.parametrize(("content", "status", "reason"), RAW.values(), ids=RAW.keys())
@pytest.mark.parametrize("path", ["/api/chat", "/chat", "/api/agent"])
def test_bad_bytes(client: Client, path: str, content: bytes, status: int, reason: str) -> None:
    if path == "/api/agent":
        content = content.replace(b'"message"', b'"input"')
    check_problem(client.post(path, content=content, headers=JSON), status, reason)


def test_body_without_a_length_is_limited_too(client: Client) -> None:
    pieces = (b"x" * 65536 for _ in range(8))
    check_problem(client.post("/api/chat", content=pieces, headers=JSON), 413, "bytes")


def test_reason_reaches_a_client_that_sends_it_all_first(service: LocalService) -> None:
    body = b"x" * (6 * 1024 * 1024)
    head = f"POST /api/chat HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", service.port), timeout=20) as connection:
        connection.sendall(head.encode() + body)
        assert connection.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_other_media_type(client: Client) -> None:
    body = json.dumps({"message": "Hi"})
    check_problem(client.post("/api/chat", content=body, headers={"Content-Type": "text/plain"}), 422, "JSON")
    check_problem(client.post("/api/chat", data={"message": "Hi"}), 422, "JSON")


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("", "message: is missing"),
        ("message=", "message: is empty"),
        ("message=a%00b", "U+0000"),
        ("message=Hi&temperature=1", "temperature: is not known"),
        ("message=Hi&session_id=a%20b", "session_id: "),
    ],
)
def test_bad_query(client: Client, query: str, reason: str) -> None:
    check_problem(client.get(f"/chat/stream?{query}"), 422, reason)


@pytest.mark.parametrize("value", ["a b", "x" * 129, "café"])
def test_bad_session_header(client: Client, value: str) -> None:
    headers = {"X-Session-Id": value.encode()}
    check_problem(
        client.post("/api/chat", json={"message": "Hi"}, headers=headers), 422, "X-Session-Id: must be 1 to 128 visible"
    )


def test_nothing_there_and_wrong_method(client: Client) -> None:
    check_problem(client.get("/nothing"), 404, "/nothing")
    check_problem(client.get("/docs"), 404, "/docs")
    response = client.get("/api/chat")
    check_problem(response, 405, "GET")
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize(
    "header", [None, "", "Bearer", f"Bearer {KEY[:-1]}", f"Bearer {KEY}x", f"Basic {KEY}", KEY, "Bearer ü"]
)
@pytest.mark.parametrize("path", ["/api/chat", "/chat", "/api/agent", "/api/chat/stream", "/nothing"])
def test_wrong_key(service: LocalService, model: Model, path: str, header: str | None) -> None:
    with Client(service.port, key=None) as anonymous:
        headers = {} if header is None else {"Authorization": header.encode()}
        # Refused before the body is looked at.
        response = anonymous.post(path, content=b"not json", headers={**JSON, **headers})
    check_problem(response, 401, "API key")
    assert response.headers["www-authenticate"] == "Bearer"


def test_text_that_is_fine(client: Client, model: Model) -> None:
    assert client.chat("line\n\ttab\r\nwindows").json()["response"] == "(1) You said: line\n\ttab\nwindows"
    assert client.chat("x" * 32_000).status_code == 200
    assert client.chat("zero\u200bwidth \u202e bidi").status_code == 200


def test_client_that_leaves_while_sending(service: LocalService, client: Client) -> None:
    with socket.create_connection(("127.0.0.1", service.port)) as connection:
        head = f"POST /api/chat HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 100\r\n\r\n"
        connection.sendall(head.encode() + b'{"message"')
    assert client.chat("Hi").status_code == 200


def test_unhandled_failure_is_a_problem_too(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("a text that quotes the message")

    monkeypatch.setattr("agent_service.api.chat.Question", fail)
    response = client.chat("Hi")
    check_problem(response, 500, "request_id")
    assert "quotes" not in response.text
