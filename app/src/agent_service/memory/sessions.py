"""Session state in Redis: who is answering a conversation now, how it stands, and what its next turn starts from.

Lost, it is missed by nobody: the next turn reads what it needs from PostgreSQL, and leaves it here again.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar

from redis.asyncio import Redis
from redis.asyncio.lock import Lock
from redis.exceptions import LockError, RedisError

from agent_service.core.logs import get_logger
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings
from agent_service.memory.context import Context
from agent_service.memory.redis import Rest

# How long the lock of an instance that died keeps the next message of its conversation waiting.
LOCK_SECONDS = 20

# The field of a session's hash.
_CONTEXT = "context"

logger = get_logger(__name__)

# The lock of the turn that this code runs for.
_held: ContextVar[Lock | None] = ContextVar("turn_lock", default=None)


class _TurnLock(Lock):
    """Brings the context along, so that it costs no round trip of its own."""

    context: str | None = None

    def __init__(self, redis: Redis, key: str) -> None:
        super().__init__(redis, f"{key}:turn", timeout=LOCK_SECONDS, sleep=0.05, thread_local=False)
        self._client = redis
        self._key = key

    async def do_acquire(self, token: str | bytes) -> bool:
        async with self._client.pipeline(transaction=True) as pipeline:
            pipeline.set(self.name, token, nx=True, px=LOCK_SECONDS * 1000)
            pipeline.hget(self._key, _CONTEXT)
            taken, self.context = await pipeline.execute()
        return bool(taken)


class Sessions:
    def __init__(self, settings: Settings, redis: Redis, rest: Rest) -> None:
        self._prefix = f"{settings.name}:session:"
        self._seconds = settings.session_seconds
        self._wait = settings.session_wait_seconds
        self._redis = redis
        self._rest = rest

    @contextlib.asynccontextmanager
    async def turn(self, session_id: str) -> AsyncIterator[str | None]:
        """One turn of a conversation at a time, on any instance, so that each sees the answer before it.

        Gives the context that the turn before left, if it is there.

        Without Redis turns may overlap: history stays whole and ordered, the later answer just knows less.
        """
        lock = await self._acquire(session_id)
        _held.set(lock)
        renewal = asyncio.create_task(self._renew(lock)) if lock else None
        try:
            yield lock.context if lock else None
        finally:
            if lock and renewal:
                renewal.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await renewal
                await self._release(lock)

    async def record(self, session_id: str, agent: str, tokens: int, context: Context) -> None:
        """Note that a turn was answered, which ends it, and what the next one starts from: its lock goes along."""
        if self._rest:
            return
        key = self._prefix + session_id
        try:
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(key, mapping={"agent": agent, "seen_at": int(time.time()), _CONTEXT: context.to_text()})
                pipeline.hincrby(key, "turns", 1)
                pipeline.hincrby(key, "tokens", tokens)
                pipeline.expire(key, self._seconds)
                if lock := _held.get():
                    # Not as a registered script, which a pipeline first asks for.
                    pipeline.eval(lock.LUA_RELEASE_SCRIPT, 1, lock.name, lock.local.token)
                *_, released = await pipeline.execute()
            if lock:
                lock.local.token = None
                if not released:
                    logger.warning("turn_lock_lost")
        except (RedisError, OSError) as error:
            self._rest.begin(error)

    async def check(self) -> None:
        await self._redis.ping()

    async def _acquire(self, session_id: str) -> "_TurnLock | None":
        if self._rest:
            return None
        lock = _TurnLock(self._redis, self._prefix + session_id)
        try:
            if await lock.acquire(blocking_timeout=self._wait):
                return lock
        except (RedisError, OSError) as error:
            self._rest.begin(error)
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
                self._rest.begin(error)

    async def _release(self, lock: Lock) -> None:
        if lock.local.token is None:
            return
        try:
            await lock.release()
        except LockError:
            logger.warning("turn_lock_lost")
        except (RedisError, OSError) as error:
            self._rest.begin(error)
