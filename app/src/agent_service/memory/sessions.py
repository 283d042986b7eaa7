"""Session state in Redis: who is answering a conversation now, and how it stands. Lost, it is missed by nobody."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import LockError, RedisError

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings

# How long the lock of an instance that died keeps the next message of its conversation waiting.
LOCK_SECONDS = 20
# How long a Redis that failed is left alone, so that requests do not each wait for it.
REST_SECONDS = 5

logger = get_logger(__name__)


def encryption(settings: Settings) -> dict[str, Any]:
    """How Redis is reached over TLS, if it is; its certificate has to name it."""
    if not settings.redis_tls:
        return {}
    return {"ssl": True, "ssl_ca_certs": settings.redis_ca or None, "ssl_check_hostname": True}


def create_redis(settings: Settings) -> Redis:
    return Redis(
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_database,
        username=settings.redis_user or None,
        password=settings.redis_password.get_secret_value() or None,
        **encryption(settings),
        decode_responses=True,
        socket_connect_timeout=1,
        socket_timeout=2,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.1), 1),
    )


class Sessions:
    def __init__(self, redis: Redis, settings: Settings, metrics: Metrics) -> None:
        self._prefix = f"{settings.name}:session:"
        self._seconds = settings.session_seconds
        self._wait = settings.session_wait_seconds
        self._metrics = metrics
        self._rest_until = 0.0
        self._redis = redis

    @contextlib.asynccontextmanager
    async def turn(self, session_id: str) -> AsyncIterator[None]:
        """One turn of a conversation at a time, on any instance, so that each sees the answer before it.

        Without Redis turns may overlap: history stays whole and ordered, the later answer just knows less.
        """
        lock = await self._acquire(session_id)
        renewal = asyncio.create_task(self._renew(lock)) if lock else None
        try:
            yield
        finally:
            if lock and renewal:
                renewal.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await renewal
                await self._release(lock)

    async def record(self, session_id: str, agent: str, tokens: int) -> None:
        """Note that a turn was answered."""
        if self._resting():
            return
        key = self._prefix + session_id
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, mapping={"agent": agent, "seen_at": int(time.time())})
                pipeline.hincrby(key, "turns", 1)
                pipeline.hincrby(key, "tokens", tokens)
                pipeline.expire(key, self._seconds)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            self._failed(error)

    async def check(self) -> None:
        await self._redis.ping()

    async def _acquire(self, session_id: str) -> Lock | None:
        if self._resting():
            return None
        lock = self._redis.lock(
            f"{self._prefix}{session_id}:turn", timeout=LOCK_SECONDS, sleep=0.05, thread_local=False
        )
        try:
            if await lock.acquire(blocking_timeout=self._wait):
                return lock
        except (RedisError, OSError) as error:
            self._failed(error)
            return None
        raise Problem(
            409,
            "conversation-busy",
            "Another message of this conversation is still being answered.",
            headers={"Retry-After": "5"},
        )

    async def _renew(self, lock: Lock) -> None:
        while True:
            await asyncio.sleep(LOCK_SECONDS / 3)
            try:
                await lock.reacquire()
            except LockError:
                return
            except (RedisError, OSError) as error:
                self._failed(error)

    async def _release(self, lock: Lock) -> None:
        try:
            await lock.release()
        except LockError:
            logger.warning("turn_lock_lost")
        except (RedisError, OSError) as error:
            self._failed(error)

    def _resting(self) -> bool:
        return time.monotonic() < self._rest_until

    def _failed(self, error: Exception) -> None:
        self._metrics.redis_errors.inc()
        self._rest_until = time.monotonic() + REST_SECONDS
        logger.warning("redis_failed", error=type(error).__name__)
