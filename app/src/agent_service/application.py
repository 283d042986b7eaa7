"""The parts, put together."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI
from psycopg_pool import PoolTimeout
from starlette.middleware import Middleware

from agent_service.agents.assembly import assemble
from agent_service.agents.models import check_model
from agent_service.api import analyze, chat, integrations, operations, problems, webhook
from agent_service.api.background import Background, background_limits
from agent_service.api.middleware import Authentication, BodyLimit, Context
from agent_service.core import systemd
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.database import create_pool
from agent_service.memory.sessions import Sessions

logger = get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    metrics = Metrics(settings.name, settings.release, settings.slot)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_log_stray)
        pool = create_pool(settings)
        sessions = Sessions(settings, metrics)
        parts = assemble(settings, metrics, pool, sessions)
        app.state.conversation = parts.conversation
        background = Background(settings, pool)
        app.state.background = background
        app.state.readiness = operations.Readiness(
            parts.history.check,
            sessions.check,
            lambda: check_model(parts.model),
            parts.model_name,
            background.check if settings.queue else None,
        )
        try:
            await pool.open()
            try:
                # Not by waiting for the pool, which closes itself for good where that takes too long.
                async with pool.connection():
                    pass
            except PoolTimeout:
                # Up and saying so is more use than a restart loop: the pool goes on trying.
                logger.warning("started_without_database")
            # What lives now lives for good; not looking at it again keeps pauses short.
            gc.collect()
            gc.freeze()
            async with systemd.watchdog():
                systemd.notify(f"READY=1\nSTATUS=Release {settings.release}, model {parts.model_name}")
                logger.info("started", model=parts.model_name)
                yield
                systemd.notify("STOPPING=1")
        finally:
            await background.close()
            await sessions.close()
            await pool.close()

    app = FastAPI(
        title="Agent service",
        lifespan=lifespan,
        # The schema is no secret, but nothing is open that need not be.
        openapi_url=None,
        middleware=[
            Middleware(Context, metrics=metrics),
            Middleware(Authentication, key=settings.api_key),
            Middleware(BodyLimit, limit=settings.body_max_bytes, limits=background_limits(settings)),
        ],
    )
    app.state.settings = settings
    app.state.metrics = metrics
    problems.install(app)
    app.include_router(operations.router)
    app.include_router(chat.router)
    for router in (analyze.router, webhook.router, integrations.router):
        app.include_router(router)
    return app


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The default handler's text quotes the exception's, which may quote a message."""
    logger.error("stray_error", exc_info=context.get("exception"))
