"""The queue's worker: takes its release's jobs, gives back what it cannot end, and takes back what others left."""

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import procrastinate
import structlog
from procrastinate import job_context, jobs, retry
from procrastinate.worker import Worker

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem, internal_error
from agent_service.core.settings import Settings
from agent_service.core.tracing import Span, SpanKind, Tracing, carried
from agent_service.memory.database import Connection, Pool, connection
from agent_service.work.queue import AlreadyDone, Arguments, Task

# A worker that was not heard of for so long is dead, and what it had is taken back at the next look.
BEAT_SECONDS = 3
DEAD_SECONDS = 11
POLL_SECONDS = 2
BACKOFF_SECONDS = 60

logger = get_logger(__name__)

# In one statement, unlike the library's own look and then retry: two workers that look at once must not both act,
# and a job that somebody takes in between is not stalled any more.
_RESCUE = """
UPDATE procrastinate_jobs SET
    status = CASE WHEN attempts + 1 >= %(attempts)s THEN 'failed' ELSE 'todo' END::procrastinate_job_status,
    attempts = attempts + 1, scheduled_at = NULL, abort_requested = false, worker_id = NULL
WHERE id IN (
    SELECT job.id FROM procrastinate_jobs AS job LEFT JOIN procrastinate_workers AS worker ON worker.id = job.worker_id
    WHERE job.status = 'doing'
        AND (worker.id IS NULL OR worker.last_heartbeat < now() - make_interval(secs => %(seconds)s))
    FOR UPDATE OF job SKIP LOCKED
)
RETURNING task_name, status, args
"""


class _Retry(retry.BaseRetryStrategy):
    def __init__(self, attempts: int) -> None:
        self._attempts = attempts

    def get_retry_decision(self, *, exception: BaseException, job: jobs.Job) -> retry.RetryDecision | None:
        match exception:
            case asyncio.CancelledError():
                # The worker stops: whoever is next begins anew, at once.
                return retry.RetryDecision(retry_in={"seconds": 0})
            case Problem(code="database-unavailable"):
                # Neither the job's fault nor to be written down as its failure.
                return retry.RetryDecision(retry_in={"seconds": 5})
            case Problem() if exception.status < 500 and exception.status not in (409, 429):
                return None
        if job.attempts + 1 >= self._attempts:
            return None
        seconds = min(2.0 ** (job.attempts + 1), BACKOFF_SECONDS) * random.uniform(0.75, 1.25)
        return retry.RetryDecision(retry_in={"milliseconds": int(seconds * 1000)})


class Runner:
    def __init__(
        self, settings: Settings, pool: Pool, tasks: Iterable[Task], metrics: Metrics, tracing: Tracing
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._tasks: Mapping[str, Task] = {task.name: task for task in tasks}
        self._metrics = metrics
        self._tracing = tracing
        self._retry = _Retry(settings.job_attempts)
        self._app = procrastinate.App(connector=procrastinate.PsycopgConnector())
        for task in self._tasks.values():
            self._app.task(name=task.name, retry=self._retry)(_entry(task))
        self._worker: Worker | None = None
        self._stopping = asyncio.Event()

    @property
    def names(self) -> list[str]:
        return list(self._tasks)

    async def run(self) -> None:
        """Until stopped. The library's worker ends where the database fails it; then another one begins."""
        await self._app.connector.open_async(self._pool)
        while not self._stopping.is_set():
            self._worker = Worker(
                self._app,
                queues=[self._settings.release],
                concurrency=self._settings.worker_concurrency,
                fetch_job_polling_interval=POLL_SECONDS,
                shutdown_graceful_timeout=self._settings.worker_stop_seconds,
                # What failed stays, to be looked at; what is done is known by its key.
                delete_jobs="successful",
                install_signal_handlers=False,
                update_heartbeat_interval=BEAT_SECONDS,
                stalled_worker_timeout=DEAD_SECONDS,
                worker_middleware=[self._around],
            )
            beating = asyncio.create_task(self._beat(self._worker))
            try:
                await self._worker.run()  # type: ignore[no-untyped-call]
            except Exception as error:
                logger.warning("worker_interrupted", exc_info=error)
            finally:
                beating.cancel()
            self._worker = None
            if not self._stopping.is_set():
                await asyncio.sleep(1)

    def stop(self) -> None:
        """Take nothing new; running jobs have their time to end."""
        self._stopping.set()
        if self._worker:
            self._worker.stop()  # type: ignore[no-untyped-call]

    async def _beat(self, worker: Worker) -> None:
        """The library's own beats end with the stop, while jobs still run: others would take those back."""
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            if self._stopping.is_set() and worker.worker_id is not None:
                with contextlib.suppress(procrastinate.exceptions.ConnectorException):
                    await self._app.job_manager.update_heartbeat(worker.worker_id)

    async def rescue(self) -> None:
        """Take back what dead workers had, whichever release's; what was tried too often has failed."""
        values = {"attempts": self._settings.job_attempts, "seconds": DEAD_SECONDS}
        async with connection(self._pool) as borrowed, borrowed.transaction():
            for name, status, arguments in await (await borrowed.execute(_RESCUE, values)).fetchall():
                self._metrics.jobs_rescued.inc()
                logger.warning("job_rescued", task=name, failed=status == "failed")
                if status == "failed":
                    problem = Problem(500, "worker-died", "The worker died each time that it ran this.")
                    await self._give_up(borrowed, name, arguments, problem)

    async def _around(
        self, call_next: Callable[[], Awaitable[Any]], context: job_context.JobContext, worker: Worker
    ) -> None:
        job = context.job
        given = job.task_kwargs.get("origin")
        origin = {name: str(value) for name, value in given.items()} if isinstance(given, dict) else {}
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(job_id=job.id, task=job.task_name, **carried(origin))
        attributes: dict[str, str | int] = {
            "messaging.system": "procrastinate",
            "messaging.operation.type": "process",
            "messaging.destination.name": job.queue,
            "messaging.message.id": str(job.id),
            "agent.job.attempt": job.attempts + 1,
        }
        with self._tracing.root(f"process {job.task_name}", SpanKind.CONSUMER, origin, attributes) as span:
            await self._run(call_next, job, span)

    async def _run(self, call_next: Callable[[], Awaitable[Any]], job: jobs.Job, span: Span) -> None:
        started = time.perf_counter()
        outcome = "done"
        try:
            await call_next()
        except AlreadyDone:
            outcome = "repeated"
        except asyncio.CancelledError:
            outcome = "returned"
            raise
        except Exception as error:
            outcome = "retried"
            if self._retry.get_retry_decision(exception=error, job=job) is None:
                outcome = "failed"
                problem = error if isinstance(error, Problem) else internal_error()
                async with connection(self._pool) as borrowed:
                    await self._give_up(borrowed, job.task_name, job.task_kwargs, problem)
            code = error.code if isinstance(error, Problem) else None
            # What nobody foresaw, and no repetition mended.
            write = logger.error if outcome == "failed" and code is None else logger.warning
            write("job_failed", outcome=outcome, attempt=job.attempts + 1, code=code, exc_info=error)
            raise
        finally:
            seconds = time.perf_counter() - started
            # The name of what is not known is whatever the queue says.
            name = job.task_name if job.task_name in self._tasks else "unknown"
            self._metrics.jobs.labels(name, outcome).inc()
            self._metrics.job_seconds.labels(name).observe(seconds)
            span.set_attribute("agent.job.outcome", outcome)
            logger.info("job", outcome=outcome, milliseconds=round(seconds * 1000, 1))

    async def _give_up(self, borrowed: Connection, name: str, arguments: Arguments, problem: Problem) -> None:
        task = self._tasks.get(name)
        if task and task.failed:
            await task.failed(borrowed, arguments, problem)


def _entry(task: Task) -> Callable[..., Awaitable[None]]:
    async def entry(**arguments: Any) -> None:
        await task.run(arguments)

    return entry
