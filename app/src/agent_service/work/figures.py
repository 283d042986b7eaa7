"""How much waits, for Prometheus: from the database, for the worker's own release."""

from agent_service.core.metrics import Metrics
from agent_service.memory.database import Pool, connection

_JOBS = """
SELECT j.task_name, j.status::text, count(*),
    extract(epoch FROM now() - min(k.queued_at) FILTER (WHERE j.status = 'todo'))
FROM procrastinate_jobs AS j LEFT JOIN job_keys AS k ON k.key = j.queueing_lock
WHERE j.queue_name = %s AND j.status IN ('todo', 'doing', 'failed')
GROUP BY 1, 2
"""

_STATES = {"todo": "waiting", "doing": "running", "failed": "failed"}


class Figures:
    def __init__(self, pool: Pool, release: str, metrics: Metrics) -> None:
        self._pool = pool
        self._release = release
        self._metrics = metrics

    async def refresh(self) -> None:
        async with connection(self._pool) as borrowed:
            jobs = await (await borrowed.execute(_JOBS, [self._release])).fetchall()
            query = "SELECT kind, state, count(*) FROM outbox WHERE state != 'sent' GROUP BY 1, 2"
            entries = await (await borrowed.execute(query)).fetchall()
        # What is no longer there has no row, and must not keep its last figure.
        for gauge in (self._metrics.queue_jobs, self._metrics.queue_oldest_seconds, self._metrics.outbox):
            gauge.clear()
        for task, status, count, oldest in jobs:
            self._metrics.queue_jobs.labels(task, _STATES[status]).set(count)
            if oldest is not None:
                self._metrics.queue_oldest_seconds.labels(task).set(float(oldest))
        for kind, state, count in entries:
            self._metrics.outbox.labels(kind, state).set(count)
