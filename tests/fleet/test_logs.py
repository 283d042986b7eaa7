"""logs.yml: a request is found on its whole way, and lines are shown as they come."""

from __future__ import annotations

import subprocess
import threading
import uuid

import httpx
import pytest
from support.deploys import interrupt, started
from support.fleet import Fleet


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """The first line that a process writes with TEXT in it."""
    patience = threading.Timer(60, process.kill)
    patience.start()
    try:
        assert process.stdout
        return next(line for line in process.stdout if text in line)
    finally:
        patience.cancel()


@pytest.fixture
def failing(client: httpx.Client, model_server: httpx.Client) -> str:
    """The id of a request that fails, for the model refuses it, between others that do not."""
    request_id = uuid.uuid4().hex
    client.post("/api/chat", json={"message": "before", "session_id": uuid.uuid4().hex}).raise_for_status()
    model_server.post("/_control", json={"fail_next": 9, "status": 401}).raise_for_status()
    try:
        answer = client.post(
            "/api/chat",
            json={"message": "it fails", "session_id": uuid.uuid4().hex},
            headers={"X-Request-Id": request_id},
        )
    finally:
        model_server.post("/_control", json={"reset": True}).raise_for_status()
    assert answer.status_code >= 500
    assert answer.headers["X-Request-Id"] == request_id
    return request_id


def test_the_failing_request_is_found_on_its_way(fleet: Fleet, failing: str) -> None:
    lines = fleet.playbook("logs", "-e", f"request_id={failing}").ok().stdout.splitlines()
    assert len(lines) >= 2
    assert all(failing in line for line in lines)
    assert any("  edge1 " in line and "  error " in line and "POST /api/chat 5" in line for line in lines)
    assert any("  agent" in line and "route=/api/chat" in line for line in lines)


def test_a_request_that_never_was_has_no_lines(fleet: Fleet) -> None:
    assert fleet.playbook("logs", "-e", f"request_id={uuid.uuid4().hex}").ok().stdout.split("\n")[0] == "no lines"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("since=yesterday", "write 90s, 15m, 2h, 1d"),
        ("host=agent9", "host=agent9: name one of edge1, agent1, agent2"),
        ("request_id=a|b", "an id is 8 to 64"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(fleet: Fleet, option: str, said: str) -> None:
    refused = fleet.playbook("logs", "-e", option)
    assert refused.returncode
    assert said in refused.stdout


def test_lines_are_shown_as_they_come_until_interrupted(fleet: Fleet, client: httpx.Client) -> None:
    follower = started(fleet, "-e", "follow=true", "-e", "host=edge1", name="logs")
    try:
        line_with(follower, "edge1")
        request_id = uuid.uuid4().hex
        client.get("/health", headers={"X-Request-Id": request_id}).raise_for_status()
        assert "GET /health 200" in line_with(follower, request_id)
    finally:
        interrupt(follower)
