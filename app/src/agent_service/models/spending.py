"""What today's calls have cost over all instances: counted in Redis, read from the database where Redis is empty."""

import asyncio
import time
import uuid
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import ModelTier, Settings
from agent_service.memory.database import Pool
from agent_service.memory.model_calls import spent_since
from agent_service.memory.redis import Rest
from agent_service.models.budget import Budget, Verdict, from_pico, next_midnight, to_pico

LOOK_SECONDS = 1.0
# The database is asked less often than Redis.
REREAD_SECONDS = 10.0
KEPT_SECONDS = 2 * 24 * 3600
# How often a counter is begun anew when others change it meanwhile.
TRIES = 5

# A counter is known by the name it was begun with. Adds only to the one that was there before the turn was stored: one
# that was begun later was read from the database, and has the turn already.
_ADD = """
if redis.call('GET', KEYS[2]) ~= ARGV[2] or redis.call('EXISTS', KEYS[1]) == 0 then return false end
return redis.call('INCRBY', KEYS[1], ARGV[1])
"""

# Only in place of what was there before the database was asked: what was added since may be in its answer or not.
_BEGIN = """
if (redis.call('GET', KEYS[1]) or '') ~= ARGV[1] or (redis.call('GET', KEYS[2]) or '') ~= ARGV[2] then return 0 end
redis.call('SET', KEYS[1], ARGV[3], 'EX', ARGV[5])
redis.call('SET', KEYS[2], ARGV[4], 'EX', ARGV[5])
return 1
"""

logger = get_logger(__name__)


class Spending:
    """Without a budget nothing is counted, and nobody is asked."""

    def __init__(self, settings: Settings, metrics: Metrics, redis: Redis, rest: Rest, pool: Pool) -> None:
        daily = settings.budget_usd_daily
        self._budget = Budget(daily, settings.budget_alert_share, settings.budget_mode) if daily else None
        self._name = settings.name
        self._metrics = metrics
        self._redis = redis
        self._rest = rest
        self._pool = pool
        self._add = redis.register_script(_ADD)
        self._begin = redis.register_script(_BEGIN)
        self._beginning = asyncio.Lock()
        self._begun_at = 0.0
        self._day = ""
        # The counter that is known; a turn remembers it until it is counted.
        self.counter = ""
        self._spent = Decimal(0)
        self._verdict: Verdict = "free"
        self._look_at = 0.0
        if self._budget:
            metrics.budget_usd.set(float(self._budget.daily))

    async def look(self) -> None:
        if self._budget is not None:
            await self._look()

    async def tier(self, tier: ModelTier) -> ModelTier:
        """The tier that the day's budget leaves, or the answer when it leaves none."""
        if self._budget is None:
            return tier
        await self._look()
        if self._verdict == "refuse":
            now = datetime.now(UTC)
            until = next_midnight(now)
            raise Problem(
                503,
                "budget-spent",
                f"The budget of this day is spent. The service answers again at {until:%Y-%m-%d %H:%M} UTC.",
                source="model",
                headers={"Retry-After": str(int((until - now).total_seconds()) + 1)},
            )
        return "economy" if self._verdict == "economy" else tier

    async def add(self, cost: Decimal, counter: str) -> None:
        """Count what a turn cost, which is in the database already; COUNTER was known before it was."""
        if self._budget is None or not cost:
            return
        self._begin_day()
        if self._rest:
            self._know(self._spent + cost)
            return
        try:
            total = await self._add(keys=self._keys, args=[to_pico(cost), counter])
            if total is None:
                total = await self._rebuild(to_pico(cost))
        except (RedisError, OSError) as error:
            self._rest.begin(error)
            self._know(self._spent + cost)
            return
        except Problem:
            # The database is gone and Redis is empty: the next look finds out.
            self._know(self._spent + cost)
            return
        self._know(from_pico(total))

    def report(self) -> dict[str, Any] | None:
        if self._budget is None:
            return None
        self._begin_day()
        return {
            "status": "ok" if self._verdict == "free" else "degraded",
            "daily_usd": str(self._budget.daily),
            "spent_usd": f"{self._spent:f}",
            "mode": self._budget.mode,
            "state": self._verdict,
            "until": next_midnight(datetime.now(UTC)).isoformat(),
        }

    async def _look(self) -> None:
        self._begin_day()
        now = time.monotonic()
        if now < self._look_at:
            return
        self._look_at = now + LOOK_SECONDS
        try:
            if not self._rest:
                try:
                    found, begun = await self._redis.mget(self._keys)
                    self.counter = str(begun or "")
                    whole = found is not None and begun is not None
                    self._know(from_pico(int(str(found)) if whole else await self._rebuild(0)))
                    return
                except (RedisError, OSError) as error:
                    self._rest.begin(error)
            self._look_at = now + REREAD_SECONDS
            self._know(await spent_since(self._pool, _midnight(self._day)))
        except Problem:
            # No database either: what is known has to do, and the turn will say so itself.
            logger.warning("spending_unknown")

    async def _rebuild(self, own: int) -> int:
        """Begin the day's counter from the database, where OWN is in already."""
        arrived = time.monotonic()
        async with self._beginning:
            # Another turn of this process has done it meanwhile, from rows that had this one's.
            if self._begun_at > arrived:
                return to_pico(self._spent)
            for _ in range(TRIES):
                before, begun = await self._redis.mget(self._keys)
                began = time.monotonic()
                total = to_pico(await spent_since(self._pool, _midnight(self._day)))
                name = uuid.uuid4().hex
                if await self._begin(keys=self._keys, args=[before or "", begun or "", total, name, KEPT_SECONDS]):
                    self.counter, self._begun_at = name, began
                    self._know(from_pico(total))
                    return total
        # Rather counted twice than not at all.
        return int(await self._redis.incrby(self._keys[0], own))

    @property
    def _keys(self) -> list[str]:
        return [f"{self._name}:spent:{self._day}", f"{self._name}:spent-counter:{self._day}"]

    def _begin_day(self) -> None:
        day = datetime.now(UTC).strftime("%Y-%m-%d")
        if day != self._day:
            self._day = day
            self._look_at = 0.0
            self._know(Decimal(0))

    def _know(self, spent: Decimal) -> None:
        assert self._budget
        self._spent = spent
        self._metrics.budget_spent_usd.set(float(spent))
        verdict = self._budget.verdict(spent)
        if verdict == self._verdict:
            return
        if verdict != "free":
            logger.warning("budget_reached", state=verdict, spent_usd=f"{spent:f}", daily_usd=str(self._budget.daily))
        self._verdict = verdict


def _midnight(day: str) -> datetime:
    return datetime.fromisoformat(day).replace(tzinfo=UTC)
