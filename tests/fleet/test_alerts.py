"""What goes wrong is told: once, to a mailbox and a webhook, with what to do, and its end as well.

The lab's rules have a twentieth of their times, and a message waits for seconds (tests/support/receivers.py).
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from support.deploys import until
from support.disks import mounting
from support.fleet import Fleet
from support.receivers import Received, receivers, settings

SERVICE = "agent"
MODEL = "deepseek-v4-flash"
CERTIFICATE = f"/etc/agentfleet/tls/{SERVICE}"
# Signed with the key that is there, so that only its end is another.
NAMES = "-subj /CN=agent.lab.test -addext subjectAltName=DNS:agent.lab.test"
SHORT = (
    f"openssl req -x509 -key {CERTIFICATE}.key -days 5 {NAMES} -out {CERTIFICATE}.new"
    f" && cat {CERTIFICATE}.new >{CERTIFICATE}.crt && rm {CERTIFICATE}.new && systemctl reload nginx"
)


@pytest.fixture(scope="module")
def received(fleet: Fleet) -> Iterator[Received]:
    with receivers(fleet.prefix) as received:
        yield received


@dataclass(frozen=True)
class Told:
    """What arrives of one alert from now on."""

    received: Received
    name: str
    seconds: float
    since: datetime = field(default_factory=lambda: datetime.now(UTC))

    def posts(self, status: str) -> list[dict[str, Any]]:
        return [post for post in self.received.of(self.name, self.since) if post["status"] == status]

    def arrives(self) -> dict[str, Any]:
        """Wait for it in mailbox and webhook: it says what is wrong, what to do and where to read on."""

        def mails() -> list[str]:
            return self.received.mails_with(summary(self.posts("firing")[0]))

        until(lambda: bool(self.posts("firing") and mails()), f"{self.name} in mailbox and webhook", self.seconds)
        [post] = self.posts("firing")
        said = post["alerts"][0]["annotations"]
        assert re.search(r"ansible|systemctl|journalctl|du -", said["description"])
        assert "<no value>" not in str(said)
        assert post["externalURL"] == "https://agent.lab.test/operations/alertmanager"
        text = mails()[-1]
        assert {said["description"], said["runbook"]} <= {line.strip() for line in text.splitlines()}
        return post

    def ends(self) -> None:
        until(lambda: bool(self.posts("resolved")), f"the end of {self.name}", self.seconds)
        messages = self.received.of(self.name, self.since)
        assert [post["status"] for post in messages] == ["firing", "resolved"], [post["alerts"] for post in messages]
        until(
            lambda: any(mail.startswith("over") for mail in self.received.mails_with(summary(messages[-1]))),
            "its end in the mailbox",
        )


@contextmanager
def told(fleet: Fleet, received: Received, name: str, seconds: float = 120) -> Iterator[Told]:
    """An alert that comes while what is inside is done, and is over by its end; it is told once, and so is its end."""
    active = (
        f"amtool --alertmanager.url=http://127.0.0.1:9093 alert query alertname={name} --output=simple | grep {name}"
    )
    until(lambda: not fleet.on("ops1", active).stdout, f"{name}, as an earlier test left it", seconds)
    alert = Told(received, name, seconds)
    yield alert
    alert.ends()


def summary(post: dict[str, Any]) -> str:
    return str(post["alerts"][0]["annotations"]["summary"])


def serving_instance(fleet: Fleet, host: str) -> str:
    slots = {found["name"]: found["slots"] for found in fleet.status()["hosts"]}[host]
    return next(f"{SERVICE}@{slot}-1" for slot, held in slots.items() if held["weight"])


def test_a_killed_instance(fleet: Fleet, received: Received) -> None:
    unit = serving_instance(fleet, "agent2")
    with told(fleet, received, "InstanceEjected") as alert:
        fleet.on("agent2", f"systemctl mask --runtime -q {unit} && systemctl kill --signal=KILL {unit}").ok()
        try:
            labels = alert.arrives()["commonLabels"]
            assert (labels["host"], labels["severity"]) == ("agent2", "critical")
        finally:
            fleet.on("agent2", f"systemctl unmask --runtime -q {unit}; systemctl start {unit}").ok()


@pytest.mark.soak
def test_two_disks_that_fill_are_one_message(fleet: Fleet, received: Received) -> None:
    places = ("/srv/one", "/srv/two")
    for place in places:
        fleet.on("data1", f"mkdir -p {place} && {{ {mounting(place, 32, place.rpartition('/')[2])} }}").ok()
    try:
        with told(fleet, received, "DiskNearlyFull") as alert:
            fleet.on("data1", "; ".join(f"fallocate -l 24M {place}/filler" for place in places)).ok()
            post = alert.arrives()
            assert {alert["labels"]["mountpoint"] for alert in post["alerts"]} == set(places)
            fleet.on("data1", "; ".join(f"rm {place}/filler" for place in places)).ok()
    finally:
        fleet.on("data1", "; ".join(f"umount -l {place}; rm -rf {place} /var/tmp/{place[5:]}.img" for place in places))


@pytest.mark.soak
def test_a_certificate_that_is_about_to_end(fleet: Fleet, received: Received) -> None:
    with told(fleet, received, "CertificateEndsSoon", 240) as alert:
        fleet.on("edge1", SHORT).ok()
        # What the edge shows is its own word alone, so the monitoring host has to be told as well.
        fleet.playbook("site", "--limit", "ops1").ok()
        alert.arrives()
        fleet.playbook("site").ok()


@pytest.fixture
def model(model_server: httpx.Client) -> Iterator[Callable[..., None]]:
    yield lambda **words: model_server.post("/_control", json=words).raise_for_status()
    model_server.post("/_control", json={"reset": True}).raise_for_status()


@pytest.mark.soak
def test_a_queue_that_is_stuffed(
    fleet: Fleet, client: httpx.Client, received: Received, model: Callable[..., None]
) -> None:
    with told(fleet, received, "QueueOld", 240) as alert:
        model(latency_seconds=6)
        for number in range(150):
            # No two alike, now or earlier: what was answered before is not asked again.
            text = f"In March {number} units were sold, says {uuid.uuid4()}."
            client.post("/api/analyze", json={"text": text}).raise_for_status()
        alert.arrives()
        model(reset=True)


def ask(client: httpx.Client, text: str) -> int:
    return client.post("/api/chat", json={"message": text, "user_id": "alerts"}).status_code


@pytest.mark.soak
def test_a_model_that_fails(fleet: Fleet, client: httpx.Client, received: Received, model: Callable[..., None]) -> None:
    # Whatever it did before, it answers now, on every instance.
    for _ in range(20):
        client.cookies.clear()
        ask(client, "Is anybody there?")
    with told(fleet, received, "ModelFails", 240) as alert, ThreadPoolExecutor(1) as pool:
        asking = True

        def go_on() -> None:
            while asking:
                client.cookies.clear()
                ask(client, "Is anybody there?")

        model(fail_next=100_000, status=500)
        people = pool.submit(go_on)
        try:
            assert alert.arrives()["commonLabels"]["model"] == MODEL
            model(reset=True)
            alert.ends()
        finally:
            asking = False
        people.result()


def allow(fleet: Fleet, month_usd: float) -> None:
    limits = {**settings(fleet.prefix)["prometheus_limits"], "month_usd": month_usd}
    fleet.playbook("site", "--limit", "ops1", "-e", json.dumps({"prometheus_limits": limits})).ok()


@pytest.mark.soak
def test_a_month_that_would_cost_too_much(fleet: Fleet, client: httpx.Client, received: Received) -> None:
    # What earlier tests have cost stays in the window for as long as that is, a twentieth of six hours.
    month = "sum(rate(agent_cost_usd_total[18m])) * 86400 * 30"
    said = fleet.on("ops1", f"promtool query instant http://127.0.0.1:9090 '{month}'").ok().stdout
    so_far = re.search(r"=> ([\d.e+-]+)", said)
    allow(fleet, (float(so_far[1]) if so_far else 0) + 30)
    with told(fleet, received, "CostTooHigh", 240) as alert, ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda number: ask(client, f"{number} " + "word " * 1500), range(60))) == {200}
        alert.arrives()
        # The fleet may decide that it is worth it.
        allow(fleet, 1_000_000)


@pytest.mark.soak
def test_a_backup_that_is_too_old(fleet: Fleet, received: Received) -> None:
    fleet.playbook("backup", "-e", "what=redis").ok()
    older = (
        "import json, pathlib; path = pathlib.Path('/var/lib/agentfleet/backup/state.json');"
        " s = json.loads(path.read_text()); s['redis']['at'] -= 100000; path.write_text(json.dumps(s))"
    )
    with told(fleet, received, "BackupTooOld", 240) as alert:
        fleet.on("ops1", f'python3 -c "{older}" && agentfleet-backup watch').ok()
        alert.arrives()
        fleet.playbook("backup", "-e", "what=redis").ok()
