"""Effects outward: written with the result that they belong to, sent afterwards, once as far as the receiver helps."""

import random
from collections.abc import Mapping
from typing import Any, Protocol

import structlog
from psycopg.types.json import Jsonb

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.tracing import SpanKind, Tracing, carried, origin
from agent_service.memory.database import Connection, Pool, connection

BACKOFF_SECONDS = 300

logger = get_logger(__name__)

_TAKE = """
SELECT id, key, kind, payload, attempts, origin FROM outbox AS entry
WHERE state = 'waiting' AND next_at <= now() AND kind = ANY (%s) AND (
    lane IS NULL OR NOT EXISTS (
        SELECT FROM outbox AS earlier
        WHERE earlier.lane = entry.lane AND earlier.state = 'waiting' AND earlier.id < entry.id
    )
)
ORDER BY next_at LIMIT 1 FOR UPDATE SKIP LOCKED
"""


class SendError(Exception):
    """What the receiver said, without its words; `final` where asking again is of no use."""

    def __init__(self, code: str, *, final: bool = False) -> None:
        super().__init__(code)
        self.code = code
        self.final = final


class Destination(Protocol):
    """Where effects of one kind go. It hands the key on, so that a receiver can tell a repetition."""

    kind: str

    async def send(self, payload: Mapping[str, Any], key: str) -> None: ...


async def put(
    borrowed: Connection, key: str, kind: str, payload: Mapping[str, Any], *, lane: str | None = None
) -> None:
    """Inside the transaction of what the effect follows from. Of one lane, one is sent after the other."""
    await borrowed.execute(
        "INSERT INTO outbox (key, kind, lane, payload, origin) VALUES (%s, %s, %s, %s, %s)"
        " ON CONFLICT (key) DO NOTHING",
        [key, kind, lane, Jsonb(dict(payload)), Jsonb(origin())],
    )


class Sender:
    def __init__(
        self, pool: Pool, destinations: Mapping[str, Destination], attempts: int, metrics: Metrics, tracing: Tracing
    ) -> None:
        self._pool = pool
        self._destinations = destinations
        self.kinds = list(destinations)
        self._attempts = attempts
        self._metrics = metrics
        self._tracing = tracing

    async def send_one(self) -> bool:
        """Send the next entry that is due, if there is one.

        The row's lock is held meanwhile: whoever dies gives it back at once, and nobody else sends it.
        """
        async with connection(self._pool) as borrowed, borrowed.transaction():
            row = await (await borrowed.execute(_TAKE, [self.kinds])).fetchone()
            if row is None:
                return False
            number, key, kind, payload, attempts, follows = row
            follows = follows or {}
            try:
                with (
                    structlog.contextvars.bound_contextvars(**carried(follows)),
                    self._tracing.root(
                        f"send {kind}", SpanKind.CLIENT, follows, {"agent.outbox.attempt": attempts + 1}
                    ),
                ):
                    await self._destinations[kind].send(payload, key)
            except SendError as error:
                await self._failed(borrowed, number, kind, attempts + 1, error, carried(follows))
            else:
                await borrowed.execute(
                    "UPDATE outbox SET state = 'sent', attempts = attempts + 1, error = NULL, sent_at = now()"
                    " WHERE id = %s",
                    [number],
                )
                self._metrics.outbox_sends.labels(kind, "sent").inc()
        return True

    async def _failed(
        self, borrowed: Connection, number: int, kind: str, attempts: int, error: SendError, follows: dict[str, str]
    ) -> None:
        dead = error.final or attempts >= self._attempts
        pause = min(2.0**attempts, BACKOFF_SECONDS) * random.uniform(0.75, 1.25)
        await borrowed.execute(
            "UPDATE outbox SET state = %s, attempts = %s, error = %s, next_at = now() + make_interval(secs => %s)"
            " WHERE id = %s",
            ["dead" if dead else "waiting", attempts, error.code, pause, number],
        )
        self._metrics.outbox_sends.labels(kind, "dead" if dead else "failed").inc()
        logger.warning("effect_dead" if dead else "effect_failed", kind=kind, entry=number, code=error.code, **follows)
