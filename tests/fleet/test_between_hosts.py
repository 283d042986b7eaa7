"""Hosts that share no private network: what they tell each other is encrypted, and each verifies whom it talks to."""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from support.deploys import until
from support.fleet import TOP, Fleet, Result, SiteTransport, copy_inventory

pytestmark = pytest.mark.soak

EDGE, AGENT, DATA = "open1", "open2", "open3"
SITE = "agent.lab.test"
AUTHORITY = "/etc/ssl/certs/agentfleet-fleet.pem"
PAIR = "/etc/agentfleet/fleet/host.pem"
POSTGRES = "/etc/postgresql/17/main/agentfleet.pem"
REDIS = "/etc/redis/agentfleet.pem"
# The second service is an app that knows nothing of this collection.
SHOP = {
    "agent_name": "shop",
    "agent_port": 8200,
    "balancer_port": 8081,
    "edge_server_name": "shop.lab.test",
    "agent_source": str(TOP / "tests/support/small_app"),
    "agent_app": "main:app",
    "agent_migrate_command": "",
    "agent_metrics_path": "",
    "agent_probe_path": "/health",
    "agent_smoke_requests": [{"path": "/health"}],
    "agent_api_key": "shop-4f8a2c6e9b1d7053",
    "agent_database_host": "",
    "agent_redis_host": "",
}


@dataclass(frozen=True)
class Open:
    """A fleet of three hosts in the lab, told that their network is not its own."""

    lab: Fleet
    inventory: Path

    @property
    def name(self) -> str:
        return f"{self.lab.name}-open"

    def playbook(self, name: str, *options: str, **words: object) -> Result:
        given = {"fleet_name": self.name, "agent_model_key": "", "fleet_tls": True, **words}
        return self.lab.playbook(name, "-e", json.dumps(given), *options, inventory=self.inventory)

    def on(self, host: str, command: str, stdin: str | None = None) -> Result:
        return self.lab.on(host, command, stdin)

    @contextmanager
    def client(self, site: str = SITE, service: str = "agent") -> Iterator[httpx.Client]:
        verify = ssl.create_default_context(cafile=str(self.lab.credentials / f"{self.name}-{service}.crt"))
        with httpx.Client(
            base_url=f"https://{self.lab.address(EDGE)}",
            transport=SiteTransport(site, verify=verify),
            headers={"Authorization": f"Bearer {self.lab.secret('api_key')}"},
            timeout=60,
        ) as client:
            yield client

    def port(self) -> int:
        """Where the slot that serves listens; the one before it may still run."""
        told = json.loads(self.on(EDGE, "agentfleet-director status --json").ok().stdout)
        servers = told["backends"]["agent"]["servers"]
        [serving] = [name for name, server in servers.items() if server["weight"]]
        return 8100 if "-blue-" in serving else 8150

    def ready(self, scheme: str = "https") -> dict[str, Any]:
        """What /ready says of each server that it needs, asked by the edge."""
        url = f"{scheme}://{self.lab.address(AGENT)}:{self.port()}/ready"
        said = json.loads(self.on(EDGE, f"curl -sS --cacert {AUTHORITY} {url}").ok().stdout)
        return {name: said["checks"][name]["status"] for name in ("database", "redis", "model")}


@pytest.fixture(scope="module")
def bare(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Open:
    inventory = copy_inventory(lab.inventory, tmp_path_factory.mktemp("open") / "lab")
    suites = {EDGE: "trixie", AGENT: "bookworm", DATA: "trixie"}
    hosts = {name: {"lab_suite": suite, "ansible_host": lab.address(name)} for name, suite in suites.items()}
    parts = {"edge": EDGE, "agents": AGENT, "postgres": DATA, "redis": DATA, "monitoring": DATA}
    groups = {group: {"hosts": {name: hosts[name]}} for group, name in parts.items()}
    machines = {"machines": {"children": groups}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": machines}}))
    lab.board(inventory, *hosts)
    return Open(lab, inventory)


@pytest.fixture(scope="module")
def runs(bare: Open) -> dict[str, Result]:
    return {
        "check": bare.playbook("site", "--check", "--diff"),
        "site": bare.playbook("site").ok(),
        "deploy": bare.playbook("deploy").ok(),
        "again": bare.playbook("site"),
    }


@pytest.fixture(scope="module")
def fleet(bare: Open, runs: dict[str, Result]) -> Open:
    return bare


def test_it_is_brought_up_and_another_run_changes_nothing(runs: dict[str, Result]) -> None:
    runs["check"].ok()
    assert {host: count for host, count in runs["again"].ok().changed().items() if count} == {}
    # Programs that are shown look for keys; a key has more after these words.
    key = r"""PRIVATE KEY-----[\\n\s+"',]*[A-Za-z0-9+/]{32}"""
    assert not re.search(key, "".join(run.stdout for run in runs.values()))


def test_users_notice_nothing(fleet: Open) -> None:
    with fleet.client() as client:
        answer = client.post("/api/chat", json={"message": "Hello", "user_id": "u"})
        assert answer.status_code == 200, answer.text
    assert fleet.ready() == {"database": "ok", "redis": "ok", "model": "ok"}


def shown(fleet: Open, asking: str, host: str, port: int, options: str, authority: str) -> Result:
    """Whether what listens there is HOST by AUTHORITY's word."""
    address = fleet.lab.address(host)
    verify = f"-CAfile {authority} -no-CApath -verify_return_error -verify_ip {address}"
    return fleet.on(asking, f"openssl s_client -connect {address}:{port} {verify} {options} -brief </dev/null")


def test_each_server_shows_a_certificate_of_the_fleets_authority(fleet: Open) -> None:
    for asking, host, port, options in (
        (EDGE, AGENT, fleet.port(), ""),
        (AGENT, DATA, 6379, ""),
        (AGENT, DATA, 5432, "-starttls postgres"),
    ):
        verified = shown(fleet, asking, host, port, options, AUTHORITY)
        assert verified.returncode == 0, verified.stdout
        assert "Verification: OK" in verified.stdout
        # Nobody else's word is enough.
        refused = shown(fleet, asking, host, port, options, "/etc/ssl/certs/ca-certificates.crt")
        assert refused.returncode != 0, refused.stdout


# What a server answers to bytes that are not TLS.
ASK = """
import socket, sys
address, port, told = sys.argv[1], int(sys.argv[2]), bytes.fromhex(sys.argv[3])
with socket.create_connection((address, port), 5) as connection:
    connection.sendall(told)
    try:
        print(connection.recv(4096))
    except ConnectionError as error:
        print(error)
"""
STARTUP = b"\x00\x03\x00\x00user\x00agent\x00database\x00agent\x00\x00"


def answered(fleet: Open, asking: str, host: str, port: int, told: bytes) -> str:
    command = f"python3 - {fleet.lab.address(host)} {port} {told.hex()}"
    return fleet.on(asking, command, stdin=ASK).ok().stdout


def test_nobody_answers_in_plain(fleet: Open) -> None:
    redis = answered(fleet, AGENT, DATA, 6379, b"PING\r\n")
    assert "PONG" not in redis
    assert "NOAUTH" not in redis
    assert "HTTP/1.1 200" not in answered(fleet, EDGE, AGENT, fleet.port(), b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    startup = (len(STARTUP) + 4).to_bytes(4, "big") + STARTUP
    assert "no encryption" in answered(fleet, AGENT, DATA, 5432, startup)


def test_keys_are_readable_by_those_who_need_them(fleet: Open) -> None:
    assert fleet.on(AGENT, f"runuser -u agent -- cat {PAIR}").returncode != 0
    assert fleet.on(AGENT, f"runuser -u agent -- cat {AUTHORITY}").returncode == 0
    unit = "agent@blue-1" if fleet.port() == 8100 else "agent@green-1"
    credential = f"/run/credentials/{unit}.service/fleet.pem"
    assert fleet.on(AGENT, f"runuser -u nobody -- cat {credential}").returncode != 0
    for host in (EDGE, AGENT, DATA):
        there = fleet.on(host, "test -e /etc/agentfleet/fleet/authority.key").returncode == 0
        assert there is (host == EDGE)


def test_prometheus_reads_the_instances(fleet: Open) -> None:
    def up() -> bool:
        told = fleet.on(DATA, "curl -s -g 'http://127.0.0.1:9090/api/v1/query?query=up{job=\"agent\"}==1'").ok().stdout
        return len(json.loads(told)["data"]["result"]) == 1

    until(up, "an instance that Prometheus reads")


FOREIGN = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 9 -subj /CN=foreign"
    " -addext subjectAltName=IP:{address},DNS:{host} -keyout /root/foreign.key -out /root/foreign.crt"
    " && cat /root/foreign.key /root/foreign.crt"
)


@contextmanager
def foreign(fleet: Open, host: str, path: str, restart: str) -> Iterator[None]:
    """A server with a certificate of the right names, from somebody else."""
    make = FOREIGN.format(address=fleet.lab.address(host), host=host)
    fleet.on(host, f"({make}) > /root/foreign.pem && cat /root/foreign.pem > {path} && {restart}").ok()
    try:
        yield
    finally:
        kept = "/root/kept.pem"
        fleet.on(host, f"cat {kept} > {path} && {restart}").ok()


@pytest.fixture
def kept(fleet: Open) -> None:
    """The pairs as they were, for what a test puts in their place."""
    for host in (AGENT, DATA):
        fleet.on(host, f"cp -n {PAIR} /root/kept.pem").ok()


def test_the_service_refuses_a_database_that_is_another(fleet: Open, kept: None) -> None:
    with foreign(fleet, DATA, POSTGRES, "systemctl restart postgresql@17-main"):
        until(lambda: fleet.ready()["database"] == "down", "a database that is refused")
    until(lambda: fleet.ready()["database"] == "ok", "the database")


def test_the_service_refuses_a_redis_that_is_another(fleet: Open, kept: None) -> None:
    with foreign(fleet, DATA, REDIS, "systemctl restart redis-server"):
        until(lambda: fleet.ready()["redis"] == "degraded", "a Redis that is refused")
    until(lambda: fleet.ready()["redis"] == "ok", "Redis")


def test_the_edge_gives_no_request_to_an_instance_that_is_another(fleet: Open, kept: None) -> None:
    restart = "systemctl restart $(systemctl list-units --plain --no-legend 'agent@*' | cut -d' ' -f1)"
    with fleet.client() as client:
        with foreign(fleet, AGENT, PAIR, restart):
            until(lambda: client.get("/health").status_code == 503, "an instance that is refused")
        until(lambda: client.get("/health").status_code == 200, "the instance")


def test_it_is_not_turned_off_under_users_unasked(fleet: Open) -> None:
    run = fleet.playbook("site", fleet_tls=False)
    assert run.returncode != 0
    assert "the instances of 'agent' serve with TLS, and fleet_tls wants the opposite" in run.stdout
    assert "site.yml -e fleet_tls_change=true, then deploy.yml" in run.stdout
    assert not any(run.changed().values())


def switched(fleet: Open, encrypted: bool) -> None:
    """What docs/concepts.md says to type, and what is so afterwards."""
    words = {"fleet_tls": encrypted}
    fleet.playbook("maintenance", fleet_tls=not encrypted).ok()
    with fleet.client() as client:
        assert client.get("/api/chat").status_code == 503
        fleet.playbook("site", **words, fleet_tls_change=True).ok()
        fleet.playbook("deploy", **words).ok()
        fleet.playbook("maintenance", **words, undo=True).ok()
        answer = client.post("/api/chat", json={"message": "Hello", "user_id": "u"})
        assert answer.status_code == 200, answer.text
    assert fleet.ready("https" if encrypted else "http") == {"database": "ok", "redis": "ok", "model": "ok"}
    plain = answered(fleet, EDGE, AGENT, fleet.port(), b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")
    assert ("HTTP/1.1 200" in plain) is not encrypted
    assert ("NOAUTH" in answered(fleet, AGENT, DATA, 6379, b"PING\r\n")) is not encrypted


def test_it_is_switched_off_and_on_under_users_when_told(fleet: Open) -> None:
    switched(fleet, False)
    switched(fleet, True)
    again = fleet.playbook("site").ok()
    assert {host: count for host, count in again.changed().items() if count} == {}


def test_an_app_of_ones_own_serves_without_knowing(fleet: Open) -> None:
    fleet.playbook("site", **SHOP).ok()
    fleet.playbook("deploy", **SHOP).ok()
    with fleet.client("shop.lab.test", "shop") as client:
        assert client.get("/health").status_code == 200
    assert "HTTP/1.1 200" not in answered(fleet, EDGE, AGENT, 8200, b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n")


def test_an_edge_that_lost_its_authority_makes_another_that_all_follow(fleet: Open) -> None:
    before = fleet.on(AGENT, f"cat {AUTHORITY}").ok().stdout
    fleet.on(EDGE, "rm /etc/agentfleet/fleet/authority.*").ok()
    fleet.playbook("site").ok()
    assert fleet.on(AGENT, f"cat {AUTHORITY}").ok().stdout != before
    with fleet.client() as client:
        until(lambda: client.get("/health").status_code == 200, "instances that the edge verifies")
    until(lambda: fleet.ready() == {"database": "ok", "redis": "ok", "model": "ok"}, "servers that are verified")
