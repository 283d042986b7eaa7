"""What is removed when its time is over, a little at a time."""

from typing import LiteralString

from agent_service.core.settings import Settings
from agent_service.memory.database import Pool, connection

# Rows a statement: none may hold up others, or take longer than a statement may.
BATCH = 2000

# Keys outlive the events that they keep from being told twice.
_STATEMENTS: tuple[LiteralString, ...] = (
    """
    UPDATE analysis_documents SET content = NULL WHERE (analysis_id, position) IN (
        SELECT analysis_id, position FROM analysis_documents JOIN analyses ON analyses.id = analysis_id
        WHERE content IS NOT NULL AND finished_at < now() - make_interval(days => %(uploads)s) LIMIT 50
    )
    """,
    """
    DELETE FROM analyses WHERE id IN (
        SELECT id FROM analyses WHERE finished_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s
    )
    """,
    """
    DELETE FROM inbound_messages WHERE id IN (
        SELECT id FROM inbound_messages
        WHERE state != 'waiting' AND received_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s
    )
    """,
    """
    DELETE FROM outbox WHERE id IN (
        SELECT id FROM outbox WHERE state = 'sent' AND sent_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s
    )
    """,
    """
    DELETE FROM events WHERE id IN (
        SELECT id FROM events
        WHERE dispatched_at IS NOT NULL AND at < now() - make_interval(days => %(days)s) LIMIT %(batch)s
    )
    """,
    """
    DELETE FROM procrastinate_jobs WHERE id IN (
        SELECT job.id FROM procrastinate_jobs AS job JOIN job_keys AS key ON key.key = job.queueing_lock
        WHERE job.status = 'failed' AND key.queued_at < now() - make_interval(days => %(days)s) LIMIT %(batch)s
    )
    """,
    """
    DELETE FROM job_keys WHERE key IN (
        SELECT key FROM job_keys AS entry
        WHERE queued_at < now() - make_interval(days => %(days)s) AND (
            done_at < now() - make_interval(days => %(days)s)
            OR NOT EXISTS (SELECT FROM procrastinate_jobs WHERE queueing_lock = entry.key)
        ) LIMIT %(batch)s
    )
    """,
)


async def clean(pool: Pool, settings: Settings) -> None:
    values = {"days": settings.work_days, "uploads": settings.upload_days, "batch": BATCH}
    for statement in _STATEMENTS:
        while True:
            async with connection(pool) as borrowed:
                if (await borrowed.execute(statement, values)).rowcount == 0:
                    break
