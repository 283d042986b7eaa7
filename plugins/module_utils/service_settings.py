"""What the service is told, its environment and its secrets, from the variables of its host.

In Python, and not in expressions of the variables of role agent: Ansible compiles an expression anew in each process,
and a deploy has one for every task and host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.server_urls import UrlError, database_of, redis_of
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import TRUE_WORDS

# A variable's value by its name.
Value = Callable[[str], Any]


class SettingsError(ValueError):
    """A variable that cannot be what it is; its message names it and holds no secret."""


@dataclass(frozen=True)
class Surroundings:
    """The fleet: the host's own address in it, whether its hosts encrypt, and the addresses of a group's hosts."""

    address: str
    encrypted: bool
    addresses: Callable[[str], list[str]]


def service_settings(value: Value, fleet: Surroundings) -> dict[str, dict[str, Any]]:
    """The service's `environment` and `secrets`; what users give overrides the product's own."""
    database, redis = _database(value, fleet), _redis(value, fleet)
    passwords = {
        f"{name}_password": str(server["password"])
        for name, server in (("database", database), ("redis", redis))
        if server["host"]
    }
    return {
        "environment": {
            **_own_environment(value, fleet),
            **_database_environment(database),
            **_redis_environment(redis),
            **value("agent_environment"),
        },
        "secrets": {
            "api_key": value("agent_api_key"),
            "model_key": value("agent_model_key"),
            **passwords,
            **value("agent_secrets"),
        },
    }


def _own_environment(value: Value, fleet: Surroundings) -> dict[str, Any]:
    endpoint = value("agent_trace_endpoint")
    spans = str(value("agent_log_spans")).lower() in TRUE_WORDS
    queue = {"AGENT_QUEUE": "true", "AGENT_WORKER_STOP_SECONDS": str(value("agent_worker_stop_seconds"))}
    return {
        "AGENT_APP": value("agent_app"),
        "AGENT_NAME": value("agent_name"),
        "AGENT_HOST": fleet.address,
        "AGENT_MODEL": value("agent_model"),
        "AGENT_MODEL_URL": value("agent_model_url"),
        "AGENT_OFFLINE_TOKENS": str(value("agent_offline_tokens")),
        "AGENT_OFFLINE_TOKENS_PER_SECOND": str(value("agent_offline_tokens_per_second")),
        "AGENT_LOG_LEVEL": value("agent_log_level"),
        **({"AGENT_LOG_SPANS": "true"} if spans else {}),
        **({"AGENT_TRACE_ENDPOINT": endpoint} if endpoint else {}),
        **(queue if value("_agent_worker") else {}),
    }


def _database(value: Value, fleet: Surroundings) -> dict[str, Any]:
    """The PostgreSQL of a URL, or else the one that the variables name."""
    return {
        **_server("database", "postgres", value, fleet),
        "name": value("agent_database_name"),
        "user": value("agent_database_user"),
        **_read(database_of, "agent_database_url", value),
    }


def _redis(value: Value, fleet: Surroundings) -> dict[str, Any]:
    return {
        **_server("redis", "redis", value, fleet),
        "database": 0,
        "user": value("agent_name"),
        **_read(redis_of, "agent_redis_url", value),
    }


def _server(kind: str, group: str, value: Value, fleet: Surroundings) -> dict[str, Any]:
    host = value(f"agent_{kind}_host")
    # Our own servers show certificates of the fleet's authority; those of a URL do not.
    ours = fleet.encrypted and not value(f"agent_{kind}_url") and host in fleet.addresses(group)
    ca = value(f"_agent_{kind}_ca") if value(f"agent_{kind}_ca_file") else ""
    return {
        "host": host,
        "port": value(f"agent_{kind}_port"),
        "password": value(f"agent_{kind}_password"),
        "verified": ours,
        "ca": ca or (value("_agent_fleet_authority") if ours else ""),
    }


def _read(read: Callable[[str], dict[str, Any]], variable: str, value: Value) -> dict[str, Any]:
    try:
        return read(value(variable))
    except UrlError as error:
        raise SettingsError(f"{variable} {error}") from error


def _database_environment(database: Mapping[str, Any]) -> dict[str, str]:
    return {
        "AGENT_DATABASE_HOST": str(database["host"]),
        "AGENT_DATABASE_PORT": str(database["port"]),
        "AGENT_DATABASE_NAME": str(database["name"]),
        "AGENT_DATABASE_USER": str(database["user"]),
        "AGENT_DATABASE_SSLMODE": str(
            database.get("sslmode") or ("verify-full" if database["verified"] else "require")
        ),
        **({"AGENT_DATABASE_CA": str(database["ca"])} if database["ca"] else {}),
    }


def _redis_environment(redis: Mapping[str, Any]) -> dict[str, str]:
    return {
        "AGENT_REDIS_HOST": str(redis["host"]),
        "AGENT_REDIS_PORT": str(redis["port"]),
        "AGENT_REDIS_USER": str(redis["user"]),
        **({"AGENT_REDIS_TLS": "true"} if redis.get("tls", redis["verified"]) else {}),
        **({"AGENT_REDIS_CA": str(redis["ca"])} if redis["ca"] else {}),
        **({"AGENT_REDIS_DATABASE": str(redis["database"])} if redis["database"] else {}),
    }
