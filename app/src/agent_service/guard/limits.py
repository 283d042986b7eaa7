"""Requests counted by the window: in Redis for all instances, in this process while Redis is away."""

import math
import time
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent_service.core.metrics import Metrics
from agent_service.memory.redis import Rest

# Subjects of one kind of limit that a process remembers.
_REMEMBERED = 10_000
_NOTHING = (-1, 0)

# Counted by one clock, Redis's own, so instances cannot disagree on the day; its days are UTC's, from midnight on.
# What the caller remembers of this window counts too: a Redis that lost its data knows less than the instances do.
_TAKE = """
local allowed, seconds, wanted = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[5])
local now = tonumber(redis.call('TIME')[1])
local window = math.floor(now / seconds)
local key = KEYS[1] .. ':' .. window
local kept = tonumber(redis.call('GET', key) or '0')
local count = kept
if tonumber(ARGV[3]) == window then count = math.max(count, tonumber(ARGV[4])) end
local left = seconds - now % seconds
local taken = 0
if count + wanted <= allowed then
    count, taken = count + wanted, 1
end
if count > kept then
    redis.call('SET', key, count, 'EX', left + 60)
end
return {taken, count, left, window}
"""


@dataclass(frozen=True, slots=True)
class Limit:
    name: str
    subject: str
    allowed: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Outcome:
    taken: bool
    remaining: int
    reset_seconds: int


class Limiter:
    def __init__(self, redis: Redis, rest: Rest, prefix: str, metrics: Metrics) -> None:
        self._take: Any = redis.register_script(_TAKE)
        self._rest = rest
        self._prefix = f"{prefix}:limit:"
        self._metrics = metrics
        self._seen: dict[str, OrderedDict[str, tuple[int, int]]] = {}

    async def take(self, limit: Limit, wanted: int = 1) -> Outcome:
        """Count as many requests as are wanted, or none where the limit allows fewer."""
        window, count = self._remembered(limit)
        if not self._rest:
            try:
                taken, count, left, window = await self._take(
                    keys=[f"{self._prefix}{limit.name}:{limit.subject}"],
                    args=[limit.allowed, limit.seconds, window, count, wanted],
                )
                return self._outcome(limit, bool(taken), count, left, window)
            except (RedisError, OSError) as error:
                self._rest.begin(error)
        return self._take_here(limit, wanted)

    def _take_here(self, limit: Limit, wanted: int) -> Outcome:
        """At the same figure, in this process alone: the door stays as narrow, though each instance has one."""
        self._metrics.limits_local.inc()
        now = time.time()
        window, count = self._remembered(limit)
        # Where Redis's clock is ahead of this host's, its window is the one that counts.
        if window < int(now // limit.seconds):
            window, count = int(now // limit.seconds), 0
        taken = count + wanted <= limit.allowed
        left = math.ceil(limit.seconds - now % limit.seconds)
        return self._outcome(limit, taken, count + wanted * taken, left, window)

    def _outcome(self, limit: Limit, taken: bool, count: int, left: int, window: int) -> Outcome:
        seen = self._seen.setdefault(limit.name, OrderedDict())
        before = seen.get(limit.subject, _NOTHING)
        # Answers of concurrent requests may come out of order.
        seen[limit.subject] = max(before, (window, count))
        seen.move_to_end(limit.subject)
        if len(seen) > _REMEMBERED:
            seen.popitem(last=False)
        if not taken:
            self._metrics.limited.labels(limit.name).inc()
        return Outcome(taken, max(0, limit.allowed - count), left)

    def _remembered(self, limit: Limit) -> tuple[int, int]:
        seen = self._seen.get(limit.name)
        return seen.get(limit.subject, _NOTHING) if seen else _NOTHING
