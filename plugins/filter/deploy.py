"""The decisions of a deploy for the playbook that carries it out; each is a pure function of module_utils."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import checklist, gates, notice, transaction
from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_view import read_agent, read_edge
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import (
    Agent,
    Request,
    first_line,
    make_plan,
    serving,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import schema_from
from packaging.specifiers import SpecifierSet

Hosts = Mapping[str, Mapping[str, Any]]


def deploy_plan(groups: Mapping[str, Sequence[str]], hostvars: Hosts, request: Mapping[str, Any]) -> dict[str, Any]:
    """The plan for all hosts of the groups agents and edge, whichever of them the play has."""

    def seen(host: str, name: str) -> Mapping[str, Any] | None:
        result = hostvars[host].get(name)
        return result if isinstance(result, Mapping) else None

    release = str(request["release"]["id"])
    edges = [read_edge(str(host), seen(host, "__deploy_edge")) for host in groups.get("edge", [])]
    # The edge's store describes a release that this controller did not build.
    stored = [seen(edge.name, "__deploy_edge") for edge in edges if release in edge.artifacts]
    found = next((edge["backend"]["artifacts"][release] for edge in stored if edge), request["release"])
    described = request["release"] if request["artifact"] else found
    wanted = Request(
        release=release,
        strategy=str(request["strategy"]),
        steps=read_steps(request["steps"]),
        batch=int(request["batch"]),
        disk_mb=int(request["disk_mb"]),
        artifact=bool(request["artifact"]),
        allow_unreachable=bool(request["allow_unreachable"]),
        follow=bool(request["follow"]),
        schema=schema_from(described.get("schema")),
        # What is gone back to was good, and is wanted at once.
        warm_tried=bool(request["by_identity"]),
        pointed=bool(request["pointed"]),
    )
    python = str(described.get("python") or "")
    agents = []
    for host in map(str, groups.get("agents", [])):
        result = seen(host, "__deploy_agent")
        agent = read_agent(host, result, wanted.release, bool(request["by_identity"]), request["slots"])
        observed = (result or {}).get("observed") or {}
        agents.append(with_python(agent, str(observed.get("python", "")), python))
    plan = make_plan(agents, edges, wanted).to_dict()
    weights = dict(edges[0].weights) if edges else {}
    return {
        **plan,
        "lines": transaction.plan_lines(plan),
        "refusals": transaction.told_by(plan["problems"], [str(host) for host in request["hosts"]]),
        "progress": transaction.begin(weights),
        "described": described,
        "present": [agent.name for agent in agents if agent.has_release],
        "releases": {agent.name: {name: slot.release for name, slot in agent.slots.items()} for agent in agents},
    }


def with_python(agent: Agent, python: str, wanted: str) -> Agent:
    """An agent host, refused where the release, by its pyproject.toml, wants another PYTHON."""
    if agent.problem or not python or SpecifierSet(wanted).contains(python, prereleases=True):
        return agent
    text = (
        f"{agent.name} has Python {python}, and the release wants {wanted} (pyproject.toml): reinstall the host with"
        " another Debian, or set agent_runtime: docker and an agent_docker_image that has it"
    )
    return replace(agent, problem=text)


def read_steps(steps: object) -> tuple[int, ...]:
    """A canary's percents, as a list or as `-e steps=5,25,50,100`."""
    words = steps if isinstance(steps, Sequence) and not isinstance(steps, str) else str(steps).split(",")
    return tuple(int(str(word).strip().removesuffix("%")) for word in words)


def deploy_current(groups: Mapping[str, Sequence[str]], hostvars: Hosts, kind: str, release: str) -> dict[str, Any]:
    """The current release by the edge's director, and the one to bring with the slots that it is known to be in.

    That is the current one for a join, and for a rollback RELEASE or the one before; empty where there is none.
    """
    for host in groups.get("edge", []):
        result = hostvars[host].get("__deploy_edge")
        if isinstance(result, Mapping) and isinstance(result.get("backend"), Mapping):
            current = str((result["backend"]["current"] or {}).get("release") or "")
            earlier = result["backend"]["previous"] or {"release": "", "slots": []}
            if kind != "rollback":
                return {"current": current, "wanted": current, "slots": []}
            if release:
                return {"current": current, "wanted": release, "slots": []}
            return {"current": current, "wanted": str(earlier["release"]), "slots": list(earlier["slots"])}
    return {"current": "", "wanted": release, "slots": []}


def changes_of(host: str, observed: Mapping[str, Any], weights: Mapping[str, int]) -> list[str]:
    """What of the slot of HOST that has the traffic would be another."""
    return [str(what) for slot in sorted(serving(host, weights)) for what in observed["slots"][slot].get("differs", [])]


def deploy_checklist(groups: Mapping[str, Sequence[str]], hostvars: Hosts, facts: Mapping[str, Any]) -> list[str]:
    """The lines of the checklist, from what the tasks saw of the hosts and of the edge."""

    def seen(group: str, name: str) -> dict[str, Mapping[str, Any]]:
        results = {str(host): hostvars[host].get(name) for host in groups.get(group, [])}
        return {host: result for host, result in results.items() if isinstance(result, Mapping)}

    edges = [result for result in seen("edge", "__deploy_edge").values() if "backend" in result]
    agents = {
        host: result["observed"] for host, result in seen("agents", "__deploy_agent").items() if "observed" in result
    }
    weights = read_edge(*next(iter(seen("edge", "__deploy_edge").items()), ("", None))).weights
    days = [edge["certificate_days"] for edge in edges if edge.get("certificate_days") is not None]
    return checklist.lines(
        checklist.Seen(
            release=facts["release"],
            current=str(facts["current"]),
            uncommitted=[str(name) for name in facts["uncommitted"]],
            secrets={str(name): bool(there) for name, there in facts["secrets"].items()},
            disks={host: int(observed["disk_free_mb"]) for host, observed in agents.items()},
            disk_wanted_mb=int(facts["disk_mb"]),
            certificate_days=min(days, default=None),
            changes={host: changes_of(host, observed, weights) for host, observed in agents.items()},
            stored=[str(release) for edge in edges for release in edge["backend"]["artifacts"]],
            floor=next((str(edge["backend"]["floor"]) for edge in edges if edge["backend"].get("floor")), ""),
            backups={str(facts["backup_host"]): facts["backups"]} if facts["backup_host"] else {},
        )
    )


def noted_point(plan: Mapping[str, Any]) -> list[str]:
    """What the history says of a restore point, which is named as the deploy is."""
    return ["restore point"] if any(step["action"] == "point" for step in plan["steps"]) else []


def deploy_rollout(plan: Mapping[str, Any], facts: Mapping[str, Any]) -> dict[str, Any]:
    """What the director is asked to carry out, of a plan and of who asks for what."""
    step = next((step for step in plan["steps"] if step["action"] == "rollout"), None)
    if step is None:
        return {}
    slots = {f"{host}-{slot}": name for host, held in plan["releases"].items() for slot, name in held.items() if name}
    slots |= {f"{host}-{slot}": plan["release"] for host, slot in plan["targets"].items()}
    served = any(step["before"].values())
    watched = facts["kind"] != "join" and served
    bake = facts["bake_seconds"]
    last = step["stages"][-1]["weights"]
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    return {
        "id": f"{moment}-{facts['kind']}-{os.urandom(3).hex()}",
        "backend": facts["backend"],
        "kind": facts["kind"],
        "release": plan["release"],
        "previous": facts["previous"],
        "strategy": facts["strategy"],
        "stages": [{"label": stage["label"], "weights": dict(stage["weights"])} for stage in step["stages"]],
        "before": dict(step["before"]),
        "slots": slots,
        # Where nobody was served before there is nothing to compare with and nothing to go back to.
        "bake_seconds": (default_bake(facts["strategy"]) if bake is None else float(bake)) if watched else 0.0,
        "policy": dict(facts["policy"]),
        "prometheus": facts["prometheus"],
        "conditions": gates.conditions([name for name, weight in last.items() if weight], facts["gates"]),
        "balancer_port": int(facts["balancer_port"]),
        "probe_path": facts["probe_path"],
        "by": facts["by"],
        "where": facts["where"],
        "generation": int(facts["generation"]),
        "notes": [*(f"without {host}" for host in plan["left_out"]), *noted_point(plan)],
    }


def deploy_record(progress: Mapping[str, Any], asked: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """An entry of the history for what failed before the director had it."""
    reasons = [f"{host}: {first_line(text)}" for host, text in progress["problems"]]
    kept = ("id", "backend", "kind", "release", "previous", "strategy", "by", "where", "notes")
    return {
        **{name: asked[name] for name in kept},
        "began_at": time.time() - float(seconds),
        "seconds": round(float(seconds), 1),
        "outcome": "failed",
        "reason": "; ".join(reasons),
        "verdicts": [],
    }


def default_bake(strategy: str) -> float:
    """Seconds that each stage is watched."""
    return 300.0 if strategy == "canary" else 30.0


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
            "deploy_plan": deploy_plan,
            "deploy_current": deploy_current,
            "deploy_checklist": deploy_checklist,
            "deploy_rollout": deploy_rollout,
            "deploy_record": deploy_record,
            "deploy_advance": deploy_advance,
            "deploy_result": deploy_result,
            "deploy_started": notice.started,
            "deploy_ended": notice.ended,
        }
