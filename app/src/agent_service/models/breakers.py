"""The breakers of all models, shared through Redis by the instances of a release; without Redis each has its own.

A call on the healthy path asks Redis nothing: what others know is read once a second, for all models in one round trip.
By release, so that a release whose calls fail by its own fault cannot close a model to the one that works.
"""

import contextlib
import hashlib
import time
from collections import Counter
from collections.abc import Iterable, Iterator

from redis.asyncio import Redis
from redis.exceptions import RedisError

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.redis import Rest
from agent_service.models.breaker import Breaker
from agent_service.models.failures import resting

LOOK_SECONDS = 1.0
# Longer than any outage is of interest; every key in Redis expires.
KEPT_SECONDS = 3600

_LEVELS = {"closed": 0, "half-open": 1, "open": 2}

logger = get_logger(__name__)


class Breakers:
    def __init__(self, settings: Settings, metrics: Metrics, redis: Redis, rest: Rest, places: Iterable[str]) -> None:
        self._seconds = settings.breaker_seconds
        self._metrics = metrics
        self._redis = redis
        self._rest = rest
        self._looked_at = -LOOK_SECONDS
        self._breakers = {place: Breaker(settings.breaker_failures, settings.breaker_seconds) for place in places}
        self._keys = {
            place: f"{settings.name}:breaker:{settings.release}:{hashlib.sha256(place.encode()).hexdigest()[:16]}"
            for place in self._breakers
        }
        # What this instance found out, ever and not in Redis yet: a look that overlaps it has read what was before.
        self._found: Counter[str] = Counter()
        self._writing: Counter[str] = Counter()

    def state(self, place: str) -> str:
        return self._breakers[place].state(time.monotonic())

    async def look(self) -> None:
        """Take over what other instances found out."""
        now = time.monotonic()
        if now < self._looked_at + LOOK_SECONDS or self._rest:
            return
        # Before the wait: calls that come meanwhile go by what is known.
        self._looked_at = now
        found_before = {place: self._found[place] for place in self._keys if not self._writing[place]}
        try:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for key in self._keys.values():
                    pipeline.mget(f"{key}:failures", f"{key}:tripped")
                    pipeline.pttl(f"{key}:wait")
                found = await pipeline.execute()
        except (RedisError, OSError) as error:
            self._rest.begin(error)
            return
        for place, (failures, tripped), wait in zip(self._keys, found[::2], found[1::2], strict=True):
            if found_before.get(place) != self._found[place]:
                continue
            breaker = self._breakers[place]
            breaker.adopt(time.monotonic(), int(failures or 0), tripped=tripped is not None, wait=max(0, wait) / 1000)
            self._show(place)

    async def enter(self, place: str) -> None:
        """Raise the answer of a model that is left alone, unless this call is the one that tries it."""
        breaker = self._breakers[place]
        trying = breaker.tripped
        if not breaker.admit(time.monotonic()) or (trying and not await self._claim(place)):
            raise resting(breaker.wait_until - time.monotonic())
        self._show(place)

    async def failed(self, place: str, began: float) -> None:
        breaker, key = self._breakers[place], self._keys[place]
        known = breaker.failures
        tripped = breaker.failed(time.monotonic(), began)
        with self._finding_out(place):
            tripped = await self._tell_failure(breaker, key, known, tripped, began)
        if tripped:
            logger.error("breaker_opened", model=place, failures=breaker.failures)
        self._show(place)

    async def succeeded(self, place: str) -> None:
        breaker, key = self._breakers[place], self._keys[place]
        was_open = breaker.tripped
        if not breaker.succeeded(time.monotonic()):
            return
        if was_open:
            logger.info("breaker_closed", model=place)
        self._show(place)
        if self._rest:
            return
        try:
            with self._finding_out(place):
                await self._redis.delete(f"{key}:failures", f"{key}:tripped", f"{key}:wait")
        except (RedisError, OSError) as error:
            self._rest.begin(error)

    async def _tell_failure(self, breaker: Breaker, key: str, known: int, tripped: bool, began: float) -> bool:
        """Whether it trips the breaker after all, with what others found out."""
        try:
            if breaker.failures > known and not tripped and not self._rest:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.incr(f"{key}:failures")
                    pipeline.expire(f"{key}:failures", KEPT_SECONDS)
                    failures = (await pipeline.execute())[0]
                if failures > breaker.failures:
                    # Others failed too since the last look.
                    breaker.failures = failures - 1
                    tripped = breaker.failed(time.monotonic(), began)
            if tripped and not self._rest:
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.set(f"{key}:tripped", 1, ex=KEPT_SECONDS)
                    pipeline.set(f"{key}:wait", 1, px=round(self._seconds * 1000))
                    await pipeline.execute()
        except (RedisError, OSError) as error:
            self._rest.begin(error)
        return tripped

    async def _claim(self, place: str) -> bool:
        """Be the one instance that tries; without Redis each instance has a try of its own."""
        if self._rest:
            return True
        key = self._keys[place]
        milliseconds = round(self._seconds * 1000)
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.set(f"{key}:wait", 1, px=milliseconds, nx=True)
                pipeline.expire(f"{key}:tripped", KEPT_SECONDS)
                claimed = (await pipeline.execute())[0]
        except (RedisError, OSError) as error:
            self._rest.begin(error)
            return True
        return claimed is not None

    @contextlib.contextmanager
    def _finding_out(self, place: str) -> Iterator[None]:
        self._found[place] += 1
        self._writing[place] += 1
        try:
            yield
        finally:
            self._writing[place] -= 1

    def _show(self, place: str) -> None:
        self._metrics.breaker_state.labels(place.partition("@")[0]).set(_LEVELS[self.state(place)])
