"""What Prometheus reads of the fleet, who reaches it, and a release that its figures turn back."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlencode

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.gates import conditions
from support.deploys import appended, committed, until
from support.fleet import Fleet
from support.load import load_on

HOSTS = ("agent1", "agent2", "data1", "edge1", "ops1")
AGENTS = ("agent1", "agent2")
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=10).read().decode())"
Query = Callable[[str], dict[str, float]]


@pytest.fixture
def query(fleet: Fleet) -> Query:
    """Value by instance, asked from the edge as its director asks."""

    def ask(words: str) -> dict[str, float]:
        url = f"http://{fleet.address('ops1')}:9090/api/v1/query?{urlencode({'query': words})}"
        answer = fleet.on("edge1", f"python3 -c {shlex.quote(FETCH)} {shlex.quote(url)}").ok().stdout
        return {found["metric"]["instance"]: float(found["value"][1]) for found in json.loads(answer)["data"]["result"]}

    return ask


def slots(fleet: Fleet) -> dict[str, dict[str, object]]:
    """Every slot by the balancer's name of its first instance."""
    hosts = {host["name"]: host["slots"] for host in fleet.status()["hosts"]}
    return {f"{host}-{name}-1": slot for host in AGENTS for name, slot in hosts[host].items()}


def test_status_knows_the_monitoring_host(fleet: Fleet) -> None:
    groups = {host["name"]: host["groups"] for host in fleet.status()["hosts"]}
    assert groups["ops1"] == ["monitoring", "backup"]


def test_every_instance_that_runs_is_read_on_debian_12_and_13(fleet: Fleet, query: Query) -> None:
    running = {name: float(slot["state"] == "running") for name, slot in slots(fleet).items()}
    assert {name.split("-")[0] for name, runs in running.items() if runs} == set(AGENTS)
    until(lambda: query('up{job="agent"}') == running, "figures")


@pytest.mark.parametrize(
    ("job", "hosts"),
    [
        ("node", HOSTS),
        ("haproxy", ("edge1",)),
        ("nginx", ("edge1",)),
        ("site", ("edge1",)),
        ("postgres", ("data1",)),
        ("redis", ("data1",)),
        ("prometheus", ("ops1",)),
        ("alertmanager", ("ops1",)),
    ],
)
def test_every_other_target_is_up(query: Query, job: str, hosts: tuple[str, ...]) -> None:
    until(lambda: query(f'up{{job="{job}"}}') == dict.fromkeys(hosts, 1.0), "figures")


def test_every_worker_that_runs_is_read_as_its_instance_is(fleet: Fleet, query: Query) -> None:
    running = {name: float(slot["state"] == "running") for name, slot in slots(fleet).items()}
    until(lambda: query('up{job="worker"}') == running, "figures")


@pytest.mark.parametrize("figure", ["probe_success", "pg_up", "redis_up", "nginx_up"])
def test_what_is_asked_through_another_answers(query: Query, figure: str) -> None:
    until(lambda: set(query(figure).values()) == {1.0}, figure)


@pytest.mark.parametrize(
    ("asking", "asked", "port", "reached"),
    [
        ("edge1", "ops1", 9090, True),
        ("agent1", "ops1", 9090, False),
        ("agent2", "ops1", 9090, False),
        ("data1", "ops1", 9090, False),
        ("ops1", "agent1", 9100, True),
        ("agent1", "agent2", 9100, False),
        ("agent2", "agent1", 9100, False),
        ("agent1", "edge1", 9100, False),
        ("edge1", "agent1", 9100, False),
        ("agent2", "ops1", 9100, False),
        ("ops1", "edge1", 8405, True),
        ("data1", "edge1", 8405, False),
        ("ops1", "edge1", 9113, True),
        ("agent1", "edge1", 9113, False),
        ("ops1", "data1", 9187, True),
        ("agent1", "data1", 9187, False),
        ("agent2", "data1", 9121, False),
        ("edge1", "data1", 9121, False),
        ("agent1", "ops1", 9093, False),
        ("edge1", "ops1", 9093, True),
    ],
)
def test_figures_are_for_those_who_need_them(fleet: Fleet, asking: str, asked: str, port: int, reached: bool) -> None:
    connect = f"timeout 2 bash -c '</dev/tcp/{fleet.address(asked)}/{port}' 2>/dev/null"
    assert (fleet.on(asking, connect).returncode == 0) == reached


@pytest.mark.parametrize(("memory_max", "cpu_quota"), [("1G", "200%"), ("50%", "150%")])
def test_memory_and_processor_of_what_serves_can_be_measured(
    fleet: Fleet, query: Query, memory_max: str, cpu_quota: str
) -> None:
    serving = {name for name, slot in slots(fleet).items() if slot["weight"]}
    gates = {"name": "agent", "memory_max": memory_max, "memory": 0.8, "cpu_quota": cpu_quota, "cpu": 0.7}
    for condition in conditions(serving, {**gates, "first_token": 0, "conditions": []}):
        until(lambda asked=condition["query"]: set(query(asked)) == serving, "figures")  # type: ignore[misc]
        assert all(0 < value < 1 for value in query(condition["query"]).values())


@pytest.fixture(scope="module")
def greedy_app(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone whose process takes 400 MB more, and answers as before."""
    return committed(fleet, tmp_path_factory.mktemp("greedy") / "clone", appended('BALLAST = b"x" * (400 << 20)\n'))


@pytest.mark.soak
def test_a_release_whose_memory_is_past_the_gate_goes_back(fleet: Fleet, greedy_app: Path) -> None:
    before = fleet.status()
    own = {"name": "my own", "query": 'max(up{instance=~"$instances"})', "limit": 1}
    options = {"agent_source": str(greedy_app), "bake_seconds": 15, "agent_gate_memory": 0.4}
    with load_on(fleet, 20) as requests:
        run = fleet.playbook("deploy", "-e", json.dumps({**options, "agent_gate_conditions": [own]}))
    assert run.returncode != 0
    assert "memory 0.5" in run.stdout, run.stdout[-3000:]
    assert "(limit 0.4) is over its limit" in run.stdout
    assert "my own 1 (limit 1)" in run.stdout
    assert requests.failures == []
    after = fleet.status()
    assert (after["release"], after["traffic"]) == (before["release"], before["traffic"])


@pytest.mark.soak
def test_a_condition_that_prometheus_cannot_read_turns_the_release_back(fleet: Fleet) -> None:
    before = fleet.status()
    own = {"name": "my own", "query": "rate(agent_chats_total[", "limit": 1}
    words = {"label": "misspelt", "bake_seconds": 10, "agent_gate_conditions": [own]}
    run = fleet.playbook("deploy", "-e", json.dumps(words))
    assert run.returncode != 0
    assert "my own cannot be asked" in run.stdout, run.stdout[-3000:]
    assert fleet.status()["traffic"] == before["traffic"]
