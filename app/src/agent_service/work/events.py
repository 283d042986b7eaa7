"""What happened, written in the transaction in which it did; consumers get each event as a job, once."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from agent_service.core.tracing import origin
from agent_service.memory.database import Connection, Pool, connection
from agent_service.work.queue import Arguments, Task, finishing

TURN = "conversation.turn"
UPLOADED = "document.uploaded"
ANALYSED = "analysis.finished"
RECEIVED = "message.received"
TYPES = (TURN, UPLOADED, ANALYSED, RECEIVED)

BATCH = 200

_RECORD = "INSERT INTO events (type, release, user_id, subject, payload, origin) VALUES (%s, %s, %s, %s, %s, %s)"

_CLAIM = """
UPDATE events SET dispatched_at = now() WHERE id IN (
    SELECT id FROM events WHERE release = %s AND dispatched_at IS NULL ORDER BY id LIMIT %s FOR UPDATE SKIP LOCKED
) RETURNING id, type
"""

_QUEUE = """
SELECT enqueue_job_v1(
    'event:' || consumer || ':' || event, %(release)s, 'consume:' || consumer,
    jsonb_strip_nulls(jsonb_build_object('event', event, 'origin', events.origin)), NULL
)
FROM unnest(%(consumers)s::text[], %(events)s::bigint[]) AS pair (consumer, event)
JOIN events ON events.id = event
ORDER BY event
"""

_MISSED = """
SELECT e.id FROM events AS e
WHERE e.at >= %(since)s AND e.type = ANY (%(types)s) AND NOT EXISTS (
    SELECT FROM job_keys AS k WHERE k.key = 'event:' || %(consumer)s || ':' || e.id AND (
        k.done_at IS NOT NULL
        OR EXISTS (
            SELECT FROM procrastinate_jobs AS j WHERE j.queueing_lock = k.key AND j.status IN ('todo', 'doing')
        )
    )
) ORDER BY e.id
"""


@dataclass(frozen=True, slots=True)
class Event:
    id: int
    type: str
    user_id: str | None
    subject: str
    payload: Mapping[str, Any]
    at: datetime


@dataclass(frozen=True, slots=True)
class Consumer:
    """Who is told of events. What it does is written in the transaction that it is given, effects by the outbox."""

    name: str
    types: Sequence[str]
    handle: Callable[[Connection, Event], Awaitable[None]]

    @property
    def task(self) -> str:
        return f"consume:{self.name}"


async def record(
    borrowed: Connection, release: str, kind: str, subject: str, user_id: str | None, payload: Mapping[str, Any]
) -> None:
    await borrowed.execute(_RECORD, [kind, release, user_id, subject, Jsonb(dict(payload)), Jsonb(origin())])


async def dispatch(pool: Pool, release: str, consumers: Sequence[Consumer]) -> int:
    """Queue the consumers' jobs for what this release recorded; how many events that were."""
    async with connection(pool) as borrowed, borrowed.transaction():
        claimed = await (await borrowed.execute(_CLAIM, [release, BATCH])).fetchall()
        pairs = [
            (consumer.name, event)
            for event, kind in sorted(claimed)
            for consumer in consumers
            if kind in consumer.types
        ]
        if pairs:
            names, numbers = zip(*pairs, strict=True)
            await borrowed.execute(_QUEUE, {"release": release, "consumers": list(names), "events": list(numbers)})
    return len(claimed)


def consume(pool: Pool, consumer: Consumer) -> Task:
    """The consumer's job."""

    async def run(arguments: Arguments) -> None:
        async with finishing(pool, arguments["key"]) as borrowed:
            query = "SELECT id, type, user_id, subject, payload, at FROM events WHERE id = %s"
            row = await (await borrowed.execute(query, [arguments["event"]])).fetchone()
            # Its time may be over: then there is nothing to tell.
            if row:
                await consumer.handle(borrowed, Event(*row))

    return Task(consumer.task, run)


def replay(
    database: psycopg.Connection[TupleRow], release: str, since: datetime, consumers: Sequence[Consumer]
) -> dict[str, int]:
    """Queue what each consumer missed since then; what it was told already, or is about to be, stays as it is."""
    queued = {}
    with database.transaction():
        for consumer in consumers:
            values = {"since": since, "types": list(consumer.types), "consumer": consumer.name}
            missed = [number for (number,) in database.execute(_MISSED, values).fetchall()]
            keys = [f"event:{consumer.name}:{number}" for number in missed]
            # Those of failed jobs; the jobs themselves go with them, so that none is there twice.
            database.execute(
                "DELETE FROM procrastinate_jobs WHERE queueing_lock = ANY (%s) AND status = 'failed'", [keys]
            )
            database.execute("DELETE FROM job_keys WHERE key = ANY (%s) AND done_at IS NULL", [keys])
            names = [consumer.name] * len(missed)
            database.execute(_QUEUE, {"release": release, "consumers": names, "events": missed})
            queued[consumer.name] = len(missed)
    return queued
