import datetime
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from access import GUARD, SECRET, bearer, token
from redis import Redis as RedisClient
from servers import PASSWORD, Postgres, Redis, wait_for
from service import KEY, Client, LocalService, ProcessService

from agent_service.guard.keys import line_of

Run = Callable[[dict[str, Any]], LocalService]
INSTANCES = 10


@pytest.fixture(autouse=True)
def not_at_midnight() -> None:
    """A test that the day's end cut in two would prove nothing."""
    now = datetime.datetime.now(datetime.UTC)
    left = 86_400 - (now - now.replace(hour=0, minute=0, second=0, microsecond=0)).total_seconds()
    if left < 90:
        time.sleep(left + 1)


@pytest.fixture
def credential() -> str:
    """Of a user of tier free that nobody else is."""
    return token(f"user-{uuid.uuid4()}")


@pytest.fixture(scope="session")
def pair(run: Run, base_settings: dict[str, Any]) -> list[LocalService]:
    return [run({**base_settings, **GUARD}) for _ in range(2)]


def ask(client: httpx.Client, credential: str, message: str = "Hi") -> httpx.Response:
    return client.post("/api/chat", json={"message": message}, headers=bearer(credential))


@pytest.fixture
def fleet(
    run_briefly: Run, base_settings: dict[str, Any], postgres: Postgres, redis: Redis, database: str, tmp_path: Path
) -> Iterator[list[Client]]:
    """Two are processes as on a host; the others are here, each with its own loop, memory and connections."""
    settings = {
        **base_settings,
        "database_connections": 3,
        "api_keys": line_of("one", "free", "ak-one-0123456789abcdef"),
        "jwt_secret": SECRET,
    }
    apart = [
        ProcessService(
            tmp_path / f"log-{number}",
            **{f"AGENT_{name.upper()}": str(value) for name, value in settings.items()},
            AGENT_TIERS='{"free": {"requests_per_day": 25}}',
        )
        for number in range(2)
    ]
    here = [run_briefly({**settings, "tiers": {"free": {"requests_per_day": 25}}}) for _ in range(INSTANCES - 2)]
    try:
        for service in apart:
            service.wait(60)
        yield [service.client for service in (*apart, *here)]
    finally:
        for service in apart:
            service.stop()


def test_ten_instances_let_one_key_through_as_often_as_its_tier_allows(
    fleet: list[Client], redis: Redis, credential: str
) -> None:
    for asked, name in (("ak-one-0123456789abcdef", "key:one"), (credential, "user:")):
        with RedisClient(port=redis.port, password=PASSWORD) as connection:
            for key in connection.scan_iter(f"agent:limit:day:{name}*"):
                connection.delete(key)
        with ThreadPoolExecutor(4 * INSTANCES) as pool:
            answers = list(pool.map(lambda n: ask(fleet[n % INSTANCES], asked), range(200)))  # noqa: B023
        statuses = [answer.status_code for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (25, 175)
        remaining = sorted(int(a.headers["ratelimit-remaining"]) for a in answers if a.status_code == 200)
        assert remaining == list(range(25))


def test_free_tier_and_what_it_is_told(pair: list[LocalService], credential: str) -> None:
    answers = [ask(pair[number % 2].client, credential) for number in range(11)]
    assert [answer.status_code for answer in answers] == [200] * 10 + [429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == [*map(str, range(9, -1, -1)), "0"]
    refused = answers[-1]
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.headers["ratelimit-limit"] == "10"
    # The day is UTC's.
    now = datetime.datetime.now(datetime.UTC)
    midnight = (now + datetime.timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert abs(int(refused.headers["retry-after"]) - (midnight - now).total_seconds()) < 5
    assert refused.json()["type"] == "urn:agent:problem:too-many-requests"
    assert refused.json()["detail"].startswith("Tier free allows 10 requests a day; the next day, by UTC, begins in ")
    stream = pair[0].client.post("/api/chat/stream", json={"message": "Hi"}, headers=bearer(credential))
    assert stream.status_code == 429


def test_every_route_that_asks_the_model_is_counted(pair: list[LocalService], credential: str) -> None:
    client, headers = pair[0].client, bearer(credential)
    client.post("/chat", json={"message": "Hi"}, headers=headers)
    client.post("/api/agent", json={"input": "Hi"}, headers=headers)
    client.post("/api/chat/stream", json={"message": "Hi"}, headers=headers)
    last = client.get("/chat/stream", params={"message": "Hi"}, headers=headers)
    assert last.headers["ratelimit-remaining"] == "6"


def test_what_is_refused_before_it_costs_anything_is_not_counted(pair: list[LocalService], credential: str) -> None:
    client = pair[0].client
    assert ask(client, credential, "").status_code == 422
    assert ask(client, credential, "请" * 1001).status_code == 413
    assert client.get("/nothing", headers=bearer(credential)).status_code == 404
    assert ask(client, credential).headers["ratelimit-remaining"] == "9"


def test_users_are_counted_apart_and_unlimited_callers_not_at_all(
    pair: list[LocalService], credential: str, redis: Redis
) -> None:
    client = pair[0].client
    assert ask(client, credential).headers["ratelimit-remaining"] == "9"
    assert ask(client, token(f"user-{uuid.uuid4()}")).headers["ratelimit-remaining"] == "9"
    with RedisClient(port=redis.port, password=PASSWORD) as connection:

        def counts() -> int:
            # Nothing else asks Redis for the time.
            return int(connection.info("commandstats")["cmdstat_time"]["calls"])

        before = counts()
        assert "ratelimit-limit" not in ask(client, KEY).headers
        assert counts() == before
        ask(client, credential)
        assert counts() == before + 1


def test_tier_that_allows_nothing(run: Run, base_settings: dict[str, Any], credential: str) -> None:
    closed = run({**base_settings, "jwt_secret": SECRET, "tiers": {"free": {"requests_per_day": 0}}}).client
    assert ask(closed, credential).status_code == 429


def test_redis_away_opens_no_door(run: Run, base_settings: dict[str, Any], redis: Redis, credential: str) -> None:
    one, other = (run({**base_settings, **GUARD}).client for _ in range(2))
    for _ in range(4):
        ask(one, credential)
    redis.stop()
    try:
        # What the process saw of the day still counts; another, which saw nothing, counts for itself.
        assert [ask(one, credential).status_code for _ in range(8)] == [200] * 6 + [429] * 2
        assert [ask(other, credential).status_code for _ in range(11)] == [200] * 10 + [429]
        check = one.get("/ready").json()["checks"]["redis"]
        assert (check["status"], check["limits"]) == ("degraded", "counted by each process alone")
        assert one.metric("agent_limits_local_total") == 8
        assert one.metric("agent_limited_total") == 2
    finally:
        redis.start()

    def redis_counts() -> bool:
        before = one.metric("agent_limits_local_total")
        assert ask(one, credential).status_code == 429
        return one.metric("agent_limits_local_total") == before

    # It came back empty, and is told what the instances know.
    wait_for(redis_counts, 20, "Redis used again")
    late = run({**base_settings, **GUARD}).client
    assert ask(late, credential).status_code == 429


@pytest.fixture
def proxied(run: Run, base_settings: dict[str, Any]) -> Callable[..., Client]:
    def start(**settings: Any) -> Client:
        # A name of its own, so that other tests' requests from the same address are not counted in.
        name = f"agent-{uuid.uuid4().hex[:8]}"
        return run({**base_settings, **GUARD, "name": name, "trusted_proxies": "127.0.0.0/8", **settings}).client

    return start


def from_address(client: Client, address: str, credential: str = KEY) -> httpx.Response:
    headers = {**bearer(credential), "X-Forwarded-For": address}
    return client.post("/api/chat", json={"message": "Hi"}, headers=headers)


def test_one_address_is_limited_and_another_is_not(proxied: Callable[..., Client]) -> None:
    client = proxied(address_requests_per_minute=3)
    statuses = [from_address(client, "192.0.2.1").status_code for _ in range(8)]
    # A minute may end in between.
    assert 429 in statuses[3:]
    assert statuses[:3] == [200] * 3
    assert from_address(client, "192.0.2.2").status_code == 200
    # What a client puts before its own address changes nothing.
    assert from_address(client, "198.51.100.7, 192.0.2.1").status_code == 429
    assert from_address(client, "2001:db8::1").status_code == 200
    assert [from_address(client, f"2001:db8::{n}").status_code for n in range(2, 6)][-1] == 429
    refused = from_address(client, "192.0.2.1", "no-key-at-all")
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    # Who watches the service asks as often as it likes.
    assert {client.get("/ready").status_code for _ in range(6)} == {200}


def test_a_webhook_is_called_as_often_as_an_address_may(proxied: Callable[..., Client]) -> None:
    uaz = {"uaz_webhook_secret": "a-secret-of-the-webhook", "uaz_url": "http://127.0.0.1:9", "uaz_token": "a-token"}
    client = proxied(address_requests_per_minute=3, queue=True, **uaz)
    answers = [client.post("/webhook/uaz", content=b"{}") for _ in range(8)]
    assert [answer.status_code for answer in answers[:3]] == [403] * 3
    # A minute may end in between.
    assert 429 in [answer.status_code for answer in answers[3:]]


def test_failures_are_limited_and_those_with_a_key_are_not_locked_out(proxied: Callable[..., Client]) -> None:
    client = proxied(address_failures_per_minute=3)
    statuses = [from_address(client, "192.0.2.1", "no-key-at-all").status_code for _ in range(9)]
    assert statuses[:3] == [401] * 3
    assert 429 in statuses[3:]
    assert from_address(client, "192.0.2.1").status_code == 200
    assert from_address(client, "192.0.2.9", "no-key-at-all").status_code == 401


def test_header_of_a_peer_that_is_no_proxy_is_not_believed(proxied: Callable[..., Client]) -> None:
    client = proxied(address_requests_per_minute=3, trusted_proxies="10.0.0.0/8")
    statuses = [from_address(client, f"192.0.2.{number}").status_code for number in range(8)]
    assert 429 in statuses
