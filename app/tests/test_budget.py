"""The daily budget: the decision as properties, and over HTTP with two instances, Redis and PostgreSQL."""

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis import Redis as RedisClient
from servers import PASSWORD, Model, Postgres, Redis, wait_for
from service import Client, LocalService

from agent_service.models.budget import Budget, Mode, from_pico, next_midnight, to_pico

Run = Callable[[dict[str, Any]], LocalService]

amounts = st.decimals(0, 100_000, places=12)
modes: st.SearchStrategy[Mode] = st.sampled_from(("economy", "refuse", "alert"))
budgets = st.builds(Budget, st.decimals("0.01", 10_000, places=2), st.decimals("0.01", 1, places=2), modes)
ORDER = {"free": 0, "alert": 1, "economy": 2, "refuse": 2}


@given(budgets, amounts)
@example(Budget(Decimal(10), Decimal("0.8"), "refuse"), Decimal(10))
@example(Budget(Decimal(10), Decimal("0.8"), "refuse"), Decimal(8))
@example(Budget(Decimal(10), Decimal("0.8"), "refuse"), Decimal("9.999999999999"))
def test_budget_acts_when_it_is_spent_and_not_before(budget: Budget, spent: Decimal) -> None:
    verdict = budget.verdict(spent)
    if spent >= budget.daily:
        assert verdict == budget.mode
    else:
        assert (verdict == "alert") == (spent >= budget.daily * budget.alert_share)
        assert verdict in ("free", "alert")


@given(budgets, amounts, amounts)
def test_spending_more_never_allows_more(budget: Budget, spent: Decimal, more: Decimal) -> None:
    assert ORDER[budget.verdict(spent + more)] >= ORDER[budget.verdict(spent)]


@given(st.lists(st.decimals(0, 100, places=15), max_size=20))
def test_whole_numbers_add_up_to_at_least_the_sum(costs: list[Decimal]) -> None:
    counted = from_pico(sum(to_pico(cost) for cost in costs))
    assert sum(costs, Decimal(0)) <= counted <= sum(costs, Decimal(0)) + Decimal(len(costs)) / 10**12


@given(st.datetimes(datetime(2020, 1, 1), datetime(2099, 1, 1), timezones=st.just(UTC)))
def test_day_ends_within_a_day(now: datetime) -> None:
    midnight = next_midnight(now)
    assert timedelta(0) < midnight - now <= timedelta(days=1)
    assert (midnight.hour, midnight.minute, midnight.second, midnight.microsecond) == (0, 0, 0, 0)


# For a specialist of the standard tier, by the rules alone.
QUESTION = "What is our cash position?"
PRICE = "[tester]\ninput = 0\noutput = 1000\n[saver]\ninput = 0\noutput = 1000\n"


@pytest.fixture
def settings(model_settings: dict[str, Any], tmp_path: Any, postgres: Postgres, database: str) -> dict[str, Any]:
    """A day that begins now: 0.001 dollars an output token, and nothing paid yet."""
    postgres.execute("DELETE FROM model_calls", database)
    (tmp_path / "prices.toml").write_text(PRICE)
    return {
        **model_settings,
        "name": f"n{uuid.uuid4().hex[:8]}",
        "model": "tester",
        "model_economy": "saver",
        "prices_file": str(tmp_path / "prices.toml"),
        "budget_usd_daily": "0.010",
        "budget_alert_share": "0.5",
    }


@pytest.fixture
def four_tokens(model: Model) -> Model:
    """Each answer costs 0.004 dollars."""
    model.control(answer="one two six ten")
    return model


def budget(client: Client) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/ready").json()["checks"]["budget"]
    return found


def test_alert_then_economy_on_every_instance(run_briefly: Run, settings: dict[str, Any], four_tokens: Model) -> None:
    client, peer = run_briefly(settings).client, run_briefly(settings).client
    assert client.chat(QUESTION).json()["usage"]["cost_usd"] == "0.004"
    assert budget(client)["state"] == "free"
    assert peer.chat(QUESTION).json()["model"] == "tester"
    wait_for(lambda: budget(client)["state"] == budget(peer)["state"] == "alert", 5, "the alert")
    assert budget(client)["spent_usd"] == "0.008"
    assert client.get("/ready").json()["status"] == "degraded"
    assert client.chat(QUESTION).json()["model"] == "tester"
    wait_for(lambda: budget(peer)["state"] == "economy", 5, "economy")
    for instance in (client, peer):
        assert instance.chat(QUESTION).json()["model"] == "saver"
    assert client.metric("agent_budget_spent_usd") == pytest.approx(0.016)
    assert client.metric("agent_budget_usd") == pytest.approx(0.01)


def test_refusal_says_until_when(run_briefly: Run, settings: dict[str, Any], four_tokens: Model) -> None:
    client = run_briefly({**settings, "budget_mode": "refuse", "budget_usd_daily": "0.004"}).client
    assert client.chat(QUESTION).status_code == 200
    asked = len(four_tokens.requests())
    for response in (client.chat(QUESTION), client.post("/api/chat/stream", json={"message": QUESTION})):
        assert response.status_code == 503
        assert response.json()["type"] == "urn:agent:problem:budget-spent"
        assert response.headers["x-agent-error-source"] == "model"
        midnight = next_midnight(datetime.now(UTC))
        assert f"{midnight:%Y-%m-%d} 00:00 UTC" in response.json()["detail"]
        assert abs(int(response.headers["retry-after"]) - (midnight - datetime.now(UTC)).total_seconds()) < 5
    assert len(four_tokens.requests()) == asked
    assert client.get("/ready").status_code == 200


def test_alert_mode_changes_nothing_but_says_so(run_briefly: Run, settings: dict[str, Any], four_tokens: Model) -> None:
    client = run_briefly({**settings, "budget_mode": "alert"}).client
    assert {client.chat(QUESTION).json()["model"] for _ in range(5)} == {"tester"}
    assert budget(client)["state"] == "alert"
    assert Decimal(budget(client)["spent_usd"]) == Decimal("0.020")


def test_day_is_rebuilt_from_the_database(
    run_briefly: Run, settings: dict[str, Any], four_tokens: Model, redis: Redis
) -> None:
    client = run_briefly(settings).client
    client.chat(QUESTION)
    client.chat(QUESTION)
    with RedisClient(port=redis.port, password=PASSWORD, decode_responses=True) as connection:
        (key,) = connection.scan_iter(f"{settings['name']}:spent:*")
        assert connection.get(key) == "8000000000"
        assert connection.ttl(key) > 24 * 3600
        connection.delete(key)
        client.chat(QUESTION)
        assert connection.get(key) == "12000000000"
        connection.delete(key)
    assert budget(run_briefly(settings).client)["spent_usd"] == "0.012"


def test_budget_holds_while_redis_is_away(
    run_briefly: Run, settings: dict[str, Any], four_tokens: Model, redis: Redis
) -> None:
    client = run_briefly({**settings, "budget_mode": "refuse"}).client
    client.chat(QUESTION)
    redis.stop()
    try:
        assert [client.chat(QUESTION).status_code for _ in range(4)] == [200, 200, 503, 503]
        # One that starts now learns it from the database.
        assert run_briefly({**settings, "budget_mode": "refuse"}).client.chat(QUESTION).status_code == 503
    finally:
        redis.start()


def test_costs_of_failed_turns_count(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    client = run_briefly(settings).client
    model.control(finish_reason="insufficient_system_resource", answer="one two six ten")
    assert client.chat(QUESTION).status_code == 503
    wait_for(lambda: budget(client)["spent_usd"] == "0.008", 5, "two attempts that were paid")


def test_without_a_budget_nothing_is_counted(
    run_briefly: Run, settings: dict[str, Any], model: Model, redis: Redis
) -> None:
    client = run_briefly({**settings, "budget_usd_daily": None}).client
    client.chat(QUESTION)
    assert "budget" not in client.get("/ready").json()["checks"]
    with RedisClient(port=redis.port, password=PASSWORD) as connection:
        assert not list(connection.scan_iter(f"{settings['name']}:spent:*"))


def test_budget_over_a_model_without_a_price_says_so(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    found = budget(run_briefly({**settings, "model": "unheard-of"}).client)
    assert (found["status"], found["reason"]) == ("degraded", "no price for unheard-of")
