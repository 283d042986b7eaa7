"""The worker's process: `python -m agent_service.worker` does the jobs that this release queued."""

import asyncio
import contextlib
import gc
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial

from agent_service.agents.analyst import Analyst
from agent_service.agents.assembly import assemble, read_team
from agent_service.core import systemd
from agent_service.core.langsmith import prepare_langsmith
from agent_service.core.logs import configure_logging, get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.sentry import create_report
from agent_service.core.settings import Settings, load_settings
from agent_service.core.tracing import Tracing
from agent_service.guard.audit import Audit
from agent_service.integrations.registry import create_consumers, create_integrations
from agent_service.memory.database import Pool, connection, create_pool
from agent_service.memory.redis import Rest, create_redis
from agent_service.work import events, releases
from agent_service.work.analysis import Analyses
from agent_service.work.events import Consumer
from agent_service.work.fetch import Fetcher
from agent_service.work.figures import Figures
from agent_service.work.housekeeping import Housekeeping
from agent_service.work.messages import answering
from agent_service.work.outbox import Destination, Sender
from agent_service.work.retention import clean
from agent_service.work.runner import BEAT_SECONDS, Runner
from agent_service.work.schema import SchemaError, check_queue
from agent_service.work.server import serve
from agent_service.work.summaries import summarizing

OUTBOX_SECONDS = 1
DISPATCH_SECONDS = 1
FIGURES_SECONDS = 10
CLEAN_SECONDS = 3600
SENDERS = 3

Step = Callable[[], Awaitable[None]]

logger = get_logger("agent_service.worker")


async def run(settings: Settings) -> None:
    """Until the service manager says stop."""
    declared = read_team(settings)
    metrics = Metrics(settings.name, settings.release, settings.slot)
    pool = create_pool(settings)
    redis = create_redis(settings)
    audit = Audit(metrics)
    parts = await assemble(settings, declared, metrics, pool, redis, Rest(metrics, not settings.redis_host))
    name = parts.models.first().name
    integrations = [integration for integration in create_integrations(settings).values() if integration]
    consumers = create_consumers(settings)
    analyst = Analyst(parts.models, settings.analyze_chunk_characters, settings.analyze_concurrency)
    tasks = [
        Analyses(settings, pool, analyst, parts.models, Fetcher(settings), audit).task,
        answering(pool, parts.conversation, audit),
        summarizing(pool, parts.summaries, audit),
        *(events.consume(pool, consumer) for consumer in consumers),
    ]
    tracing = Tracing(settings, metrics, "worker")
    runner = Runner(settings, pool, tasks, metrics, tracing)
    destinations: dict[str, Destination] = {integration.kind: integration for integration in integrations}
    sender = Sender(pool, destinations, settings.outbox_attempts, metrics, tracing)
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(tracing.close)
        stack.push_async_callback(pool.close)
        stack.push_async_callback(redis.aclose)
        stack.push_async_callback(parts.close)
        for integration in integrations:
            stack.push_async_callback(integration.close)
        await pool.open()
        await stack.enter_async_context(audit.writing(pool))
        await stack.enter_async_context(serve(settings, metrics))
        await stack.enter_async_context(systemd.watchdog())
        gc.collect()
        gc.freeze()
        systemd.notify(f"READY=1\nSTATUS=Worker of release {settings.release}, model {name}")
        if not await _begin(settings, pool, runner.names, stopping):
            return
        logger.info("started", model=name, tasks=runner.names)
        routines = [
            asyncio.create_task(_routine(name, step, seconds, stopping))
            for name, step, seconds in _routines(settings, pool, metrics, runner, sender, consumers, stopping)
        ]
        working = asyncio.create_task(runner.run())
        waiting = asyncio.create_task(stopping.wait())
        # One that ends by itself is a failure, which its result raises.
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
        stopping.set()
        systemd.notify("STOPPING=1")
        runner.stop()
        # Each ends what it is at: a request that is on its way is not left without its mark.
        await asyncio.gather(working, waiting, *routines)
        logger.info("stopped")


def _routines(
    settings: Settings,
    pool: Pool,
    metrics: Metrics,
    runner: Runner,
    sender: Sender,
    consumers: Sequence[Consumer],
    stopping: asyncio.Event,
) -> Iterator[tuple[str, Step, float]]:
    """What a worker does beside its jobs, and how often."""

    async def send() -> None:
        while not stopping.is_set() and await sender.send_one():
            pass

    async def dispatch() -> None:
        while await events.dispatch(pool, settings.release, consumers) == events.BATCH:
            pass

    for number in range(SENDERS if sender.kinds else 0):
        yield f"send-{number}", send, OUTBOX_SECONDS
    yield "dispatch", dispatch, DISPATCH_SECONDS
    yield "housekeeping", Housekeeping(settings, pool, runner).step, BEAT_SECONDS
    yield "figures", Figures(pool, settings.release, metrics).refresh, FIGURES_SECONDS
    yield "clean", partial(clean, pool, settings), CLEAN_SECONDS


async def _begin(settings: Settings, pool: Pool, tasks: list[str], stopping: asyncio.Event) -> bool:
    """Wait for the database, compare its queue with the code, and say what this release knows."""
    while not stopping.is_set():
        try:
            async with connection(pool) as borrowed:
                await check_queue(borrowed)
                await releases.register(borrowed, settings.release, tasks)
            return True
        except Problem as error:
            logger.warning("waiting_for_database", exc_info=error)
            await _pause(stopping, 2)
    return False


async def _routine(name: str, step: Step, seconds: float, stopping: asyncio.Event) -> None:
    """Again and again; its failures are news once."""
    failing = False
    while not stopping.is_set():
        try:
            await step()
        except Exception as error:
            if not failing:
                logger.warning("routine_failed", routine=name, exc_info=error)
            failing = True
        else:
            if failing:
                logger.info("routine_recovered", routine=name)
            failing = False
        await _pause(stopping, seconds)


async def _pause(stopping: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await stopping.wait()


def main() -> None:
    settings = load_settings()
    configure_logging(settings.log_level, create_report(settings), release=settings.release, slot=settings.slot)
    prepare_langsmith()
    if not settings.queue:
        raise SystemExit("AGENT_QUEUE is off, so there is nothing for a worker to do")
    try:
        asyncio.run(run(settings))
    except SchemaError as error:
        raise SystemExit(f"The worker stopped: {error}") from None


if __name__ == "__main__":
    main()
