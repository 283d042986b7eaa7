"""The parts, put together."""

import asyncio
import contextlib
import ctypes
import gc
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

from fastapi import Depends, FastAPI
from psycopg_pool import PoolTimeout
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware

from agent_service.agents.assembly import assemble, read_team
from agent_service.api import (
    analyze,
    chat,
    description,
    drain,
    feedback,
    integrations,
    memory,
    operations,
    page,
    problems,
    socket,
    webhook,
)
from agent_service.api.access import Guard, TrustedHosts
from agent_service.api.background import Background, background_limits
from agent_service.api.middleware import BodyLimit, Context
from agent_service.api.parameters import once
from agent_service.core import systemd
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings
from agent_service.core.tracing import Tracing
from agent_service.guard.audit import Audit
from agent_service.guard.bearer import Tokens
from agent_service.guard.credentials import Credentials
from agent_service.guard.keys import MAIN, Key, digest_of, parse_keys
from agent_service.guard.limits import Limiter
from agent_service.guard.tiers import MAIN_TIER
from agent_service.memory.database import create_pool
from agent_service.memory.redis import Rest, create_redis

logger = get_logger(__name__)


def create_app(settings: Settings) -> FastAPI:
    metrics = Metrics(settings.name, settings.release, settings.slot)
    declared = read_team(settings)
    redis = create_redis(settings)
    rest = Rest(metrics, not settings.redis_host)
    limiter = Limiter(redis, rest, settings.name, metrics)
    audit = Audit(metrics)
    tracing = Tracing(settings, metrics, "api")

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        asyncio.get_running_loop().set_exception_handler(_log_stray)
        pool = create_pool(settings)
        parts = await assemble(settings, declared, metrics, pool, redis, rest)
        background = Background(settings, pool)
        app.state.pool = pool
        app.state.conversation = parts.conversation
        app.state.long_term = parts.long_term
        app.state.background = background
        app.state.readiness = operations.Readiness(
            parts.history.check,
            None if rest.always else parts.sessions.check,
            parts.models,
            {f"mcp_{name}": partial(parts.servers.check, name) for name in parts.servers.names()},
            {
                **({"memory": parts.long_term.report} if settings.memory else {}),
                **({"queue": background.check} if settings.queue else {}),
            },
        )
        app.state.limiter = limiter
        name = parts.models.first().name
        try:
            await pool.open()
            try:
                # Not by waiting for the pool, which closes itself for good where that takes too long.
                async with pool.connection():
                    pass
            except PoolTimeout:
                # Up and saying so is more use than a restart loop: the pool goes on trying.
                logger.warning("started_without_database")
            _settle_memory()
            async with systemd.watchdog(), audit.writing(pool):
                systemd.notify(f"READY=1\nSTATUS=Release {settings.release}, model {name}")
                logger.info("started", model=name)
                yield
                systemd.notify("STOPPING=1")
        finally:
            tracing.close()
            await background.close()
            await parts.close()
            await redis.aclose()
            await pool.close()

    app = FastAPI(
        title="Agent service",
        lifespan=lifespan,
        # For who holds a key. Pages that show it would load their scripts from elsewhere.
        openapi_url="/openapi.json",
        docs_url=None,
        redoc_url=None,
        # The framework's own would hold queries, which are messages, and texts of exceptions.
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
        middleware=[
            *_cors(settings),
            Middleware(Context, metrics=metrics, tracing=tracing),
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
            Middleware(BodyLimit, limit=settings.body_max_bytes, limits=background_limits(settings)),
        ],
    )
    app.state.settings = settings
    app.state.metrics = metrics
    problems.install(app)
    app.include_router(operations.router)
    for router in (
        chat.router,
        memory.router,
        analyze.router,
        integrations.router,
        feedback.router,
        operations.for_keys,
    ):
        app.include_router(
            router, dependencies=[Depends(once)], responses=problems.documented(400, 401, 413, 422, 429, 500)
        )
    app.include_router(webhook.router)
    app.include_router(socket.router)
    app.include_router(page.router)
    drain.install()
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


def _settle_memory() -> None:
    # What lives now lives for good; not looking at it again keeps pauses short. A turn makes some thousand objects that
    # end with it: to look for circles among them after each few hundred took a tenth of its time. What starting left in
    # circles is one megabyte, and to find it takes as long as a tenth of the start.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    gc.enable()
    # What starting took and nothing holds any more, glibc would keep.
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def _log_stray(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """The default handler's text quotes the exception's, which may quote a message."""
    logger.error("stray_error", exc_info=context.get("exception"))
