"""Jobs: queued once by their key, in the transaction of what they follow from, and done once."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from agent_service.core.problems import Problem
from agent_service.memory.database import Connection, Pool, connection

Arguments = dict[str, Any]


class AlreadyDone(Exception):
    """Another run of the same job was first: nothing is left to do, and what this one did is taken back."""


@dataclass(frozen=True, slots=True)
class Task:
    """What runs under a name. `failed` is told, in a transaction, when there will be no further attempt."""

    name: str
    run: Callable[[Arguments], Awaitable[None]]
    failed: Callable[[Connection, Arguments, Problem], Awaitable[None]] | None = None


async def finish(borrowed: Connection, key: str) -> None:
    """In the transaction of a job's effects: whoever comes second waits for the first, then gives up."""
    done = await borrowed.execute("UPDATE job_keys SET done_at = now() WHERE key = %s AND done_at IS NULL", [key])
    if done.rowcount != 1:
        raise AlreadyDone


@contextlib.asynccontextmanager
async def finishing(pool: Pool, key: str) -> AsyncIterator[Connection]:
    async with connection(pool, "finish job") as borrowed, borrowed.transaction():
        await finish(borrowed, key)
        yield borrowed


async def is_done(pool: Pool, key: str) -> bool:
    async with connection(pool, "look at job") as borrowed:
        row = await (await borrowed.execute("SELECT done_at FROM job_keys WHERE key = %s", [key])).fetchone()
    return bool(row and row[0])


_DEPTH = """
SELECT
    (SELECT count(*) FROM procrastinate_jobs WHERE status = 'todo' AND queue_name = %(release)s),
    (
        SELECT extract(epoch FROM now() - min(k.queued_at))
        FROM procrastinate_jobs AS j JOIN job_keys AS k ON k.key = j.queueing_lock
        WHERE j.status = 'todo' AND j.queue_name = %(release)s
    ),
    (SELECT extract(epoch FROM now() - seen_at) FROM job_releases WHERE release = %(release)s)
"""


@dataclass(frozen=True, slots=True)
class Depth:
    waiting: int
    oldest_seconds: float | None
    # Since a worker of this release was last heard of.
    worker_seconds: float | None


async def depth(pool: Pool, release: str) -> Depth:
    async with connection(pool) as borrowed:
        row = await (await borrowed.execute(_DEPTH, {"release": release})).fetchone()
    assert row
    waiting, oldest, worker = row
    return Depth(waiting, _rounded(oldest), _rounded(worker))


def _rounded(seconds: Any) -> float | None:
    return None if seconds is None else round(float(seconds), 1)
