"""What today's calls have cost over all instances: counted in Redis, read from the database where Redis is empty."""

import time
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

# Adds only to what is there: a counter that starts anew would forget the day so far.
_ADD = """
if redis.call('EXISTS', KEYS[1]) == 0 then return false end
return redis.call('INCRBY', KEYS[1], ARGV[1])
"""

logger = get_logger(__name__)


class Spending:
    """Without a budget nothing is counted, and nobody is asked."""

    def __init__(self, settings: Settings, metrics: Metrics, redis: Redis, rest: Rest, pool: Pool) -> None:
        daily = settings.budget_usd_daily
        self._budget = Budget(daily, settings.budget_alert_share, settings.budget_mode) if daily else None
        self._prefix = f"{settings.name}:spent:"
        self._metrics = metrics
        self._redis = redis
        self._rest = rest
        self._pool = pool
        self._add = redis.register_script(_ADD)
        self._day = ""
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

    async def add(self, cost: Decimal) -> None:
        """Count what a turn cost; it is in the database already."""
        if self._budget is None or not cost:
            return
        self._begin_day()
        if self._rest:
            self._know(self._spent + cost)
            return
        try:
            total = await self._add(keys=[self._prefix + self._day], args=[to_pico(cost)])
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
                    found = await self._redis.get(self._prefix + self._day)
                    self._know(from_pico(int(found) if found is not None else await self._rebuild(0)))
                    return
                except (RedisError, OSError) as error:
                    self._rest.begin(error)
            self._look_at = now + REREAD_SECONDS
            self._know(await spent_since(self._pool, _midnight(self._day)))
        except Problem:
            # No database either: what is known has to do, and the turn will say so itself.
            logger.warning("spending_unknown")

    async def _rebuild(self, own: int) -> int:
        """Start the day's counter from the database; OWN is in there, but not in a counter that others started."""
        key = self._prefix + self._day
        total = to_pico(await spent_since(self._pool, _midnight(self._day)))
        if await self._redis.set(key, total, nx=True, ex=KEPT_SECONDS):
            return total
        return int(await self._redis.incrby(key, own))

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
