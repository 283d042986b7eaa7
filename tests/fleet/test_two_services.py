"""A second service on the fleet: a second file of variables, and neither notices what is done to the other."""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.deploys import director
from support.fleet import TOP, Fleet, Result, SiteTransport
from support.load import Load, load_on

pytestmark = pytest.mark.soak

SITE = "shop.lab.test"
KEY = "shop-4f8a2c6e9b1d7053"


@dataclass(frozen=True)
class Shop:
    """The second service, by the file that makes every playbook its own."""

    fleet: Fleet
    variables: Path

    def playbook(self, name: str, *options: str) -> Result:
        return self.fleet.playbook(name, "-e", f"@{self.variables}", *options)

    def status(self) -> dict[str, Any]:
        return dict(json.loads(self.playbook("status", "-e", "status_format=json").ok().stdout))

    def load(self, rate: float) -> Load:
        return Load(f"https://{self.fleet.address('edge1')}", SITE, self.fleet.tls(), KEY, rate)

    def get(self, path: str) -> httpx.Response:
        transport = SiteTransport(SITE, verify=self.fleet.tls())
        with httpx.Client(base_url=f"https://{self.fleet.address('edge1')}", transport=transport) as client:
            return client.get(path)


@pytest.fixture(scope="module")
def shop(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Shop:
    variables = tmp_path_factory.mktemp("services") / "shop.yml"
    words = {
        "agent_name": "shop",
        "agent_port": 8200,
        "balancer_port": 8081,
        "edge_server_name": SITE,
        "agent_source": str(TOP / "tests/support/small_app"),
        "agent_app": "main:app",
        "agent_migrate_command": "",
        "agent_metrics_path": "",
        "agent_probe_path": "/health",
        "agent_smoke_requests": [{"path": "/health"}],
        "agent_environment": {"GREETING": "welcome"},
        "agent_api_key": KEY,
        "agent_model_key": "",
        "agent_database_host": "",
        "agent_redis_host": "",
    }
    variables.write_text(yaml.safe_dump(words))
    return Shop(replace(fleet, service="shop"), variables)


@pytest.fixture(scope="module")
def arrival(fleet: Fleet, shop: Shop) -> Load:
    """The second service comes, while users talk to the first."""
    with load_on(fleet, 20) as load:
        load.wait_for(50)
        load.mark("site")
        shop.playbook("site").ok()
        load.mark("deploy")
        # Distinct from what an earlier run left on a lab that stays up.
        shop.playbook("deploy", "-e", f"label=arrival-{secrets.token_hex(3)}").ok()
        load.mark("after")
        load.wait_for(50)
    return load


def parts(fleet: Fleet, service: str) -> dict[str, Any]:
    """What the director has of a service, without what only counts or grows."""
    seen = director(fleet)["backends"][service]
    weights = {name: server["weight"] for name, server in seen["servers"].items()}
    return {"weights": weights, "release": seen["current"]["release"], "slots": seen["slots"]}


def test_users_of_the_first_do_not_notice_the_second(arrival: Load) -> None:
    assert arrival.failures == []
    assert arrival.count("site").answered > 100
    assert arrival.count("deploy").answered > 50


def test_each_answers_to_its_own_name(fleet: Fleet, shop: Shop, arrival: Load) -> None:
    answer = shop.get("/").raise_for_status().json()
    assert answer["greeting"] == "welcome"
    # None of the first service.
    assert answer["secrets"] == {"agent_api_key": len(KEY)}
    with fleet.client() as client:
        assert client.post("/api/chat", json={"message": "Hello"}).status_code == 200


def held(status: dict[str, Any]) -> set[str]:
    """The releases in all slots."""
    slots = [slot for host in status["hosts"] for slot in (host["slots"] or {}).values()]
    return {slot["release"] for slot in slots if slot["release"]}


def test_status_is_of_the_service_that_is_asked_for(fleet: Fleet, shop: Shop, arrival: Load) -> None:
    first, second = fleet.status(), shop.status()
    assert first["release"] != second["release"]
    assert (first["traffic"], second["traffic"]) == ({first["release"]: 1.0}, {second["release"]: 1.0})
    assert not held(first) & held(second)


def test_deploy_and_rollback_of_one_are_not_the_others(fleet: Fleet, shop: Shop, arrival: Load) -> None:
    agent, before = parts(fleet, "agent"), parts(fleet, "shop")
    with load_on(fleet, 10) as theirs, shop.load(10) as ours:
        shop.playbook("deploy", "-e", "label=second").ok()
        assert "second" in parts(fleet, "shop")["release"]
        assert parts(fleet, "agent") == agent
        shop.playbook("rollback").ok()
        assert parts(fleet, "shop")["weights"] == before["weights"]
        assert parts(fleet, "agent") == agent
        shop_then = parts(fleet, "shop")
        fleet.playbook("deploy", "-e", "label=beside-shop").ok()
        assert "name the service: agent, shop" in fleet.on("edge1", "agentfleet-director rollback").stdout
        fleet.playbook("rollback").ok()
        assert parts(fleet, "agent")["weights"] == agent["weights"]
        assert parts(fleet, "shop") == shop_then
    assert theirs.failures == []
    assert ours.failures == []


def test_what_two_services_cannot_share_is_refused(fleet: Fleet, shop: Shop, arrival: Load) -> None:
    green = ", ".join(f"{fleet.address(host)}:8150" for host in ("agent1", "agent2"))
    wrong = {"agent_name": "stall", "edge_server_name": "agent.lab.test", "agent_port": 8150, "balancer_port": 8081}
    run = shop.playbook("preflight", "-e", json.dumps(wrong))
    assert run.returncode != 0
    for line in (
        "service 'agent' has the name agent.lab.test, which 'stall' wants as well",
        f"service 'agent' has {green}, which 'stall' wants as well",
        "service 'shop' has port 8081 of the balancer, which 'stall' wants as well",
    ):
        assert line in run.stdout, run.stdout[-3000:]


def test_another_run_for_each_changes_nothing(fleet: Fleet, shop: Shop, arrival: Load) -> None:
    for run in (fleet.playbook("site").ok(), shop.playbook("site").ok()):
        assert {host: count for host, count in run.changed().items() if count} == {}
