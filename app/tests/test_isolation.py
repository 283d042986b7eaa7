"""A user never reads another user's conversation: on every route that there is."""

import threading
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from access import SECRET, bearer, token
from fastapi.routing import iter_route_contexts
from servers import Model, wait_for
from service import KEY, Client, LocalService
from sockets import Socket

from agent_service.application import create_app
from agent_service.core.settings import Settings

# What Ana told the service, and nobody else may learn.
TOLD = "My account number is 4711-0815."

Attempt = Callable[[Client, str, dict[str, str]], httpx.Response]

# How each route is asked for a conversation of somebody else. A new route belongs here or below.
ATTEMPTS: dict[str, Attempt] = {
    "POST /chat": lambda client, session_id, headers: client.post(
        "/chat", json={"message": "What did I say?", "session_id": session_id, "user_id": "ana"}, headers=headers
    ),
    "POST /api/chat": lambda client, session_id, headers: client.post(
        "/api/chat", json={"message": "What did I say?", "session_id": session_id, "user_id": "ana"}, headers=headers
    ),
    "POST /api/agent": lambda client, session_id, headers: client.post(
        "/api/agent", json={"input": "What did I say?", "session_id": session_id, "user_id": "ana"}, headers=headers
    ),
    "POST /api/chat/stream": lambda client, session_id, headers: client.post(
        "/api/chat/stream", json={"message": "What did I say?", "user_id": "ana"},
        headers={**headers, "X-Session-Id": session_id},
    ),
    "GET /chat/stream": lambda client, session_id, headers: client.get(
        "/chat/stream", params={"message": "What did I say?", "session_id": session_id, "user_id": "ana"},
        headers=headers,
    ),
    "APIWebSocketRoute /api/chat/ws": lambda client, session_id, headers: on_a_socket(client, session_id, headers),
}  # fmt: skip


def on_a_socket(client: Client, session_id: str, headers: dict[str, str]) -> httpx.Response:
    with Socket(client.base_url.port or 0, key=None, headers=headers) as socket:
        last = socket.ask("What did I say?", session_id=session_id, user_id="ana")[-1]
    return httpx.Response(last["data"].get("status", 200), json=last["data"])


# Analyses are their user's too; they are tried below.
TASKS = {"POST /api/analyze", "GET /api/status/{task_id}"}
# So are ratings of answers, in test_feedback.py.
RATINGS = {"POST /api/feedback"}
# Memories are their user's; that nobody else sees or deletes them is tried in test_memory.
MEMORIES = {"GET /api/memory", "DELETE /api/memory"}
# Routes that know no user's data.
IMPERSONAL = {
    "GET /", "GET /health", "GET /ready", "GET /metrics", "GET /api/metrics", "GET /openapi.json",
    "POST /webhook/uaz", "GET /api/integrations/{name}/status",
}  # fmt: skip


def every_route() -> set[str]:
    names = set()
    for route in iter_route_contexts(create_app(Settings(_env_file=None, api_key=KEY)).routes):
        methods = route.methods or {type(route.original_route).__name__}
        names |= {f"{method} {route.path}" for method in methods - {"HEAD"}}
    return names


@pytest.fixture(scope="session")
def guarded(run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any]) -> LocalService:
    settings = {"jwt_secret": SECRET, "tiers": {"free": {"requests_per_day": None}}, "queue": True}
    return run({**model_settings, **settings, "release": "isolated"})


def test_every_route_is_tried() -> None:
    assert every_route() == ATTEMPTS.keys() | TASKS | RATINGS | MEMORIES | IMPERSONAL


def told(client: Client, session_id: str, credential: str, **fields: Any) -> None:
    body = {"message": TOLD, "session_id": session_id, **fields}
    assert client.post("/api/chat", json=body, headers=bearer(credential)).status_code == 200


@pytest.mark.parametrize("beginning", ["by her token", "by a key for her", "by a key for nobody"])
@pytest.mark.parametrize("name", ATTEMPTS)
def test_nobody_elses_conversation_is_opened(
    guarded: LocalService, model: Model, session_id: str, name: str, beginning: str
) -> None:
    if beginning == "by her token":
        told(guarded.client, session_id, token("ana"))
    else:
        told(guarded.client, session_id, KEY, **({"user_id": "ana"} if "her" in beginning else {}))
    model.reset()
    answer = ATTEMPTS[name](guarded.client, session_id, bearer(token(f"eve-{uuid.uuid4()}")))
    assert answer.status_code == 403
    assert answer.json()["type"] == "urn:agent:problem:conversation-of-another-user"
    # The whole of it: four digits of it are in many an id.
    assert "4711-0815" not in answer.text
    # Neither was the model told, whose answer Eve would have read.
    assert model.requests() == []


@pytest.mark.parametrize("name", ATTEMPTS)
def test_attempt_succeeds_where_it_may(guarded: LocalService, model: Model, session_id: str, name: str) -> None:
    """What is tried above would tell all, were it not refused."""
    told(guarded.client, session_id, token("ana"))
    model.reset()
    assert ATTEMPTS[name](guarded.client, session_id, bearer(token("ana"))).status_code == 200
    assert TOLD in str(model.requests()[-1]["body"])


def test_conversation_that_somebody_else_began_meanwhile_is_not_joined(
    guarded: LocalService, model: Model, session_id: str, stored: Callable[[str], list[Any]]
) -> None:
    """Both saw that there was none; without Redis nobody waits for the other."""
    model.control(latency_seconds=0.8)
    answers: list[int] = []
    body = {"message": TOLD, "session_id": session_id}
    first = threading.Thread(
        target=lambda: answers.append(
            guarded.client.post("/api/chat", json=body, headers=bearer(token("ana"))).status_code
        )
    )
    first.start()
    wait_for(lambda: len(model.requests()) == 1, 10, "the first question")
    # Waits for its turn, then finds whose it has become.
    assert guarded.client.post("/api/chat", json=body, headers=bearer(token("eve"))).status_code == 403
    first.join()
    assert answers == [200]
    assert len(stored(session_id)) == 2


@pytest.mark.parametrize("beginning", ["by her token", "by a key for her", "by a key for nobody"])
def test_nobody_elses_analysis_is_shown(guarded: LocalService, beginning: str) -> None:
    credential = token("ana") if beginning == "by her token" else KEY
    body = {"text": TOLD, **({"user_id": "ana"} if "her" in beginning else {})}
    key = {"Idempotency-Key": uuid.uuid4().hex}

    def begin(credential: str) -> str:
        begun = guarded.client.post("/api/analyze", json=body, headers={**bearer(credential), **key})
        assert begun.status_code == 202, begun.text
        return str(begun.json()["task_id"])

    def shown(task_id: str, credential: str) -> int:
        path = f"/api/status/{task_id}"
        return guarded.client.get(path, params={"user_id": "ana"}, headers=bearer(credential)).status_code

    task_id, eve = begin(credential), token(f"eve-{uuid.uuid4()}")
    assert shown(task_id, eve) == 404
    assert shown(task_id, KEY) == 200
    assert shown(task_id, token("ana")) == (404 if "nobody" in beginning else 200)
    # Whoever sends the same key, and her name, gets a task of their own.
    assert begin(eve) != task_id
