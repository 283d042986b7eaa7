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
from starlette.middleware.cors import CORSMiddleware

from agent_service.agents.conversation import Conversation
from agent_service.agents.offline import OFFLINE
from agent_service.api import chat, description, operations, problems
from agent_service.api.access import Guard, TrustedHosts
from agent_service.api.middleware import BodyLimit, Context
from agent_service.core import systemd
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.guard.audit import Audit
from agent_service.guard.bearer import Tokens
from agent_service.guard.credentials import Credentials
from agent_service.guard.keys import MAIN, Key, digest_of, parse_keys
from agent_service.guard.limits import Limiter
from agent_service.guard.tiers import MAIN_TIER
from agent_service.memory.database import create_pool
from agent_service.memory.history import History
from agent_service.memory.redis import Rest, create_redis
from agent_service.memory.sessions import Sessions
from agent_service.models.access import Models
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
    redis = create_redis(settings)
    rest = Rest(metrics)
    limiter = Limiter(redis, rest, settings.name, metrics)
    audit = Audit(metrics)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_log_stray)
        pool = create_pool(settings)
        sessions = Sessions(settings, redis, rest)
        history = History(pool, settings.history_messages, settings.history_characters)
        models = Models(settings, metrics, pool, redis, rest)
        servers = McpServers(team.mcp_servers, settings.mcp_seconds)
        await servers.open()
        tool_calls = ToolCalls(settings.tool_seconds, settings.tool_rounds, metrics)
        specialists = Specialists(team, tools, servers, models, tool_calls)
        classifier = None
        if settings.classifier_seconds and models.first("economy").name != OFFLINE:
            classifier = Classifier(team, models, settings.classifier_seconds)
        routing = Routing(Router(team), classifier, metrics)
        app.state.conversation = Conversation(
            specialists, routing, models, history, sessions, pool, settings.turn_seconds
        )
        app.state.readiness = operations.Readiness(
            history.check,
            sessions.check,
            models,
            {f"mcp_{name}": partial(servers.check, name) for name in servers.names()},
        )
        app.state.limiter = limiter
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
            async with systemd.watchdog(), audit.writing(pool):
                systemd.notify(f"READY=1\nSTATUS=Release {settings.release}, model {models.first().name}")
                logger.info("started", model=models.first().name)
                yield
                systemd.notify("STOPPING=1")
        finally:
            await servers.close()
            await models.close()
            await redis.aclose()
            await pool.close()

    app = FastAPI(
        title="Agent service",
        lifespan=lifespan,
        # For who holds a key. Pages that show it would load their scripts from elsewhere.
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        middleware=[
            *_cors(settings),
            Middleware(Context, metrics=metrics),
            *([Middleware(TrustedHosts, names=settings.trusted_hosts)] if settings.trusted_hosts else []),
            Middleware(
                Guard,
                credentials=_credentials(settings),
                limiter=limiter,
                audit=audit,
                metrics=metrics,
                trusted_proxies=settings.trusted_proxies,
                requests_per_minute=settings.address_requests_per_minute,
                failures_per_minute=settings.address_failures_per_minute,
            ),
            Middleware(BodyLimit, limit=settings.body_max_bytes),
        ],
    )
    app.state.settings = settings
    app.state.metrics = metrics
    problems.install(app)
    app.include_router(operations.router)
    app.include_router(chat.router, responses=problems.documented(400, 401, 413, 422, 429, 500))
    description.install(app)
    return app


def _credentials(settings: Settings) -> Credentials:
    main = Key(MAIN, MAIN_TIER, digest_of(settings.api_key.get_secret_value().encode()))
    keys = parse_keys(settings.api_keys.get_secret_value(), settings.tiers)
    secret = settings.jwt_secret.get_secret_value()
    tokens = None
    if secret or settings.jwt_public_key:
        tokens = Tokens(secret, settings.jwt_public_key, settings.jwt_issuer, settings.jwt_audience, settings.tiers)
    return Credentials([main, *keys], tokens, settings.tiers)


def _cors(settings: Settings) -> list[Middleware]:
    """Outermost: a browser asks before it sends a credential, and reads no refusal without leave."""
    if not settings.cors_origins:
        return []
    return [
        Middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "X-Request-Id", "X-Session-Id"],
            expose_headers=[
                "X-Request-Id", "X-Session-Id", "Retry-After",
                "RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset",
            ],
        )
    ]  # fmt: skip


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The default handler's text quotes the exception's, which may quote a message."""
    logger.error("stray_error", exc_info=context.get("exception"))
