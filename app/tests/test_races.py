"""What instances tell each other through Redis while something else happens, in the order that hurts."""

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from redis.asyncio.client import Pipeline
from servers import Postgres

from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.database import create_pool
from agent_service.memory.model_calls import spent_since, store_calls
from agent_service.memory.redis import Rest, create_redis
from agent_service.models import spending
from agent_service.models.breakers import Breakers
from agent_service.models.spending import Spending
from agent_service.models.turn import ModelCall, TurnCalls

PLACE = "a-model@somewhere"


@pytest.fixture
def settings(base_settings: dict[str, Any]) -> Settings:
    name = f"n{uuid.uuid4().hex[:8]}"
    return Settings(
        _env_file=None, api_key="a-key-for-a-test", breaker_failures=2, budget_usd_daily=100, **base_settings, name=name
    )


def test_a_look_that_overlaps_a_trip_does_not_undo_it(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    execute = Pipeline.execute
    meanwhile: list[Callable[[], Awaitable[None]]] = []

    async def slow(pipeline: Any, *arguments: Any, **named: Any) -> Any:
        """Something happens between Redis's answer and whoever asked, or before Redis hears of what was found out."""
        happens = meanwhile.pop() if meanwhile else None
        if happens and pipeline.is_transaction:
            await happens()
        answer = await execute(pipeline, *arguments, **named)
        if happens and not pipeline.is_transaction:
            await happens()
        return answer

    async def run(first: str) -> str:
        metrics = Metrics(settings.name, "r1", "")
        async with create_redis(settings) as redis:
            breakers = Breakers(settings, metrics, redis, Rest(metrics), [PLACE])

            async def trip() -> None:
                for _ in range(2):
                    await breakers.failed(PLACE, time.monotonic())

            if first == "look":
                meanwhile.append(trip)
                await breakers.look()
            else:
                await breakers.failed(PLACE, time.monotonic())
                meanwhile.append(breakers.look)
                await breakers.failed(PLACE, time.monotonic())
            state = breakers.state(PLACE)
            await breakers.succeeded(PLACE)
            return state

    monkeypatch.setattr(Pipeline, "execute", slow)
    assert asyncio.run(run("look")) == "open"
    assert asyncio.run(run("trip")) == "open"


def test_a_turn_is_counted_once_whoever_begins_the_days_counter(
    settings: Settings, postgres: Postgres, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    postgres.execute("DELETE FROM model_calls", database)
    reading = 0
    both = asyncio.Event()

    async def together(*arguments: Any) -> Decimal:
        """Both read the database before either begins the counter."""
        nonlocal reading
        total = await spent_since(*arguments)
        reading += 1
        if reading >= 2:
            both.set()
        await both.wait()
        return total

    async def run() -> None:
        metrics = Metrics(settings.name, "r1", "")
        async with create_redis(settings) as redis, create_pool(settings) as pool:
            one, other = (Spending(settings, metrics, redis, Rest(metrics), pool) for _ in range(2))

            async def turn(session: str) -> None:
                calls = [ModelCall(datetime.now(UTC), "general", "m", 1, "ok", 1, 1, 0, Decimal(1))]
                await store_calls(pool, TurnCalls(None, session, calls=calls))

            key = f"{settings.name}:spent:{datetime.now(UTC):%Y-%m-%d}"

            async def counted() -> str | None:
                found: str | None = await redis.get(key)
                return found and f"{int(found) / 1e12:g}"

            await turn("a")
            await turn("b")
            monkeypatch.setattr(spending, "spent_since", together)
            await asyncio.gather(one.add(Decimal(1), one.counter), other.add(Decimal(1), other.counter))
            assert await counted() == "2"
            monkeypatch.undo()
            # A third is stored, and Redis is emptied and filled again before it is counted.
            await other.look()
            before = other.counter
            await turn("c")
            await redis.delete(key)
            fresh = Spending(settings, metrics, redis, Rest(metrics), pool)
            await fresh.look()
            assert await counted() == "3"
            await other.add(Decimal(1), before)
            assert await counted() == "3"
            # What is usual: the counter is known, and the turn is added to it.
            await turn("d")
            await other.add(Decimal(1), other.counter)
            assert await counted() == "4"

    asyncio.run(run())
