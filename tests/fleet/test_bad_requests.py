"""Bad requests through the real edge: a 4xx with a reason, never a 500, and the service goes on."""

from __future__ import annotations

import json

import httpx
import pytest
from support.fleet import Fleet

GOOD = {"message": "Hello", "session_id": "bad-requests"}
JSON = {"Content-Type": "application/json"}

BODIES = {
    "empty body": b"",
    "empty message": json.dumps({"message": ""}).encode(),
    "blank message": json.dumps({"message": " \n\t "}).encode(),
    "no message": b"{}",
    "one megabyte": json.dumps({"message": "x" * 1_000_000}).encode(),
    "control characters": json.dumps({"message": "bell \x07 and escape \x1b[31m"}).encode(),
    "null character": json.dumps({"message": "a\x00b"}).encode(),
    "lone surrogate": b'{"message": "a\\ud800b"}',
    "not JSON": b"message=Hello",
    "half of a JSON": b'{"message": "Hel',
    "not UTF-8": b'{"message": "\xff\xfe"}',
    "a list": b"[1, 2]",
    "a number": b"42",
    "message is a number": b'{"message": 42}',
    "message is a list": b'{"message": ["a"]}',
    "unknown field": json.dumps({**GOOD, "temperature": 2}).encode(),
    "session id too long": json.dumps({"message": "Hello", "session_id": "s" * 5000}).encode(),
    "session id with a line break": json.dumps({"message": "Hello", "session_id": "a\nb"}).encode(),
    "deep nesting": b'{"message": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "huge number": b'{"message": "Hello", "session_id": ' + b"9" * 10_000 + b"}",
}


def assert_refused(answer: httpx.Response) -> None:
    assert 400 <= answer.status_code < 500, f"{answer.status_code}: {answer.text[:300]}"
    assert answer.status_code != 429, "the edge's limit answered, not the service"
    assert answer.headers["content-type"].startswith("application/problem+json"), answer.headers
    problem = answer.json()
    assert problem["status"] == answer.status_code
    assert problem.get("detail") or problem.get("title")


@pytest.mark.parametrize("path", ["/api/chat", "/api/chat/stream"])
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_bad_body(client: httpx.Client, path: str, body: bytes) -> None:
    assert_refused(client.post(path, content=body, headers=JSON))


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer wrong-key", "Basic dXNlcjpwYXNz"])
def test_wrong_key(fleet: Fleet, header: str | None) -> None:
    with fleet.client() as client:
        del client.headers["Authorization"]
        headers = {} if header is None else {"Authorization": header}
        answer = client.post("/api/chat", json=GOOD, headers=headers)
    assert_refused(answer)
    assert answer.status_code in {400, 401}


def test_header_that_is_no_http(client: httpx.Client) -> None:
    answer = client.post("/api/chat", json=GOOD, headers={"Authorization": "Bearer \x7f"})
    assert answer.status_code == 400
    assert "Invalid HTTP request" in answer.text


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/chat"), ("DELETE", "/api/chat"), ("GET", "/nothing/here")])
def test_wrong_method_or_path(client: httpx.Client, method: str, path: str) -> None:
    assert_refused(client.request(method, path))


def test_metrics_and_readiness_stay_inside(client: httpx.Client) -> None:
    assert client.get("/metrics").status_code in {403, 404}


def test_service_goes_on(client: httpx.Client) -> None:
    assert client.post("/api/chat", json=GOOD).status_code == 200
