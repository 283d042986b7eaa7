"""What the service is told of its servers and itself, from the variables of its host."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.service_settings import (
    SettingsError,
    Surroundings,
    service_settings,
)

AUTHORITY = "/etc/ssl/certs/agentfleet-fleet.pem"
VARIABLES = {
    "_agent_database_ca": "/etc/ssl/certs/agentfleet-agent-database.pem",
    "_agent_fleet_authority": AUTHORITY,
    "_agent_redis_ca": "/etc/ssl/certs/agentfleet-agent-redis.pem",
    "_agent_worker": "agent_service.worker",
    "agent_api_key": "0-secret-api-key",
    "agent_app": "agent_service.main:app",
    "agent_database_ca_file": "",
    "agent_database_host": "10.0.0.31",
    "agent_database_name": "agent",
    "agent_database_password": "0-secret-database",
    "agent_database_port": 5432,
    "agent_database_url": "",
    "agent_database_user": "agent",
    "agent_environment": {},
    "agent_log_level": "info",
    "agent_log_spans": False,
    "agent_model": "deepseek-v4-flash",
    "agent_model_key": "",
    "agent_model_url": "https://api.deepseek.com",
    "agent_name": "agent",
    "agent_offline_tokens": 20,
    "agent_offline_tokens_per_second": 50,
    "agent_redis_ca_file": "",
    "agent_redis_host": "10.0.0.31",
    "agent_redis_password": "0-secret-redis",
    "agent_redis_port": 6379,
    "agent_redis_url": "",
    "agent_secrets": {},
    "agent_trace_endpoint": "",
    "agent_worker_stop_seconds": 30,
}


def settings(encrypted=False, **different):
    fleet = Surroundings("10.0.0.21", encrypted, {"postgres": ["10.0.0.31"], "redis": ["10.0.0.31"]}.__getitem__)
    return service_settings({**VARIABLES, **different}.__getitem__, fleet)


def environment(**different):
    return settings(**different)["environment"]


def test_users_have_the_last_word():
    given = settings(agent_environment={"AGENT_LOG_LEVEL": "debug"}, agent_secrets={"model_key": "0-secret-own"})
    assert given["environment"]["AGENT_LOG_LEVEL"] == "debug"
    assert given["secrets"]["model_key"] == "0-secret-own"


def test_a_server_that_is_not_there_has_no_password():
    assert list(settings(agent_redis_host="")["secrets"]) == ["api_key", "model_key", "database_password"]


@pytest.mark.parametrize("said", [True, "true", "yes", "on"])
def test_spans_are_logged_however_that_is_said(said):
    assert environment(agent_log_spans=said)["AGENT_LOG_SPANS"] == "true"


@pytest.mark.parametrize("said", [False, "false", "no", ""])
def test_spans_are_not_logged_otherwise(said):
    assert "AGENT_LOG_SPANS" not in environment(agent_log_spans=said)


def test_a_queue_needs_a_worker():
    assert environment()["AGENT_WORKER_STOP_SECONDS"] == "30"
    assert "AGENT_QUEUE" not in environment(_agent_worker="")


def test_our_own_servers_are_verified_where_hosts_encrypt():
    assert environment()["AGENT_DATABASE_SSLMODE"] == "require"
    told = environment(encrypted=True)
    assert (told["AGENT_DATABASE_SSLMODE"], told["AGENT_DATABASE_CA"]) == ("verify-full", AUTHORITY)
    assert (told["AGENT_REDIS_TLS"], told["AGENT_REDIS_CA"]) == ("true", AUTHORITY)


@pytest.mark.parametrize(
    "different",
    [{"agent_database_host": "db.example.com"}, {"agent_database_url": "postgresql://a:b@10.0.0.31/x?sslmode=require"}],
)
def test_another_server_is_not_expected_to_show_our_authority(different):
    told = environment(encrypted=True, **different)
    assert told["AGENT_DATABASE_SSLMODE"] == "require"
    assert "AGENT_DATABASE_CA" not in told


def test_an_authority_of_ones_own_goes_before_the_fleets():
    told = environment(encrypted=True, agent_redis_ca_file="files/cache.pem")
    assert told["AGENT_REDIS_CA"] == VARIABLES["_agent_redis_ca"]


def test_what_is_wrong_with_a_url_names_its_variable_and_not_its_password():
    with pytest.raises(SettingsError, match=r"^agent_redis_url takes no options$"):
        settings(agent_redis_url="rediss://app:hunter2@cache.shop.io/0?a=hunter2")
