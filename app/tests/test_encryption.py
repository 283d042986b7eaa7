"""By what the servers are verified, as their clients are told."""

from typing import Any

import pytest
from redis.asyncio import Connection, SSLConnection

from agent_service.core.settings import Settings
from agent_service.memory.database import connection_arguments
from agent_service.memory.redis import encryption

KEY = "Zt4kQ9wB7nXe2LrV"


def settings(**different: Any) -> Settings:
    return Settings(_env_file=None, api_key=KEY, **different)


@pytest.mark.parametrize(
    ("given", "roots"),
    [
        ({}, None),
        ({"database_ca": "/ca.pem"}, "/ca.pem"),
        ({"database_sslmode": "verify-full", "database_ca": "/ca.pem"}, "/ca.pem"),
        # Without a file libpq would look for one in the user's home, which there is none of.
        ({"database_sslmode": "verify-full"}, "system"),
        ({"database_sslmode": "disable"}, None),
    ],
)
def test_the_database(given: dict[str, Any], roots: str | None) -> None:
    assert connection_arguments(settings(**given))["sslrootcert"] == roots


def test_redis() -> None:
    assert encryption(settings()) == encryption(settings(redis_ca="/ca.pem")) == {"connection_class": Connection}
    verified = {"connection_class": SSLConnection, "ssl_check_hostname": True}
    assert encryption(settings(redis_tls=True)) == {**verified, "ssl_ca_certs": None}
    assert encryption(settings(redis_tls=True, redis_ca="/ca.pem")) == {**verified, "ssl_ca_certs": "/ca.pem"}
