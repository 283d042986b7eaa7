"""How Redis is reached, and how it is left alone for a while where it fails."""

import time
from typing import Any

from redis.asyncio import BlockingConnectionPool, Connection, Redis, SSLConnection
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.settings import Settings

# How long a Redis that failed is left alone, so that requests do not each wait for it.
REST_SECONDS = 5

logger = get_logger(__name__)


# Of one process. More requests than these wait their turn: that there are many says nothing about Redis.
CONNECTIONS = 50
WAIT_SECONDS = 10


def encryption(settings: Settings) -> dict[str, Any]:
    """How Redis is reached over TLS, if it is; its certificate has to name it."""
    if not settings.redis_tls:
        return {"connection_class": Connection}
    return {"connection_class": SSLConnection, "ssl_ca_certs": settings.redis_ca or None, "ssl_check_hostname": True}


def create_redis(settings: Settings) -> Redis:
    pool = BlockingConnectionPool(
        max_connections=CONNECTIONS,
        timeout=WAIT_SECONDS,
        host=settings.redis_host,
        port=settings.redis_port,
        db=settings.redis_database,
        username=settings.redis_user or None,
        password=settings.redis_password.get_secret_value() or None,
        **encryption(settings),
        decode_responses=True,
        socket_connect_timeout=1,
        socket_timeout=2,
        retry=Retry(ExponentialWithJitterBackoff(base=0.01, cap=0.1), 1),
    )
    return Redis.from_pool(pool)


class Rest:
    """Whether Redis is left alone: for now, since it failed a moment ago, or altogether, where there is none."""

    def __init__(self, metrics: Metrics, always: bool = False) -> None:
        self._metrics = metrics
        self.always = always
        self._until = 0.0

    def __bool__(self) -> bool:
        return self.always or time.monotonic() < self._until

    def begin(self, error: Exception) -> None:
        self._metrics.redis_errors.inc()
        self._until = time.monotonic() + REST_SECONDS
        logger.warning("redis_failed", error=type(error).__name__)
