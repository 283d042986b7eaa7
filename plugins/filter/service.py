"""What a service is told, from the variables of its host, and why it cannot be what they say."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.agentfleet.vm.plugins.filter.fleet import balancer_figures, fleet_address, fleet_addresses
from ansible_collections.agentfleet.vm.plugins.module_utils import service_settings as settings
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import (
    GREEN_OFFSET,
    SERVICE_NAME,
    environment_problem,
)
from jinja2 import pass_context
from jinja2.runtime import Context

SECRET_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
Groups = Mapping[str, Sequence[str]]
Hosts = Mapping[str, Mapping[str, Any]]
# What the module release calls it, and the variable that says it.
SLOT_VARIABLES = {
    "name": "agent_name",
    "root": "_agent_root",
    "port": "agent_port",
    "instances": "agent_instances",
    "runtime": "agent_runtime",
    "image": "agent_docker_image",
    "ready_seconds": "agent_ready_seconds",
    "warm_minutes": "agent_warm_minutes",
    "drain_seconds": "agent_drain_seconds",
    "keep_releases": "agent_keep_releases",
}


def service_problem(
    name: str, port: int, instances: int, environment: Mapping[str, Any], secrets: Sequence[str]
) -> str:
    """Why a service cannot be what its variables say, or nothing."""
    if not SERVICE_NAME.match(name):
        return f"agent_name: {name!r} must be a lower-case letter, then at most 30 letters, digits or dashes"
    if name.endswith(("-worker", "-migrate")):
        return f"agent_name: {name!r} is what units of another service are called; take another ending"
    if not 1 <= int(instances) <= GREEN_OFFSET:
        return f"agent_instances: {instances} is not between 1 and {GREEN_OFFSET}"
    if not 1 <= int(port) <= 65536 - 2 * GREEN_OFFSET:
        return f"agent_port: {port} leaves no room for both slots' ports"
    for secret in secrets:
        if not SECRET_NAME.match(secret):
            return f"agent_secrets: {secret!r} must be lower-case letters, digits or underscores"
    return environment_problem({str(key): str(value) for key, value in environment.items()})


@pass_context
def service_settings(context: Context, groups: Groups, hostvars: Hosts) -> dict[str, dict[str, Any]]:
    """The `environment` and the `secrets` of the service on the host whose variables are looked at."""
    return _settings(context, _surroundings(context, groups, hostvars))


@pass_context
def slot_given(context: Context, groups: Groups, hostvars: Hosts, release: str, generation: int) -> dict[str, Any]:
    """What every call of the module release is told of the service on the host whose variables are looked at.

    RELEASE is the id of the one that is deployed, GENERATION the fleet's lease.
    """
    fleet = _surroundings(context, groups, hostvars)
    return {
        **{name: context.resolve(variable) for name, variable in SLOT_VARIABLES.items()},
        "host": context.resolve("inventory_hostname"),
        "address": fleet.address,
        "authority": context.resolve("_agent_fleet_authority") if fleet.encrypted else "",
        "release": release,
        "generation": generation,
        "migrates": len(context.resolve("agent_migrate_command")) > 0,
        "edges": balancer_figures(groups.get("edge", ()), hostvars),
        "lock_seconds": context.resolve("wait_seconds") if "wait_seconds" in context else 300,
        **_settings(context, fleet),
    }


def secret_lengths(secrets: Mapping[str, Any]) -> dict[str, int]:
    """What may be said of secrets: how long each is."""
    return {name: len(str(value)) for name, value in secrets.items()}


def _surroundings(context: Context, groups: Groups, hostvars: Hosts) -> settings.Surroundings:
    return settings.Surroundings(
        address=fleet_address(str(context.resolve("inventory_hostname")), hostvars),
        encrypted=bool(context.resolve("_agent_fleet_tls")),
        addresses=lambda group: fleet_addresses(groups.get(group, ()), hostvars),
    )


def _settings(context: Context, fleet: settings.Surroundings) -> dict[str, dict[str, Any]]:
    try:
        return settings.service_settings(context.resolve, fleet)
    except settings.SettingsError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "secret_lengths": secret_lengths,
            "service_problem": service_problem,
            "service_settings": service_settings,
            "slot_given": slot_given,
        }
