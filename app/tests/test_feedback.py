"""What users say of answers: kept once for each, counted, and of one's own conversations alone."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from access import SECRET, bearer, token
from conftest import Run
from servers import Postgres, wait_for
from service import KEY, Client

Rows = Callable[[str], list[tuple[Any, ...]]]


@pytest.fixture(scope="module")
def guarded(run: Run, base_settings: dict[str, Any]) -> Client:
    settings = {"model_key": "", "jwt_secret": SECRET, "tiers": {"free": {"requests_per_day": None}}}
    return run({**base_settings, **settings}).client


@pytest.fixture
def rows(postgres: Postgres, database: str) -> Rows:
    query = (
        "SELECT position, given_by, agent, scale, rating, comment FROM feedback WHERE conversation_id = %s"
        " ORDER BY position, given_by"
    )
    return lambda session_id: postgres.execute(query, database, [session_id])


def answered(client: Client, session_id: str, credential: str = KEY, **fields: Any) -> str:
    """The request id of an answer."""
    request_id = uuid.uuid4().hex
    body = {"message": "What is our profit margin?", "session_id": session_id, **fields}
    headers = {**bearer(credential), "X-Request-Id": request_id}
    assert client.post("/api/chat", json=body, headers=headers).status_code == 200
    return request_id


def rate(client: Client, session_id: str, rating: Any, credential: str = KEY, **fields: Any) -> Any:
    body = {"session_id": session_id, "rating": rating, **fields}
    return client.post("/api/feedback", json=body, headers=bearer(credential))


def counted(client: Client, rating: str) -> float:
    name = f'agent_feedback_total{{agent="financial",rating="{rating}"}} '
    return sum(float(line.removeprefix(name)) for line in client.get("/metrics").text.splitlines() if name in line)


def test_later_rating_of_an_answer_stands(guarded: Client, session_id: str, rows: Rows) -> None:
    first, second = answered(guarded, session_id, user_id="ana"), answered(guarded, session_id, user_id="ana")
    up, down, stars = (counted(guarded, name) for name in ("up", "down", "4"))
    given = rate(guarded, session_id, 1, request_id=first, user_id="ana", comment="Good,\r\nthanks.")
    assert given.status_code == 200
    assert given.json() == {
        "session_id": session_id, "request_id": first, "agent": "financial", "scale": "thumbs", "rating": 1,
    }  # fmt: skip
    # Again and again is the same as once.
    assert rate(guarded, session_id, 1, request_id=first, user_id="ana", comment="Good,\nthanks.").status_code == 200
    assert rows(session_id) == [(2, "user:ana", "financial", "thumbs", 1, "Good,\nthanks.")]
    assert counted(guarded, "up") == up + 1
    assert rate(guarded, session_id, -1, request_id=first, user_id="ana").status_code == 200
    # The newest answer, where none is named; another caller has another say.
    assert rate(guarded, session_id, 4).json()["request_id"] == second
    assert rows(session_id) == [
        (2, "user:ana", "financial", "thumbs", -1, None),
        (4, "key:main", "financial", "stars", 4, None),
    ]
    assert (counted(guarded, "up"), counted(guarded, "down"), counted(guarded, "4")) == (up + 1, down + 1, stars + 1)


def test_one_star_is_no_thumb(guarded: Client, session_id: str, rows: Rows) -> None:
    answered(guarded, session_id)
    assert rate(guarded, session_id, 1, scale="stars").json()["scale"] == "stars"
    assert rows(session_id)[0][3:5] == ("stars", 1)


@pytest.mark.parametrize(
    "fields",
    [
        {"rating": 0},
        {"rating": 6},
        {"rating": "1"},
        {"rating": -1, "scale": "stars"},
        {"rating": 5, "scale": "thumbs"},
        {"rating": 1, "comment": "a\x00"},
        {"rating": 1, "comment": "a" * 4001},
        {"rating": 1, "request_id": "a b"},
    ],
)
def test_what_is_no_rating_is_refused(guarded: Client, session_id: str, fields: dict[str, Any]) -> None:
    answer = guarded.post("/api/feedback", json={"session_id": session_id, **fields})
    assert answer.status_code == 422
    assert answer.json()["errors"]


def test_what_was_not_answered_is_not_rated(guarded: Client, session_id: str, rows: Rows) -> None:
    assert rate(guarded, session_id, 1).status_code == 404
    answered(guarded, session_id)
    answer = rate(guarded, session_id, 1, request_id="another")
    assert (answer.status_code, answer.json()["type"]) == (404, "urn:agent:problem:answer-not-found")
    assert rows(session_id) == []


@pytest.mark.parametrize("beginning", ["by her token", "by a key for her", "by a key for nobody"])
def test_nobody_elses_answer_is_rated(guarded: Client, session_id: str, rows: Rows, beginning: str) -> None:
    if beginning == "by her token":
        request_id = answered(guarded, session_id, token("ana"))
    else:
        request_id = answered(guarded, session_id, **({"user_id": "ana"} if "her" in beginning else {}))
    eve = token(f"eve-{uuid.uuid4()}")
    for fields in ({}, {"request_id": request_id}, {"user_id": "ana"}, {"request_id": "another"}):
        answer = rate(guarded, session_id, 1, eve, **fields)
        assert answer.status_code == 403
        assert answer.json()["type"] == "urn:agent:problem:conversation-of-another-user"
    assert rows(session_id) == []
    assert rate(guarded, session_id, 1, token("ana")).status_code == (403 if "nobody" in beginning else 200)


def test_ratings_are_audited(guarded: Client, session_id: str, postgres: Postgres, database: str) -> None:
    answered(guarded, session_id, token("ana"))
    rate(guarded, session_id, 1, token("ana"))
    rate(guarded, session_id, 1, token("eve"))
    query = (
        "SELECT kind, user_id, status, owner_id FROM audit"
        " WHERE conversation_id = %s AND action = 'POST /api/feedback' ORDER BY happened_at"
    )

    def found() -> list[Any]:
        return postgres.execute(query, database, [session_id])

    wait_for(lambda: len(found()) == 2, 10, "the rows")
    assert found() == [("change", "ana", 200, "ana"), ("data", "eve", 403, "ana")]


def test_metrics_are_for_keys(guarded: Client) -> None:
    assert "agent_requests_total" in guarded.get("/api/metrics").text
    assert guarded.get("/api/metrics", headers={"Authorization": ""}).status_code == 401
    assert guarded.get("/api/metrics", headers=bearer(token("ana"))).status_code == 403
    assert guarded.get("/metrics", headers={"Authorization": ""}).status_code == 200
