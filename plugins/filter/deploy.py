"""The decisions of a deploy for the playbook that carries it out; each is a pure function of module_utils."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import transaction
from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_view import read_agent, read_edge
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import Request, make_plan
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import (
    GREEN_OFFSET,
    SERVICE_NAME,
    environment_problem,
)

SECRET_NAME = re.compile(r"^[a-z][a-z0-9_]*$")
Hosts = Mapping[str, Mapping[str, Any]]


def service_problem(
    name: str, port: int, instances: int, environment: Mapping[str, Any], secrets: Sequence[str]
) -> str:
    """Why a service cannot be what its variables say, or nothing."""
    if not SERVICE_NAME.match(name):
        return f"agent_name: {name!r} must be a lower-case letter, then at most 30 letters, digits or dashes"
    if not 1 <= int(instances) <= GREEN_OFFSET:
        return f"agent_instances: {instances} is not between 1 and {GREEN_OFFSET}"
    if not 1 <= int(port) <= 65536 - 2 * GREEN_OFFSET:
        return f"agent_port: {port} leaves no room for both slots' ports"
    for secret in secrets:
        if not SECRET_NAME.match(secret):
            return f"agent_secrets: {secret!r} must be lower-case letters, digits or underscores"
    return environment_problem({str(key): str(value) for key, value in environment.items()})


def deploy_plan(groups: Mapping[str, Sequence[str]], hostvars: Hosts, request: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for all hosts of the groups agents and edge, whichever of them the play has."""

    def seen(host: str, name: str) -> Mapping[str, Any] | None:
        result = hostvars[host].get(name)
        return result if isinstance(result, Mapping) else None

    wanted = Request(
        release=str(request["release"]["id"]),
        strategy=str(request["strategy"]),
        disk_mb=int(request["disk_mb"]),
        artifact=bool(request["artifact"]),
        record=bool(request["record"]),
    )
    agents = [
        read_agent(str(host), seen(host, "__deploy_agent"), wanted.release, bool(request["by_identity"]))
        for host in groups.get("agents", [])
    ]
    edges = [
        read_edge(str(host), seen(host, "__deploy_traffic"), seen(host, "__deploy_store"))
        for host in groups.get("edge", [])
    ]
    plan = make_plan(agents, edges, wanted).to_dict()
    # The edge's store describes a release that this controller did not build.
    stored = [seen(edge.name, "__deploy_store") for edge in edges if wanted.release in edge.artifacts]
    described = next((store["artifacts"][wanted.release] for store in stored if store), request["release"])
    weights = {edge.name: dict(edge.weights) for edge in edges}
    return {
        **plan,
        "lines": transaction.plan_lines(plan),
        "refusals": transaction.told_by(plan["problems"], [str(host) for host in request["hosts"]]),
        "progress": transaction.begin(weights),
        "described": request["release"] if wanted.artifact else described,
        "present": [agent.name for agent in agents if agent.has_release],
        "releases": {agent.name: {name: slot.release for name, slot in agent.slots.items()} for agent in agents},
    }


def deploy_current(groups: Mapping[str, Sequence[str]], hostvars: Hosts) -> str:
    """The release that the edges note as current, the latest where they differ; empty where there is none."""
    stores = [hostvars[host].get("__deploy_store") for host in groups.get("edge", [])]
    records = [store["current"] for store in stores if isinstance(store, Mapping) and store.get("current")]
    return max(((str(record["deployed_at"]), str(record["release"])) for record in records), default=("", ""))[1]


def deploy_advance(
    progress: Mapping[str, Any], steps: Sequence[Mapping[str, Any]], number: int, hostvars: Hosts
) -> dict[str, Any]:
    """The progress after step NUMBER of STEPS, from what the task of that step returned on each of its hosts."""
    results = {host: hostvars[host].get("__deploy_step") for host in steps[number]["hosts"]}
    return transaction.advance(progress, steps, number, results)


def deploy_result(
    plan: Mapping[str, Any], progress: Mapping[str, Any], seconds: float, hosts: Sequence[str]
) -> dict[str, Any]:
    """What to tell at the end, and which hosts of the play end with a failure."""
    return {
        "lines": transaction.result_lines(plan, progress, plan["releases"], float(seconds)),
        "failures": transaction.told_by([*progress["problems"], *progress["warnings"]], list(hosts)),
    }


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "service_problem": service_problem,
            "deploy_plan": deploy_plan,
            "deploy_current": deploy_current,
            "deploy_advance": deploy_advance,
            "deploy_result": deploy_result,
        }
