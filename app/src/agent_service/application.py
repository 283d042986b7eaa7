"""The parts, put together."""

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from psycopg_pool import PoolTimeout
from starlette.middleware import Middleware

from agent_service.agents.conversation import Conversation
from agent_service.agents.models import check_model, create_model
from agent_service.agents.offline import OFFLINE
from agent_service.api import chat, operations, problems
from agent_service.api.middleware import Authentication, BodyLimit, Context
from agent_service.core import systemd
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.memory.database import create_pool
from agent_service.memory.history import History
from agent_service.memory.sessions import Sessions
from agent_service.team.classifier import Classifier
from agent_service.team.definition import SHIPPED, load_team
from agent_service.team.mcp import McpServers
from agent_service.team.router import Router
from agent_service.team.routing import Routing
from agent_service.team.specialists import Specialists, load_tools
from agent_service.tools.calling import ToolCalls

logger = get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    metrics = Metrics(settings.name, settings.release, settings.slot)
    # Before anything is started: a fault in the team is told in one line, and nothing half runs.
    team = load_team(Path(settings.team_file or SHIPPED))
    tools = load_tools(team)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_log_stray)
        pool = create_pool(settings)
        sessions = Sessions(settings, metrics)
        history = History(pool, settings.history_messages, settings.history_characters)
        model_name, model = create_model(settings)
        servers = McpServers(team.mcp_servers, settings.mcp_seconds)
        await servers.open()
        specialists = Specialists(
            team,
            tools,
            servers,
            lambda tier: (model_name, model),
            ToolCalls(settings.tool_seconds, settings.tool_rounds, metrics),
            metrics,
        )
        classifier = None
        if settings.classifier_seconds and model_name != OFFLINE:
            classifier = Classifier(team, model_name, model, settings.classifier_seconds, metrics)
        routing = Routing(Router(team), classifier, metrics)
        app.state.conversation = Conversation(specialists, routing, history, sessions, pool, settings.turn_seconds)
        app.state.readiness = operations.Readiness(
            history.check,
            sessions.check,
            lambda: check_model(model),
            model_name,
            {f"mcp_{name}": partial(servers.check, name) for name in servers.names()},
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
                systemd.notify(f"READY=1\nSTATUS=Release {settings.release}, model {model_name}")
                logger.info("started", model=model_name)
                yield
                systemd.notify("STOPPING=1")
        finally:
            await servers.close()
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
            Middleware(BodyLimit, limit=settings.body_max_bytes),
        ],
    )
    app.state.settings = settings
    app.state.metrics = metrics
    problems.install(app)
    app.include_router(operations.router)
    app.include_router(chat.router)
    return app


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The default handler's text quotes the exception's, which may quote a message."""
    logger.error("stray_error", exc_info=context.get("exception"))
