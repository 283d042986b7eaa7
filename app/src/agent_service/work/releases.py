"""Which release does what: each takes its own jobs, and what waits when it retires goes to one that knows the tasks."""

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from agent_service.memory.database import Connection

_REGISTER = """
INSERT INTO job_releases (release, tasks, seen_at) VALUES (%(release)s, %(tasks)s, now())
ON CONFLICT (release) DO UPDATE
SET tasks = excluded.tasks, seen_at = now(), handed_to = NULL, handed_at = NULL
"""

_UNKNOWN = """
SELECT task, sum(count)::integer FROM (
    SELECT task_name AS task, count(*) FROM procrastinate_jobs
    WHERE queue_name = %(source)s AND status IN ('todo', 'doing') GROUP BY 1
) AS waiting
WHERE task != ALL (%(known)s::text[]) GROUP BY 1 ORDER BY 1
"""

# A release that was handed over stays so: what comes back later, from a worker that died or a retry, follows.
_FOLLOW_JOBS = """
UPDATE procrastinate_jobs AS job SET queue_name = target.release
FROM job_releases AS source JOIN job_releases AS target ON target.release = source.handed_to
WHERE job.queue_name = source.release AND job.status = 'todo' AND job.task_name = ANY (target.tasks)
"""

_FOLLOW_EVENTS = """
UPDATE events SET release = source.handed_to FROM job_releases AS source
WHERE events.release = source.release AND events.dispatched_at IS NULL AND source.handed_to IS NOT NULL
"""

_HAS_WORKERS = """
SELECT release FROM job_releases WHERE seen_at > now() - make_interval(secs => %(seconds)s)
"""

# What was just queued may be ahead of its release's first worker.
_ADOPT_JOBS = f"""
UPDATE procrastinate_jobs AS job SET queue_name = %(release)s
FROM job_keys AS key
WHERE key.key = job.queueing_lock AND key.queued_at < now() - make_interval(secs => %(seconds)s)
    AND job.status = 'todo' AND job.task_name = ANY (%(tasks)s::text[]) AND job.queue_name NOT IN ({_HAS_WORKERS})
"""

_ADOPT_EVENTS = f"""
UPDATE events SET release = %(release)s
WHERE dispatched_at IS NULL AND at < now() - make_interval(secs => %(seconds)s) AND release NOT IN ({_HAS_WORKERS})
"""


class HandOverError(Exception):
    """The hand-over was refused and nothing was moved, in one line."""


@dataclass(frozen=True, slots=True)
class HandedOver:
    jobs: int
    events: int
    running: int


async def register(borrowed: Connection, release: str, tasks: Sequence[str]) -> None:
    """Say what this release's workers know. Its jobs are its own again, wherever they were handed to before."""
    await borrowed.execute(_REGISTER, {"release": release, "tasks": sorted(tasks)})


async def beat(borrowed: Connection, release: str) -> None:
    await borrowed.execute("UPDATE job_releases SET seen_at = now() WHERE release = %s", [release])


async def follow(borrowed: Connection) -> int:
    """Move what waits for releases that were handed over, and what they have not dispatched."""
    moved = await borrowed.execute(_FOLLOW_JOBS)
    await borrowed.execute(_FOLLOW_EVENTS)
    return moved.rowcount


async def adopt(borrowed: Connection, release: str, tasks: Sequence[str], seconds: float) -> int:
    """Take what waits for releases of which no worker was heard of for so long, as far as this one knows the tasks."""
    values = {"release": release, "tasks": list(tasks), "seconds": seconds}
    adopted = await borrowed.execute(_ADOPT_JOBS, values)
    await borrowed.execute(_ADOPT_EVENTS, values)
    return adopted.rowcount


def hand_over(database: psycopg.Connection[TupleRow], source: str, target: str) -> HandedOver:
    """All that waits, or nothing. Again it finds nothing to do."""
    if source == target:
        raise HandOverError("a release cannot be handed over to itself")
    with database.transaction():
        database.execute(
            "SELECT FROM job_releases WHERE release IN (%s, %s) ORDER BY release FOR UPDATE", [source, target]
        )
        row = database.execute("SELECT tasks, handed_to FROM job_releases WHERE release = %s", [target]).fetchone()
        if row is None:
            raise HandOverError(f"no worker of release {target} ever started, so what it knows is not known")
        known, handed_to = row
        if handed_to is not None:
            raise HandOverError(f"release {target} was itself handed over, to {handed_to}")
        unknown = database.execute(_UNKNOWN, {"source": source, "known": known}).fetchall()
        if unknown:
            tasks = ", ".join(f"{task} ({count})" for task, count in unknown)
            raise HandOverError(f"release {target} does not know what waits for {source}: {tasks}; nothing was moved")
        database.execute(
            "INSERT INTO job_releases (release, handed_to, handed_at) VALUES (%(source)s, %(target)s, now())"
            " ON CONFLICT (release) DO UPDATE SET handed_to = %(target)s, handed_at = now()",
            {"source": source, "target": target},
        )
        # What was handed to the source before follows it.
        database.execute("UPDATE job_releases SET handed_to = %s WHERE handed_to = %s", [target, source])
        jobs = database.execute(
            "UPDATE procrastinate_jobs SET queue_name = %s WHERE queue_name = %s AND status = 'todo'", [target, source]
        )
        events = database.execute(
            "UPDATE events SET release = %s WHERE release = %s AND dispatched_at IS NULL", [target, source]
        )
        running = database.execute(
            "SELECT count(*) FROM procrastinate_jobs WHERE queue_name = %s AND status = 'doing'", [source]
        ).fetchone()
    assert running
    return HandedOver(jobs.rowcount, events.rowcount, running[0])
