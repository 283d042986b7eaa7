"""From observations to a plan, from results to progress, and what is told of both."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.deploy import (
    deploy_advance,
    deploy_checklist,
    deploy_current,
    deploy_plan,
    deploy_record,
    deploy_result,
    deploy_rollout,
)
from ansible_collections.agentfleet.vm.plugins.filter.service import service_problem
from ansible_collections.agentfleet.vm.plugins.module_utils.director.rollout import rollout_from
from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_view import read_agent, shares
from ansible_collections.agentfleet.vm.plugins.module_utils.transaction import BACK, FORWARD, LEFT, STUCK, told_by

OLD, NEW = "1.0-000000000001", "2.0-000000000002"
GROUPS = {"agents": ["agent1", "agent2"], "edge": ["edge1"], "all": ["agent1", "agent2", "edge1", "data1"]}


def slot(release: str | None, state: str, **more: Any) -> dict[str, Any]:
    running = state == "running"
    return {
        "release": release,
        "state": state,
        "matches": False,
        "active": ["x"] if running else [],
        "enabled": running,
    } | more


def observed(**more: Any) -> dict[str, Any]:
    seen = {
        "prepared": True,
        "migrates": True,
        "port": 8100,
        "instances": 1,
        "slots": {"blue": slot(OLD, "running"), "green": slot(None, "empty")},
        "has_release": False,
        "disk_free_mb": 9000,
        "ports_taken": {},
    }
    return {"observed": seen | more}


def backend(weights: dict[str, int], release: str | None = OLD, **more: Any) -> dict[str, Any]:
    """What the director says of the service."""
    return {
        "servers": {name: {"weight": weight} for name, weight in weights.items()},
        "artifacts": {release: {"id": release, "sha256": "f00"}} if release else {},
        "current": {"release": release} if release else None,
        "previous": {},
        "rollout": None,
    } | more


def hostvars(**changed: Any) -> dict[str, dict[str, Any]]:
    weights = {f"{host}-{name}-1": 100 * (name == "blue") for host in GROUPS["agents"] for name in ("blue", "green")}
    known = {
        "edge1": {"__deploy_edge": {"backend": backend(weights)}},
        "agent1": {"__deploy_agent": observed()},
        "agent2": {"__deploy_agent": observed()},
    }
    for host, more in changed.items():
        known[host].update(more)
    return known


def request(**more: Any) -> dict[str, Any]:
    return {
        "release": {"id": NEW, "sha256": "cafe", "version": "2.0"},
        "strategy": "blue_green",
        "disk_mb": 1024,
        "artifact": True,
        "steps": "5,25,50,100",
        "batch": 1,
        "allow_unreachable": False,
        "follow": True,
        "by_identity": True,
        "pointed": False,
        "slots": [],
        "hosts": ["edge1", "agent1", "agent2"],
    } | more


def actions(plan: dict[str, Any]) -> list[str]:
    return [step["action"] for step in plan["steps"]]


def test_a_plan_knows_releases_by_the_controller_or_the_store_and_the_floor_by_the_director() -> None:
    schema = {"revisions": ["0001", "0002", "0003"], "floor": "0002"}
    release = {"id": NEW, "sha256": "cafe", "schema": schema}
    known = hostvars()
    seen = known["edge1"]["__deploy_edge"]["backend"]
    seen["artifacts"] = {OLD: {"id": OLD, "schema": {"revisions": ["0001", "0002"], "floor": ""}}}
    plan = deploy_plan(GROUPS, known, request(release=release))
    assert actions(plan)[2:5] == ["install", "contract", "migrate"]
    assert "  Note which migration the database will need its code to know: 0002" in plan["lines"]
    seen["floor"] = "0003"
    seen["artifacts"][NEW] = {"id": NEW, "schema": schema}
    assert deploy_plan(GROUPS, known, request(release={"id": NEW}, artifact=False))["verdict"] == "go"
    refused = deploy_plan(GROUPS, known, request(release={"id": OLD}, artifact=False))
    assert refused["verdict"] == "refused"
    assert refused["refusals"]["edge1"].startswith(f"release {OLD} knows migrations up to 0002, and the database needs")


def test_the_checklist_comes_from_what_the_tasks_saw() -> None:
    known = hostvars(agent2={"__deploy_agent": {"unreachable": True, "msg": "no route"}})
    known["edge1"]["__deploy_edge"] |= {"certificate_days": 70}
    known["edge1"]["__deploy_edge"]["backend"]["floor"] = "0002"
    facts = {
        "release": {"id": NEW, "schema": {"revisions": ["0001", "0002"], "floor": ""}},
        "uncommitted": [],
        "current": OLD,
        "secrets": {"api_key": 1, "model_key": 0},
        "disk_mb": 1024,
        "backup_host": "ops1",
        "backups": {"now": 14400.0, "postgres": {"at": 3600.0}},
    }
    said = deploy_checklist(GROUPS, known, facts)
    assert "  ok       backup       postgres 3 h ago" in said
    assert "  ok       disk         agent1 has the least, 9000 MB free; at least 1024 are wanted" in said
    assert "  ok       certificate  70 days left" in said
    assert f"  ok       way back     {OLD}, which serves now; the edge keeps it" in said
    assert "  ok       database     needs code that knows migration 0002" in said
    assert "  warning  secrets      1 set; empty: model_key" in said
    nobody = deploy_checklist(GROUPS, {host: {} for host in known}, facts)
    assert "  missing  disk         no host told" in nobody


def test_a_plan_comes_from_what_the_tasks_saw() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    assert actions(plan) == ["overwrite", "store", "install", "migrate", "start", "rollout", "retire"]
    assert plan["lines"][0] == f"plan for release {NEW}:"
    assert "  Install the release into the idle slots: agent1 green, agent2 green" in plan["lines"]
    assert "    100 %: agent1-green 50 %, agent2-green 50 %" in plan["lines"]
    assert plan["progress"]["phase"] == FORWARD


def test_a_host_that_was_not_seen_refuses_the_plan_and_is_blamed() -> None:
    gone = {"__deploy_agent": {"unreachable": True, "msg": "no route to host\nmore"}}
    plan = deploy_plan(GROUPS, hostvars(agent2=gone), request())
    assert plan["verdict"] == "refused"
    assert plan["refusals"] == {
        "agent2": "agent2 cannot be reached: no route to host. See `ansible agent2 -m ansible.builtin.ping`"
    }
    absent = {"__deploy_agent": None}
    plan = deploy_plan(GROUPS, hostvars(agent1=absent), request(hosts=["edge1", "agent2"]))
    assert "agent1 was not looked at" in plan["refusals"]["edge1"]


def test_joining_compares_releases_and_deploying_everything() -> None:
    other_settings = observed(slots={"blue": slot(NEW, "running"), "green": slot(None, "empty")}, has_release=True)
    agents = {"agent1": {"__deploy_agent": other_settings}, "agent2": {"__deploy_agent": other_settings}}
    assert deploy_plan(GROUPS, hostvars(**agents), request(by_identity=False))["verdict"] == "go"
    weights = {
        name: server["weight"] for name, server in hostvars()["edge1"]["__deploy_edge"]["backend"]["servers"].items()
    }
    there = hostvars(**agents, edge1={"__deploy_edge": {"backend": backend(weights, NEW)}})
    joined = deploy_plan(GROUPS, there, request(by_identity=False))
    assert (joined["verdict"], joined["lines"]) == (
        "nothing",
        [f"release {NEW} serves already; there is nothing to do"],
    )
    assert "install" in actions(deploy_plan(GROUPS, there, request()))


def test_the_edges_description_stands_in_where_the_controller_did_not_build() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request(release={"id": OLD}, artifact=False))
    assert plan["described"] == {"id": OLD, "sha256": "f00"}
    assert actions(plan)[:2] == ["overwrite", "fetch"]


def test_what_is_wanted_comes_from_the_director() -> None:
    earlier = {"release": OLD, "slots": ["agent1-blue"]}
    known = {"edge1": {"__deploy_edge": {"backend": backend({}, NEW, previous=earlier)}}}
    assert deploy_current(GROUPS, known, "join", "") == {"current": NEW, "wanted": NEW, "slots": []}
    assert deploy_current(GROUPS, known, "rollback", "") == {"current": NEW, "wanted": OLD, "slots": ["agent1-blue"]}
    assert deploy_current(GROUPS, known, "rollback", "x") == {"current": NEW, "wanted": "x", "slots": []}
    unreachable = {"edge1": {"__deploy_edge": {"unreachable": True}}}
    assert deploy_current(GROUPS, unreachable, "join", "") == {"current": "", "wanted": "", "slots": []}


def test_a_rollback_without_a_name_goes_to_the_slots_that_served_before() -> None:
    """Both slots hold one release where only the configuration was changed."""
    both = observed(slots={"blue": slot(OLD, "running"), "green": slot(OLD, "running")})
    known = hostvars(agent1={"__deploy_agent": both}, agent2={"__deploy_agent": both})
    asked = request(release={"id": OLD}, by_identity=False, slots=["agent1-green", "agent2-green"])
    assert deploy_plan(GROUPS, known, asked)["targets"] == {"agent1": "green", "agent2": "green"}


def test_the_director_is_asked_with_everything_it_needs() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request(strategy="canary"))
    facts = {
        "backend": "agent",
        "kind": "deploy",
        "previous": OLD,
        "strategy": "canary",
        "bake_seconds": None,
        "policy": {"p95_seconds": 3.0},
        "gates": {
            **{"name": "agent", "memory_max": "1G", "memory": 0.8, "cpu_quota": "", "cpu": 0.7},
            "first_token": 0.0,
            "conditions": [{"name": "queue", "query": 'max(x{instance=~"$instances"})', "limit": 5}],
        },
        "prometheus": "http://10.0.0.41:9090",
        "balancer_port": "8081",
        "probe_path": "/ready",
        "by": "ann on desk",
        "where": "ansible-playbook",
        "generation": 7,
    }
    asked = rollout_from(deploy_rollout(plan, facts))
    assert (asked.bake_seconds, asked.policy.p95_seconds, len(asked.stages)) == (300, 3.0, 4)
    assert asked.slots == {
        "agent1-blue": OLD,
        "agent2-blue": OLD,
        "agent1-green": NEW,
        "agent2-green": NEW,
    }
    assert set(asked.candidates) == {"agent1-green-1", "agent2-green-1"}
    assert asked.prometheus == "http://10.0.0.41:9090"
    assert [(condition.name, condition.limit) for condition in asked.conditions] == [("memory", 0.8), ("queue", 5.0)]
    assert all('instance=~"agent1-green-1|agent2-green-1"' in condition.query for condition in asked.conditions)
    assert rollout_from(deploy_rollout(plan, {**facts, "kind": "join"})).bake_seconds == 0
    assert rollout_from(deploy_rollout(plan, {**facts, "bake_seconds": "5"})).bake_seconds == 5


def test_what_failed_before_the_traffic_is_history_too() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    progress = {**plan["progress"], "problems": [("agent2", "not ready\nlines")]}
    asked = {
        name: name for name in ("id", "backend", "kind", "release", "previous", "strategy", "by", "where", "notes")
    }
    record = deploy_record(progress, asked, 12.34)
    assert (record["outcome"], record["reason"], record["seconds"]) == ("failed", "agent2: not ready", 12.3)


def test_progress_goes_on_goes_back_and_gets_stuck() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    steps = plan["steps"]
    number = actions(plan).index("start")
    fine = {host: {"__deploy_step": {"changed": True}} for host in ("agent1", "agent2", "edge1")}
    progress = deploy_advance(plan["progress"], steps, number, fine)
    assert progress["phase"] == FORWARD
    bad = {**fine, "agent2": {"__deploy_step": {"failed": True, "msg": "not ready"}}}
    progress = deploy_advance(progress, steps, number, bad)
    assert (progress["phase"], progress["problems"]) == (BACK, [("agent2", "not ready")])
    assert [(back["action"], back["slots"]) for back in progress["undo"]] == [
        ("stop", {"agent1": "green", "agent2": "green"})
    ]
    assert deploy_advance(progress, progress["undo"], 0, fine)["phase"] == BACK
    assert deploy_advance(progress, progress["undo"], 0, bad)["phase"] == STUCK


def test_an_edge_lost_while_traffic_moves_leaves_everything_to_the_director() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    lost = {"edge1": {"__deploy_step": {"unreachable": True, "msg": "timed out"}}}
    progress = deploy_advance(plan["progress"], plan["steps"], actions(plan).index("rollout"), lost)
    assert (progress["phase"], progress["undo"]) == (LEFT, [])
    assert "run it again to pick it up" in deploy_result(plan, progress, 1, ["edge1"])["lines"][0]


def test_a_release_that_the_director_took_back_is_stopped() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    back = {"edge1": {"__deploy_step": {"failed": True, "outcome": "reverted", "msg": "30 % failed"}}}
    progress = deploy_advance(plan["progress"], plan["steps"], actions(plan).index("rollout"), back)
    assert (progress["phase"], [step["action"] for step in progress["undo"]]) == (BACK, ["stop"])


def test_what_fails_after_the_traffic_moved_is_told_and_undoes_nothing() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    bad = {host: {"__deploy_step": {"failed": True, "msg": "disk full"}} for host in ("agent1", "agent2", "edge1")}
    progress = deploy_advance(plan["progress"], plan["steps"], actions(plan).index("retire"), bad)
    assert (progress["phase"], progress["undo"]) == (FORWARD, [])
    result = deploy_result(plan, progress, 1.0, ["edge1", "agent1"])
    assert result["failures"] == {"agent1": "agent1: disk full", "edge1": "agent2: disk full"}


def test_the_result_says_who_serves_what() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    number = actions(plan).index("rollout")
    after = plan["steps"][number]["stages"][-1]["weights"]
    sent = {host: {"__deploy_step": {"changed": True, "shipped_bytes": 2048}} for host in ("agent1", "agent2")}
    progress = deploy_advance(plan["progress"], plan["steps"], 2, sent)
    moved = {"edge1": {"__deploy_step": {"weights": after, "outcome": "promoted"}}}
    progress = deploy_advance(progress, plan["steps"], number, moved)
    assert deploy_result(plan, progress, 11.6, ["edge1"]) == {
        "lines": [
            f"release {NEW} serves (12 s)",
            f"  agent1  green  {NEW}  50 %",
            f"  agent2  green  {NEW}  50 %",
            "  sent: agent1 2 KB, agent2 2 KB",
        ],
        "failures": {},
    }


def test_after_going_back_the_result_says_what_serves_instead() -> None:
    plan = deploy_plan(GROUPS, hostvars(), request())
    bad = {"agent1": {"__deploy_step": {"failed": True, "msg": "no"}}, "agent2": {"__deploy_step": {}}}
    progress = deploy_advance(plan["progress"], plan["steps"], 2, bad)
    lines = deploy_result(plan, progress, 1, ["edge1"])["lines"]
    assert lines[0] == f"release {NEW} was not deployed; what was begun is undone (1 s)"
    assert lines[1] == f"  agent1  blue  {OLD}  50 %"


def test_hosts_that_fail_alike_are_told_once_in_full() -> None:
    problems = [("agent1", "not ready\nline"), ("agent2", "not ready\nline"), ("data9", "gone\nline")]
    assert told_by(problems, ["edge1", "agent1", "agent2"]) == {
        "agent1": "agent1: not ready\nline",
        "agent2": "agent2: not ready",
        "edge1": "data9: gone",
    }


def test_shares_are_of_all_traffic() -> None:
    weights = {"a-blue-1": 50, "a-blue-2": 50, "a-green-1": 0, "b-c-green-1": 100, "b-c-green-2": 100}
    assert shares(weights) == {"a-blue": 33, "b-c-green": 67}
    assert shares({"a-blue-1": 0}) == {}


def test_a_module_that_failed_to_look_says_why() -> None:
    assert read_agent("agent1", {"failed": True, "msg": "no systemd"}, NEW, True).problem == (
        "agent1 could not be observed: no systemd"
    )


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({}, ""),
        ({"name": "Shop"}, "agent_name"),
        ({"name": "shop@home"}, "agent_name"),
        ({"name": "shop-worker"}, "agent_name"),
        ({"instances": 0}, "agent_instances"),
        ({"instances": 51}, "agent_instances"),
        ({"port": 65500}, "agent_port"),
        ({"secrets": ["crm-token"]}, "agent_secrets"),
        ({"environment": {"PORT": 1}}, "agent_environment"),
    ],
)
def test_services_that_cannot_be(change: dict[str, Any], says: str) -> None:
    service = {"name": "shop", "port": 8100, "instances": 1, "environment": {"A": 1}, "secrets": ["crm_token"]}
    problem = service_problem(**{**service, **change})
    assert bool(problem) == bool(says)
    assert problem.startswith(says)
