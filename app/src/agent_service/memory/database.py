"""The PostgreSQL pool, and one way to tell that the database is down."""

import contextlib
import select
import time
from collections.abc import AsyncIterator
from typing import Any

import psycopg
from psycopg.rows import TupleRow
from psycopg_pool import AsyncConnectionPool, PoolClosed, PoolTimeout, TooManyRequests

from agent_service.core.problems import database_down
from agent_service.core.settings import Settings
from agent_service.core.tracing import SpanKind, span

Connection = psycopg.AsyncConnection[TupleRow]
# What says that the database cannot be used now: not reachable, not migrated, or not the primary.
_UNUSABLE = (
    PoolTimeout,
    PoolClosed,
    TooManyRequests,
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.UndefinedTable,
    psycopg.errors.ReadOnlySqlTransaction,
)

Pool = AsyncConnectionPool[Connection]

_TRACED = {"db.system.name": "postgresql"}


def root_certificates(settings: Settings) -> str | None:
    """By what the server's certificate is verified, where it is."""
    return settings.database_ca or ("system" if settings.database_sslmode == "verify-full" else None)


def connection_arguments(settings: Settings) -> dict[str, Any]:
    return {
        "host": settings.database_host,
        "port": settings.database_port,
        "dbname": settings.database_name,
        "user": settings.database_user,
        "password": settings.database_password.get_secret_value() or None,
        "sslmode": settings.database_sslmode,
        "sslrootcert": root_certificates(settings),
        "application_name": f"{settings.name}/{settings.slot or settings.release}",
        "connect_timeout": 3,
        # A host that vanished without a word is noticed in seconds, not in the kernel's quarter of an hour.
        "keepalives_idle": 10,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 10_000,
        "options": "-c statement_timeout=10000",
    }


def create_pool(settings: Settings) -> Pool:
    drained = 0.0

    async def check(connection: Connection) -> None:
        """Replace connections that a restart or failover killed before a request sees them."""
        nonlocal drained
        # A connection that nobody uses has nothing to read but its end, and to ask each time is a round trip.
        if not _readable(connection.fileno()):
            return
        try:
            await AsyncConnectionPool.check_connection(connection)
        except psycopg.OperationalError:
            # All of them, since where one is dead the others are: found one by one they would outlast the patience.
            if time.monotonic() > drained + 1:
                drained = time.monotonic()
                await pool.drain()
            raise

    pool: Pool = AsyncConnectionPool(
        kwargs=connection_arguments(settings),
        configure=_autocommit,
        min_size=min(2, settings.database_connections),
        max_size=settings.database_connections,
        timeout=settings.database_wait_seconds,
        # Short, so that the pool tries anew soon after the database is back.
        reconnect_timeout=5,
        check=check,
        open=False,
    )
    return pool


def _readable(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


async def _autocommit(connection: Connection) -> None:
    """Not by an argument: who opens further connections with the pool's arguments gives that one itself."""
    await connection.set_autocommit(True)


@contextlib.asynccontextmanager
async def connection(pool: Pool, what: str = "query", *, timeout: float | None = None) -> AsyncIterator[Connection]:
    """Borrow a connection; a database that cannot be used becomes a problem for the client.

    WHAT is done with it names its part of the trace, the wait for a connection included.
    """
    with span(what, SpanKind.CLIENT, _TRACED):
        try:
            async with pool.connection(timeout) as borrowed:
                yield borrowed
        except _UNUSABLE as error:
            raise database_down() from error
