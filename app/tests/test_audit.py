import json
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from access import GUARD, PRO, bearer, token
from servers import PASSWORD, Model, Postgres, Redis, wait_for
from service import KEY, Client, LocalService, ProcessService, database_environment

Run = Callable[[dict[str, Any]], LocalService]
Row = dict[str, Any]


@pytest.fixture(scope="session")
def audited(run: Run, model_settings: dict[str, Any]) -> LocalService:
    return run({**model_settings, **GUARD, "trusted_proxies": "127.0.0.1"})


@pytest.fixture
def rows(postgres: Postgres, database: str) -> Callable[[str], list[Row]]:
    """What the table has of requests with this id; waits until the first is there."""

    def select(request_id: str) -> list[Row]:
        query = "SELECT to_jsonb(audit) FROM audit WHERE request_id = %s ORDER BY happened_at"
        found: list[Any] = []

        def arrived() -> bool:
            found[:] = postgres.execute(query, database, [request_id])
            return bool(found)

        wait_for(arrived, 15, "the audit row")
        return [row for (row,) in found]

    return select


def ask(client: Client, request_id: str, credential: str = KEY, **fields: Any) -> int:
    headers = {**bearer(credential), "X-Request-Id": request_id, "X-Forwarded-For": "192.0.2.7"}
    return client.post("/api/chat", json={"message": "Hi", **fields}, headers=headers).status_code


@pytest.fixture
def request_id() -> str:
    return uuid.uuid4().hex


def test_turn_is_one_row_that_tells_who_what_and_whose(
    audited: LocalService, model: Model, rows: Callable[[str], list[Row]], session_id: str, request_id: str
) -> None:
    assert ask(audited.client, request_id, PRO, session_id=session_id, user_id="ana") == 200
    (row,) = rows(request_id)
    assert row.pop("happened_at")
    assert row == {
        "kind": "change",
        "actor": "app",
        "tier": "pro",
        "user_id": "ana",
        "action": "POST /api/chat",
        "status": 200,
        "conversation_id": session_id,
        "owner_id": "ana",
        "address": "192.0.2.7",
        "request_id": request_id,
        "reason": None,
    }


def test_look_at_another_users_conversation_names_both(
    audited: LocalService, model: Model, rows: Callable[[str], list[Row]], session_id: str, request_id: str
) -> None:
    eve = f"eve-{uuid.uuid4()}"
    ask(audited.client, uuid.uuid4().hex, session_id=session_id, user_id="ana")
    assert ask(audited.client, request_id, token(eve), session_id=session_id) == 403
    (row,) = rows(request_id)
    assert (row["kind"], row["actor"], row["user_id"], row["owner_id"]) == ("data", "token", eve, "ana")
    assert (row["status"], row["conversation_id"]) == (403, session_id)


def test_key_without_a_user_is_recorded_with_the_owner(
    audited: LocalService, model: Model, rows: Callable[[str], list[Row]], session_id: str, request_id: str
) -> None:
    ask(audited.client, uuid.uuid4().hex, session_id=session_id, user_id="ana")
    assert ask(audited.client, request_id, session_id=session_id) == 200
    (row,) = rows(request_id)
    assert (row["kind"], row["user_id"], row["owner_id"]) == ("change", None, "ana")


def test_streams_are_recorded_when_they_end(
    audited: LocalService, model: Model, rows: Callable[[str], list[Row]], session_id: str, request_id: str
) -> None:
    headers = {"X-Request-Id": request_id}
    body = {"message": "Hi", "session_id": session_id, "user_id": "ana"}
    audited.client.post("/api/chat/stream", json=body, headers=headers)
    (row,) = rows(request_id)
    assert (row["kind"], row["action"], row["status"]) == ("change", "POST /api/chat/stream", 200)
    assert row["conversation_id"] == session_id


def test_refused_credentials_are_recorded_without_them(
    audited: LocalService, rows: Callable[[str], list[Row]], request_id: str
) -> None:
    assert ask(audited.client, request_id, "a-key-that-is-none") == 401
    (row,) = rows(request_id)
    assert (row["kind"], row["status"], row["reason"]) == ("access", 401, "unknown-key")
    assert (row["actor"], row["user_id"]) == (None, None)
    assert "a-key-that-is-none" not in json.dumps(row)


def test_path_that_is_no_route_is_not_kept(
    audited: LocalService, rows: Callable[[str], list[Row]], request_id: str
) -> None:
    headers = {"X-Request-Id": request_id}
    assert audited.client.get("/a/private/path", params={"token": "private"}, headers=headers).status_code == 404
    (row,) = rows(request_id)
    assert (row["kind"], row["action"], row["status"]) == ("access", "GET unknown", 404)


@pytest.mark.parametrize("statement", ["UPDATE audit SET actor = 'nobody'", "DELETE FROM audit", "TRUNCATE audit"])
@pytest.mark.parametrize("role", ["origin", "replica"])
def test_table_only_grows(audited: LocalService, postgres: Postgres, database: str, role: str, statement: str) -> None:
    ask(audited.client, uuid.uuid4().hex)
    # Not even by the administrator, by accident.
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="only grows"):
        postgres.execute(f"SET session_replication_role = {role}; {statement}", database)


def test_rows_wait_for_a_database_that_is_away(
    audited: LocalService, model: Model, postgres: Postgres, rows: Callable[[str], list[Row]], request_id: str
) -> None:
    postgres.stop()
    try:
        assert ask(audited.client, request_id) == 503
    finally:
        postgres.start()
    wait_for(lambda: audited.client.get("/ready").status_code == 200, 20, "database noticed")
    (row,) = rows(request_id)
    assert row["status"] == 503
    assert audited.client.metric("agent_audit_lost_total") == 0


def test_bounded_and_counted(run: Run, base_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent_service.guard.audit.KEPT_ROWS", 3)
    client = run({**base_settings, "database_port": 9, "database_wait_seconds": 0.1}).client
    for _ in range(5):
        assert client.get("/nothing").status_code == 404
    assert client.metric("agent_audit_lost_total") == 2


def test_log_has_a_stream_of_its_own_and_a_stop_writes_what_is_left(
    postgres: Postgres, redis: Redis, database: str, tmp_path: Path, rows: Callable[[str], list[Row]], request_id: str
) -> None:
    service = ProcessService(
        tmp_path / "log",
        **database_environment(postgres.port, database),
        AGENT_REDIS_PORT=str(redis.port),
        AGENT_REDIS_PASSWORD=PASSWORD,
        AGENT_LOG_LEVEL="error",
        AGENT_RELEASE="r7",
    )
    service.wait(120)
    assert ask(service.client, request_id, user_id="ana") == 200
    service.stop()
    lines = [json.loads(line) for line in service.log().splitlines()]
    (line,) = [line for line in lines if line.get("request_id") == request_id]
    assert (line["logger"], line["event"]) == ("agent_service.audit", "audit")
    assert (line["action"], line["actor"], line["user_id"], line["release"]) == ("POST /api/chat", "main", "ana", "r7")
    assert len(rows(request_id)) == 1
