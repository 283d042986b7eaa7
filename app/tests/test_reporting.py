"""LangSmith and Sentry, each at a local server in its place: off unless set, and without anybody's words."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Backend
from servers import PASSWORD, Model, Postgres, Redis, wait_for
from service import APP, KEY, ProcessService, database_environment, environment, migrate

PRIVATE = "xylophone"
LANGSMITH_KEY = "a-key-of-langsmith"

Start = Callable[..., ProcessService]


@pytest.fixture
def backend() -> Iterator[Backend]:
    server = Backend()
    yield server
    server.stop()


@pytest.fixture
def start(postgres: Postgres, redis: Redis, database: str, model: Model, tmp_path: Path) -> Iterator[Start]:
    services: list[ProcessService] = []

    def begin(**changes: str) -> ProcessService:
        settings = {
            **database_environment(postgres.port, database),
            "AGENT_REDIS_PORT": str(redis.port),
            "AGENT_REDIS_PASSWORD": PASSWORD,
            "AGENT_MODEL_URL": model.url,
            "AGENT_MODEL_KEY": model.key,
            "AGENT_MODEL_RETRIES": "0",
        }
        services.append(ProcessService(tmp_path / f"log-{len(services)}", **{**settings, **changes}))
        services[-1].wait(120)
        return services[-1]

    yield begin
    for service in services:
        service.stop()


def converse(service: ProcessService, model: Model) -> None:
    """A turn with a tool, a stream, and a failure whose text quotes the message."""
    body = {"message": f"What is our profit margin? {PRIVATE}"}
    model.control(tool_call={"name": "margin", "arguments": {"revenue": 100, "cost": 60}})
    assert service.client.post("/api/chat", json=body).status_code == 200
    assert service.client.post("/api/chat/stream", json=body).status_code == 200
    model.control(fail_next=1, status=400)
    assert service.client.post("/api/chat", json=body).status_code == 502


@pytest.mark.parametrize(
    "switch",
    [
        {},
        {"LANGSMITH_TRACING": "true"},
        pytest.param({"LANGSMITH_TRACING": "true", "SHOW": "1"}, marks=pytest.mark.soak),
    ],
)
def test_langsmith(start: Start, backend: Backend, model: Model, switch: dict[str, str]) -> None:
    shown = {"LANGSMITH_HIDE_INPUTS": "false", "LANGSMITH_HIDE_OUTPUTS": "false"} if switch.pop("SHOW", "") else {}
    access = {"LANGSMITH_ENDPOINT": backend.url, "LANGSMITH_API_KEY": LANGSMITH_KEY}
    service = start(**access, **switch, **shown)
    converse(service, model)
    if switch:
        wait_for(lambda: b"Refusal" in backend.bytes(), 20, "the failed run")
    service.stop()
    told = backend.bytes().decode(errors="replace")
    if not switch:
        assert backend.received == []
        return
    assert "deepseek-v4-flash" in told
    assert (PRIVATE in told) is bool(shown)
    for secret in (KEY, PASSWORD, model.key, LANGSMITH_KEY):
        assert secret not in told
        assert secret not in service.log()


def events(backend: Backend) -> list[dict[str, Any]]:
    """The items of the envelopes, each a line of JSON after one that says what it is."""
    found = []
    for one in backend.received:
        body = one.body.splitlines()
        found += [
            json.loads(item)
            for head, item in zip(body[1::2], body[2::2], strict=True)
            if json.loads(head)["type"] == "event"
        ]
    return found


def test_sentry_gets_what_nobody_caught(start: Start, backend: Backend, model: Model, postgres: Postgres) -> None:
    dsn = f"http://a-public-key@127.0.0.1:{backend.port}/7"
    service = start(AGENT_SENTRY_DSN=dsn, AGENT_RELEASE="r7", AGENT_DATABASE_NAME=broken(postgres))
    body = {"message": f"What is our profit margin? {PRIVATE}", "session_id": "broken"}
    assert service.client.post("/api/chat", json=body, headers={"X-Request-Id": "find-me"}).status_code == 500
    wait_for(lambda: bool(events(backend)), 20, "the event")
    [event] = events(backend)
    assert backend.received[0].path == "/api/7/envelope/"
    assert (event["release"], event["message"], event["level"]) == ("r7", "unhandled", "error")
    assert event["tags"]["request_id"] == "find-me"
    assert event["tags"]["session_id"] == "broken"
    assert len(event["tags"]["trace_id"]) == 32
    error = event["exception"]["values"][-1]
    assert (error["type"], error["value"]) == ("CheckViolation", "")
    assert any(frame["function"] == "append" for frame in error["stacktrace"]["frames"])
    service.stop()
    told = backend.bytes().decode()
    for secret in (PRIVATE, KEY, PASSWORD, model.key):
        assert secret not in told
        assert secret not in service.log()
    # Who is broken is told apart from what a client or a model did.
    assert len(events(backend)) == 1


def broken(postgres: Postgres) -> str:
    """A database that refuses each turn in words that quote it."""
    postgres.create_database("refusing")
    migrate(postgres.port, "refusing").communicate(timeout=60)
    postgres.execute("ALTER TABLE messages ADD CHECK (length(content) < 2)", "refusing")
    postgres.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO agent", "refusing")
    return "refusing"


def test_sentry_without_its_package_is_one_line() -> None:
    script = """
import sys
sys.modules["sentry_sdk"] = None
from agent_service.core.sentry import create_report
from agent_service.core.settings import load_settings
assert create_report(load_settings()) is None
"""
    ended = subprocess.run(
        [sys.executable, "-c", script], env=environment(AGENT_SENTRY_DSN="http://key@127.0.0.1:9/1"),
        capture_output=True, text=True, cwd=APP,
    )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (
        0, "AGENT_SENTRY_DSN is set and nothing is sent: install agent-service[sentry]\n"
    )  # fmt: skip
