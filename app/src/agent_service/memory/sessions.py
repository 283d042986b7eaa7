"""Session state in Redis: who is answering a conversation now, how it stands, and what its next turn starts from.

Lost, it is missed by nobody: the next turn reads what it needs from PostgreSQL, and leaves it here again.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

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

# Each is one command: several in a transaction take client and server twice as long.
_BEGIN = """
local taken = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2])
return {taken and 1 or 0, redis.call('HGET', KEYS[2], 'context')}
"""
_RECORD = """
redis.call('HSET', KEYS[1], 'agent', ARGV[1], 'seen_at', ARGV[2], 'context', ARGV[3])
redis.call('HINCRBY', KEYS[1], 'turns', 1)
redis.call('HINCRBY', KEYS[1], 'tokens', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
if redis.call('GET', KEYS[2]) ~= ARGV[6] then return 0 end
return redis.call('DEL', KEYS[2])
"""

logger = get_logger(__name__)


def _lock_name(key: str) -> str:
    return f"{key}:turn"


class _TurnLock(Lock):
    """Brings the context along, so that it costs no round trip of its own."""

    context: str | None = None
    renewal: asyncio.Task[None] | None = None

    def __init__(self, redis: Redis, begin: Any, key: str) -> None:
        super().__init__(redis, _lock_name(key), timeout=LOCK_SECONDS, sleep=0.05, thread_local=False)
        self._begin = begin
        self._key = key

    async def do_acquire(self, token: str | bytes) -> bool:
        taken, self.context = await self._begin(keys=[self.name, self._key], args=[token, LOCK_SECONDS * 1000])
        return bool(taken)


# The lock of the turn that this code runs for.
_held: ContextVar[_TurnLock | None] = ContextVar("turn_lock", default=None)


class Sessions:
    def __init__(self, settings: Settings, redis: Redis, rest: Rest) -> None:
        self._prefix = f"{settings.name}:session:"
        self._seconds = settings.session_seconds
        self._wait = settings.session_wait_seconds
        self._redis = redis
        self._rest = rest
        self._begin = redis.register_script(_BEGIN)
        self._record = redis.register_script(_RECORD)

    @contextlib.asynccontextmanager
    async def turn(self, session_id: str, alone: bool = False) -> AsyncIterator[str | None]:
        """One turn of a conversation at a time, on any instance, so that each sees the answer before it.

        Gives the context that the turn before left, if it is there. ALONE is a turn of a conversation of which nobody
        else can know: there is nothing to wait for, and nothing was left.

        Without Redis turns may overlap: history stays whole and ordered, the later answer just knows less.
        """
        lock = None if alone else await self._acquire(session_id)
        _held.set(lock)
        if not lock:
            yield None
            return
        # Most turns are over before their lock needs to be renewed.
        renewing = asyncio.get_running_loop().call_later(LOCK_SECONDS / 3, self._begin_renewal, lock)
        try:
            yield lock.context
        finally:
            renewing.cancel()
            if lock.renewal:
                lock.renewal.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await lock.renewal
            await self._release(lock)

    async def record(self, session_id: str, agent: str, tokens: int, context: Context) -> None:
        """Note that a turn was answered, which ends it, and what the next one starts from: its lock goes along."""
        if self._rest:
            return
        key, lock = self._prefix + session_id, _held.get()
        token = (lock and lock.local.token) or ""
        stands = (agent, int(time.time()), context.to_text(), tokens, self._seconds, token)
        try:
            released = await self._record(keys=[key, _lock_name(key)], args=stands)
        except (RedisError, OSError) as error:
            self._rest.begin(error)
            return
        if lock:
            lock.local.token = None
            if not released:
                logger.warning("turn_lock_lost")

    async def check(self) -> None:
        await self._redis.ping()

    async def _acquire(self, session_id: str) -> "_TurnLock | None":
        if self._rest:
            return None
        lock = _TurnLock(self._redis, self._begin, self._prefix + session_id)
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

    def _begin_renewal(self, lock: _TurnLock) -> None:
        lock.renewal = asyncio.create_task(self._renew(lock))

    async def _renew(self, lock: Lock) -> None:
        while True:
            try:
                await lock.reacquire()
            except LockError:
                return
            except (RedisError, OSError) as error:
                self._rest.begin(error)
            await asyncio.sleep(LOCK_SECONDS / 3)

    async def _release(self, lock: Lock) -> None:
        if lock.local.token is None:
            return
        try:
            await lock.release()
        except LockError:
            logger.warning("turn_lock_lost")
        except (RedisError, OSError) as error:
            self._rest.begin(error)
