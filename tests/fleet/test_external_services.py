"""A database and a Redis that are not the fleet's: asked before anything changes, then served from."""

from __future__ import annotations

import json
import ssl
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml
from support.fleet import Fleet, Result, SiteTransport, copy_inventory

pytestmark = pytest.mark.soak

HOST, DATA = "alone1", "away1"
USER, NAME, PASSWORD = "someone", "elsewhere", "k9Zq/2Lm@Qr7TzK4"
ENCODED = "k9Zq%2F2Lm%40Qr7TzK4"


@dataclass(frozen=True)
class Alone:
    """A fleet of one host, without a server of its own."""

    lab: Fleet
    inventory: Path

    @property
    def name(self) -> str:
        return f"{self.lab.name}-alone"

    @property
    def database(self) -> str:
        return f"postgresql://{USER}:{ENCODED}@{self.lab.address(DATA)}:5432/{NAME}"

    @property
    def redis(self) -> str:
        return f"redis://{USER}:{ENCODED}@{self.lab.address(DATA)}:6379/0"

    def words(self, **different: object) -> dict[str, object]:
        return {
            "fleet_name": self.name,
            "agent_model_key": "",
            "agent_database_url": self.database,
            "agent_database_password": "",
            "agent_redis_url": self.redis,
            "agent_redis_password": "",
            **different,
        }

    def playbook(self, name: str, *options: str, **different: object) -> Result:
        words = json.dumps(self.words(**different))
        return self.lab.playbook(name, "-e", words, *options, inventory=self.inventory)


def inventory_of(lab: Fleet, directory: Path, groups: dict[str, dict[str, dict[str, str]]]) -> Path:
    inventory = copy_inventory(lab.inventory, directory / "lab")
    children = {group: {"hosts": hosts} for group, hosts in groups.items()}
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"all": {"children": {"machines": {"children": children}}}}))
    return inventory


@pytest.fixture(scope="module")
def alone(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Alone:
    """Two bare hosts; the second is somebody else's, with servers that let the first in."""
    here = {HOST: {"lab_suite": "trixie", "ansible_host": lab.address(HOST)}}
    away = {DATA: {"lab_suite": "trixie", "ansible_host": lab.address(DATA)}}
    theirs = inventory_of(lab, tmp_path_factory.mktemp("away"), {"agents": here, "postgres": away, "redis": away})
    lab.board(theirs, HOST, DATA)
    play = tmp_path_factory.mktemp("play") / "away.yml"
    roles = [{"role": f"agentfleet.vm.{role}"} for role in ("postgres", "redis")]
    play.write_text(yaml.safe_dump([{"hosts": DATA, "become": True, "roles": roles}]))
    words = {
        "postgres_databases": [{"name": NAME, "owner": USER, "password": PASSWORD}],
        "redis_users": [{"name": USER, "password": PASSWORD, "rules": "~* &* +@all -@admin -@dangerous"}],
    }
    options = ["-e", f"@{lab.variables}", "-e", json.dumps(words)]
    lab.run(str(lab.command("site")[0]), "-i", str(theirs), str(play), *options).ok()
    ours = inventory_of(lab, tmp_path_factory.mktemp("alone"), {"edge": here, "agents": here})
    return Alone(lab, ours)


def refused(alone: Alone, **different: object) -> str:
    """The one line by which site.yml is refused before it changes anything."""
    run = alone.playbook("site", **different)
    assert run.returncode != 0, run.stdout
    assert not any(run.changed().values()), run.stdout
    assert PASSWORD not in run.stdout
    assert ENCODED not in run.stdout
    lines = [line for line in run.stdout.splitlines() if line.lstrip().startswith(f"{HOST}: ")]
    told = [line for line in lines if "agent_" in line]
    assert len(told) == 1, run.stdout
    return told[0]


def test_what_would_not_let_the_service_in_is_told_before_anything_changes(alone: Alone) -> None:
    address = alone.lab.address(DATA)
    wrong = alone.database.replace(ENCODED, "another-9Zq2Lm")
    assert f"agent_database_url: {address} refuses the password of {USER}" in refused(alone, agent_database_url=wrong)
    # One that only the owner of another database could name is not let in by its pg_hba.conf.
    absent = alone.database.replace(NAME, "nowhere")
    assert "Allow it in its pg_hba.conf" in refused(alone, agent_database_url=absent)
    closed = alone.database.replace(":5432", ":5433")
    assert f"agent_database_url: port 5433 of {address} does not answer" in refused(alone, agent_database_url=closed)
    strict = f"{alone.database}?sslmode=verify-full"
    assert "Set agent_database_ca_file" in refused(alone, agent_database_url=strict)
    wrong = alone.redis.replace(ENCODED, "another-9Zq2Lm")
    assert f"agent_redis_url: {address} refuses the password of {USER}" in refused(alone, agent_redis_url=wrong)
    encrypted = alone.redis.replace("redis:", "rediss:")
    assert "does not speak TLS on this port" in refused(alone, agent_redis_url=encrypted)
    assert alone.lab.on(HOST, "test -e /opt/agent").returncode != 0


@pytest.fixture(scope="module")
def served(alone: Alone) -> dict[str, Result]:
    return {
        "site": alone.playbook("site").ok(),
        "deploy": alone.playbook("deploy", "--diff").ok(),
        "again": alone.playbook("site").ok(),
    }


def test_the_service_is_served_from_them(alone: Alone, served: dict[str, Result]) -> None:
    verify = ssl.create_default_context(cafile=str(alone.lab.credentials / f"{alone.name}-agent.crt"))
    with httpx.Client(
        base_url=f"https://{alone.lab.address(HOST)}",
        transport=SiteTransport("agent.lab.test", verify=verify),
        headers={"Authorization": f"Bearer {alone.lab.secret('api_key')}"},
        timeout=60,
    ) as client:
        answer = client.post("/api/chat", json={"message": "Hello", "user_id": "u"})
        assert answer.status_code == 200, answer.text
    port = 8100 if "blue-1" in alone.lab.on(HOST, "systemctl list-units --plain 'agent@*'").stdout else 8150
    said = alone.lab.on(HOST, f"curl -sS http://{alone.lab.address(HOST)}:{port}/ready").ok().stdout
    checks = json.loads(said)["checks"]
    assert [checks[name]["status"] for name in ("database", "redis", "model")] == ["ok"] * 3
    told = alone.lab.on(DATA, f"runuser -u postgres -- psql -XAtd {NAME} -c 'SELECT count(*) > 0 FROM messages'")
    assert told.ok().stdout.strip() == "t"


def test_another_run_changes_nothing(served: dict[str, Result]) -> None:
    assert {host: count for host, count in served["again"].changed().items() if count} == {}


def test_their_passwords_are_nowhere_to_be_read(alone: Alone, served: dict[str, Result]) -> None:
    for run in served.values():
        assert PASSWORD not in run.stdout
        assert ENCODED not in run.stdout
    places = "/etc /opt/agent/slots /run/systemd /var/log"
    # The journal is compressed; it is read as people do.
    looked = f"grep -srlF -e '{PASSWORD}' -e '{ENCODED}' {places}; journalctl --no-pager | grep -cF '{PASSWORD}'"
    assert alone.lab.on(HOST, looked).stdout.split() == ["0"]
