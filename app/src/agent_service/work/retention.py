"""What is removed when its time is over, a little at a time."""

from agent_service.core.settings import Settings
from agent_service.memory.database import Pool, connection

# Keys outlive the events that they keep from being told twice.
_STATEMENTS = (
    """
    UPDATE analysis_documents SET content = NULL WHERE content IS NOT NULL AND analysis_id IN (
        SELECT id FROM analyses WHERE finished_at < now() - make_interval(days => %(uploads)s)
    )
    """,
    "DELETE FROM analyses WHERE finished_at < now() - make_interval(days => %(days)s)",
    "DELETE FROM inbound_messages WHERE received_at < now() - make_interval(days => %(days)s) AND state != 'waiting'",
    "DELETE FROM outbox WHERE state = 'sent' AND sent_at < now() - make_interval(days => %(days)s)",
    "DELETE FROM events WHERE at < now() - make_interval(days => %(days)s) AND dispatched_at IS NOT NULL",
    "DELETE FROM job_keys WHERE done_at < now() - make_interval(days => %(days)s)",
    """
    DELETE FROM procrastinate_jobs AS job USING job_keys AS key
    WHERE key.key = job.queueing_lock AND job.status = 'failed'
        AND key.queued_at < now() - make_interval(days => %(days)s)
    """,
)


async def clean(pool: Pool, settings: Settings) -> None:
    values = {"days": settings.work_days, "uploads": settings.upload_days}
    for statement in _STATEMENTS:
        async with connection(pool) as borrowed:
            await borrowed.execute(statement, values)
