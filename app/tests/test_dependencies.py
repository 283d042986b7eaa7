from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from redis import Redis as RedisClient
from servers import PASSWORD, Model, Postgres, Redis, free_port, wait_for
from service import Client, LocalService

Stored = Callable[[str], list[tuple[int, str, str]]]


def checks(client: Client) -> dict[str, str]:
    return {name: check["status"] for name, check in client.get("/ready").json()["checks"].items()}


def test_ready_names_each_dependency(client: Client) -> None:
    response = client.get("/ready", headers={"Authorization": ""})
    assert response.status_code == 200
    assert response.json()["status"] == "ready"
    assert checks(client) == {"database": "ok", "redis": "ok", "model": "ok", "memory": "ok"}
    assert response.json()["checks"]["model"]["name"] == "deepseek-v4-flash"


def test_health_asks_nothing_and_nobody(client: Client) -> None:
    assert client.get("/health", headers={"Authorization": ""}).json() == {"status": "alive"}


def test_every_key_in_redis_expires(client: Client, redis: Redis, session_id: str) -> None:
    client.chat("Hi", session_id=session_id)
    client.chat("Hi", session_id=session_id)
    with RedisClient(port=redis.port, password=PASSWORD, decode_responses=True) as connection:
        keys = list(connection.scan_iter("*"))
        assert f"agent:session:{session_id}" in keys
        # -1 is a key that stays; one that has gone meanwhile did expire.
        assert [key for key in keys if connection.ttl(key) == -1] == []
        assert connection.hget(f"agent:session:{session_id}", "turns") == "2"
        assert not [key for key in keys if key.endswith(":turn")]


def test_redis_down_costs_nothing_but_order_of_context(
    client: Client, peer: LocalService, redis: Redis, session_id: str, stored: Stored
) -> None:
    client.chat("Before", session_id=session_id)
    redis.stop()
    try:
        assert client.chat("During", session_id=session_id).json()["response"] == "(2) You said: During"
        assert client.events("Streamed", session_id=session_id)[-1].name == "done"
        response = client.get("/ready")
        assert response.status_code == 200
        assert response.json()["status"] == "degraded"
        assert checks(client) == {"database": "ok", "redis": "degraded", "model": "ok", "memory": "ok"}
        assert client.metric("agent_redis_errors_total") >= 1
        # Without turns, concurrent messages still end up whole and in one order.
        clients = [client, peer.client]
        with ThreadPoolExecutor(6) as pool:
            answers = list(pool.map(lambda n: clients[n % 2].chat(f"Message {n}", session_id=session_id), range(6)))
    finally:
        redis.start()
    assert {answer.status_code for answer in answers} == {200}
    rows = stored(session_id)
    assert [position for position, _, _ in rows] == list(range(1, 19))
    for question, answer in zip(rows[::2], rows[1::2], strict=True):
        assert (question[1], answer[1]) == ("user", "assistant")
        assert answer[2].endswith(f"You said: {question[2]}")
    wait_for(lambda: checks(client)["redis"] == "ok", 5, "Redis noticed")


def test_database_down_is_said_and_survived(
    client: Client, model: Model, postgres: Postgres, session_id: str, stored: Stored
) -> None:
    client.chat("Before", session_id=session_id)
    model.reset()
    postgres.stop()
    try:
        for response in (
            client.chat("During", session_id=session_id),
            client.post("/api/chat/stream", json={"message": "During", "session_id": session_id}),
        ):
            assert response.status_code == 503
            assert response.headers["content-type"] == "application/problem+json"
            assert response.headers["x-agent-error-source"] == "database"
            assert response.json()["type"] == "urn:agent:problem:database-unavailable"
        # Nobody pays for an answer that cannot be kept.
        assert model.requests() == []
        ready = client.get("/ready")
        assert ready.status_code == 503
        assert ready.headers["content-type"] == "application/problem+json"
        assert {name: check["status"] for name, check in ready.json()["checks"].items()} == {
            "database": "down",
            "redis": "ok",
            "model": "ok",
        }
        assert client.get("/health").status_code == 200
    finally:
        postgres.start()
    wait_for(lambda: client.get("/ready").status_code == 200, 10, "database noticed")
    assert client.chat("After", session_id=session_id).json()["response"] == "(2) You said: After"
    assert len(stored(session_id)) == 4


def test_database_that_restarts_between_requests_fails_none(client: Client, postgres: Postgres) -> None:
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: client.chat("Warm the pool"), range(8)))
    postgres.stop()
    postgres.start()
    assert [client.chat("After").status_code for _ in range(4)] == [200] * 4


def test_database_lost_during_the_turn(
    client: Client, model: Model, postgres: Postgres, session_id: str, stored: Stored
) -> None:
    model.control(latency_seconds=0.6)
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(client.chat, "Hi", session_id=session_id)
        wait_for(lambda: len(model.requests()) == 1, 3, "the model's call")
        postgres.stop()
        try:
            assert pending.result().status_code == 503
        finally:
            postgres.start()
    wait_for(lambda: client.get("/ready").status_code == 200, 10, "database noticed")
    assert stored(session_id) == []


def test_starts_without_database_and_redis(
    run: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any]
) -> None:
    alone = run({**base_settings, "database_port": free_port(), "redis_port": free_port()}).client
    assert alone.get("/health").status_code == 200
    assert checks(alone) == {"database": "down", "redis": "degraded", "model": "ok"}
    assert alone.chat("Hi").status_code == 503


def test_finds_a_database_that_comes_up_later(
    run: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any], postgres: Postgres
) -> None:
    postgres.stop()
    try:
        late = run(base_settings).client
        assert checks(late)["database"] == "down"
    finally:
        postgres.start()
    wait_for(lambda: late.get("/ready").status_code == 200, 10, "the database that came up")


def test_database_that_was_not_migrated_is_not_ready(
    run: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any], postgres: Postgres
) -> None:
    postgres.create_database("bare")
    bare = run({**base_settings, "database_name": "bare", "database_user": "bare"}).client
    response = bare.get("/ready")
    assert response.status_code == 503
    assert response.json()["checks"]["database"]["reason"] == "UndefinedTable"
    assert bare.chat("Hi").status_code == 503
