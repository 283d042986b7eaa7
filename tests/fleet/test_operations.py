"""What operators see of a fleet: the login, the status pages in a browser, hosts asked ad hoc, and the routine."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.deploys import backend, until
from support.fleet import BIN, HOSTS, TOP, Fleet, Result

LOOK = TOP / "tests/support/look.py"
APP_PYTHON = TOP / "app/.venv/bin/python"
TOOLS = {"prometheus": 9090, "alertmanager": 9093, "grafana": 3000}
OPERATOR = "operator"


@pytest.fixture
def password(fleet: Fleet) -> str:
    return fleet.secret("operator_password")


@pytest.fixture
def operator(fleet: Fleet, password: str) -> Iterator[httpx.Client]:
    with fleet.client(key="") as client:
        del client.headers["Authorization"]
        client.auth = (OPERATOR, password)
        yield client


@pytest.fixture
def stranger(fleet: Fleet) -> Iterator[httpx.Client]:
    """Who has the service's own key, and no login."""
    with fleet.client() as client:
        yield client


def write_pages(fleet: Fleet) -> None:
    fleet.on("edge1", "systemctl start agentfleet-status.service").ok()


def look(fleet: Fleet, url: str, directory: Path) -> dict[str, Any]:
    fleet.run(str(TOP / "tests/tools/apt-install"), "chromium", "chromium-driver").ok()
    done = fleet.run(str(APP_PYTHON), str(LOOK), url, fleet.address("edge1"), str(directory)).ok()
    return dict(json.loads(done.stdout.strip().splitlines()[-1]))


def ad_hoc(fleet: Fleet, pattern: str, *words: str) -> dict[str, dict[str, Any]]:
    """What ansible says, a JSON object a host."""
    command = [str(BIN / "ansible"), pattern, "-i", str(fleet.inventory), "-m", "agentfleet.vm.agent_info", *words]
    said = fleet.run(*command, "-e", f"@{fleet.variables}").ok().stdout
    return {host: json.loads(text) for host, text in re.findall(r"(?ms)^(\S+) \| SUCCESS => (\{.*?^\})$", said)}


@pytest.mark.parametrize(
    "path", ["", "status.json", *(f"{tool}/" for tool in TOOLS), "prometheus/api/v1/query?query=up"]
)
def test_nobody_comes_in_without_a_login(
    fleet: Fleet, stranger: httpx.Client, operator: httpx.Client, path: str
) -> None:
    assert stranger.get(f"/operations/{path}").status_code == 401
    operator.auth = (OPERATOR, "not the password")
    assert operator.get(f"/operations/{path}").status_code == 401


@pytest.mark.parametrize(
    ("tool", "path"), [("prometheus", "-/ready"), ("alertmanager", "-/ready"), ("grafana", "api/health")]
)
def test_with_it_each_service_that_is_there_answers(fleet: Fleet, operator: httpx.Client, tool: str, path: str) -> None:
    there = fleet.on("ops1", f"ss -ltnH | grep -q ':{TOOLS[tool]} '").returncode == 0
    assert operator.get(f"/operations/{tool}/{path}").status_code in ((200,) if there else (502, 504))
    assert there or tool != "prometheus"


def test_prometheus_answers_questions_behind_the_login(operator: httpx.Client) -> None:
    answer = operator.get("/operations/prometheus/api/v1/query", params={"query": 'up{job="node"}'})
    until(lambda: len(operator.get(answer.request.url).json()["data"]["result"]) == len(HOSTS), "figures of every host")


def test_the_status_page_shows_the_fleet_in_a_browser(fleet: Fleet, password: str, tmp_path: Path) -> None:
    write_pages(fleet)
    seen = look(fleet, f"https://{OPERATOR}:{password}@agent.lab.test/operations/", tmp_path)
    status = fleet.status()
    assert seen["title"] == f"Status of {fleet.name}"
    for words in (*HOSTS, status["release"], "Debian 12", "Debian 13", "% of the traffic", "Certificate", "Deploys"):
        assert words in seen["text"], words
    assert (seen["loaded"], seen["complaints"]) == ([], [])
    for name, view in seen["views"].items():
        assert view["wide"] <= view["width"], f"{name} is wider than its screen"
    assert seen["views"]["light"]["background"] != seen["views"]["dark"]["background"]


def test_the_page_says_what_status_says(fleet: Fleet, operator: httpx.Client) -> None:
    write_pages(fleet)
    page, status = operator.get("/operations/status.json").json(), fleet.status()
    assert list(page) == list(status)
    assert (page["made_from"], status["made_from"]) == ("edge", "hosts")
    for key in ("fleet", "state", "release", "traffic", "certificate_days"):
        assert page[key] == status[key], key

    def placed(document: dict[str, Any]) -> dict[str, Any]:
        return {
            host["name"]: {slot: (seen["release"], seen["weight"]) for slot, seen in (host["slots"] or {}).items()}
            for host in document["hosts"]
        }

    assert placed(page) == placed(status)
    assert [host["reachable"] for host in page["hosts"]] == [True] * len(HOSTS)


def test_everybody_sees_a_word_and_maintenance_at_once(fleet: Fleet, stranger: httpx.Client, tmp_path: Path) -> None:
    def word() -> str:
        return str(stranger.get("/status", headers={"Accept": "application/json"}).json()["status"])

    write_pages(fleet)
    assert word() == "up"
    seen = look(fleet, "https://agent.lab.test/status", tmp_path)
    assert "All is well." in seen["text"]
    assert (seen["loaded"], seen["complaints"]) == ([], [])
    fleet.playbook("maintenance").ok()
    try:
        assert word() == "maintenance"
    finally:
        fleet.playbook("maintenance", "-e", "undo=true").ok()
    assert word() == "up"


def test_hosts_are_asked_ad_hoc_without_an_option(fleet: Fleet) -> None:
    seen = ad_hoc(fleet, "agents")
    assert set(seen) == {"agent1", "agent2"}
    for host in seen.values():
        assert host["parts"] == ["agent"]
        assert {one["health"] for one in host["instances"] if one["state"] == "active"} == {"ok"}
        assert host["drift"] == []
        assert host["slots"].keys() == {"blue", "green"}
        assert "openssh-server" in host["versions"]
    others = ad_hoc(fleet, "edge1,ops1")
    assert others["edge1"]["parts"] == ["edge"]
    assert others["edge1"]["release"] == fleet.status()["release"]
    assert set(others["ops1"]["parts"]) == {"backup", "monitoring"}


def test_what_was_changed_by_hand_is_drift(fleet: Fleet) -> None:
    server = next(name for name, server in backend(fleet)["servers"].items() if server["weight"])
    host, slot, _number = server.rsplit("-", 2)
    file = f"/opt/agent/slots/{slot}/environment"
    fleet.on(host, f"cp -a {file} /root/kept; echo 'AGENT_EXTRA=\"1\"' >> {file}").ok()
    try:
        table = fleet.playbook("status").ok().stdout
    finally:
        fleet.on(host, f"mv /root/kept {file}").ok()
    assert f"  {host}: drift: {slot}: its variables or credentials were changed by hand" in table.splitlines()


def levels(report: Result) -> dict[str, set[str]]:
    return {
        # The disks of all hosts are the controller's.
        host: {finding["level"] for finding in routines["daily"]["findings"] if finding["check"] != "disk"}
        for host, routines in json.loads(report.stdout).items()
    }


def test_the_routine_is_carried_out_and_reported(fleet: Fleet) -> None:
    report = fleet.playbook("routine", "-e", "routine=daily", "-e", "status_format=json")
    found = levels(report)
    assert set(found) == set(HOSTS)
    assert [host for host, of_host in found.items() if of_host & {"problem", "unknown"}] == []
    lines = fleet.playbook("routine").stdout.splitlines()
    assert len([line for line in lines if "  daily  " in line]) == len(HOSTS)
    figures = fleet.on("agent1", "cat /var/lib/prometheus/node-exporter/agentfleet_routine.prom").ok().stdout
    assert 'agentfleet_routine_findings{routine="daily",level="unknown"} 0' in figures


@pytest.mark.soak
def test_the_monthly_part_says_where_it_cannot_look(fleet: Fleet) -> None:
    settings = "/etc/agentfleet/routine/agent.json"
    for host in ("agent1", "agent2"):
        fleet.on(
            host, f"cp -a {settings} /root/kept; sed -i 's#https://api.osv.dev#http://127.0.0.1:9#' {settings}"
        ).ok()
    try:
        report = fleet.playbook("routine", "-e", "routine=monthly", "-e", "status_format=json")
    finally:
        for host in ("agent1", "agent2"):
            fleet.on(host, f"mv /root/kept {settings}").ok()
    known = {host: of_host["monthly"]["findings"] for host, of_host in json.loads(report.stdout).items()}
    told = {host: {one["check"]: one for one in findings} for host, findings in known.items()}
    assert "USD this month" in told["agent1"]["agent: costs"]["text"], told["agent1"]
    assert "agent: costs" not in told["agent2"], "both have the same database"
    for host in ("agent1", "agent2"):
        assert told[host]["agent: dependencies"]["level"] == "unknown"
        assert "http://127.0.0.1:9 cannot be reached" in told[host]["agent: dependencies"]["text"]
    assert told["ops1"]["backups read back"]["level"] in ("ok", "problem")
    assert all("updates" in of_host for of_host in told.values())


def answers(address: str) -> bool:
    """Whether somebody is there at all."""
    try:
        socket.create_connection((address, 22), timeout=1).close()
    except OSError:
        return False
    return True


@pytest.mark.soak
def test_a_host_that_is_off_is_a_row_and_no_error(fleet: Fleet, operator: httpx.Client) -> None:
    """Cut off, as one whose power is gone: nothing says goodbye."""
    before = fleet.status()
    away = "ip link set host0 down; sleep 90; ip link set host0 up; networkctl reconfigure host0"
    fleet.on("agent2", f"systemd-run --on-active=1 --timer-property=AccuracySec=1s sh -c '{away}'").ok()
    until(lambda: not answers(fleet.address("agent2")), "the cut")
    try:
        table = fleet.playbook("status").ok()
        [row] = [line for line in table.stdout.splitlines() if line.startswith("agent2")]
        assert "unreachable" in row
        assert "agent2: cannot be reached" in table.stdout
        after = fleet.status()
        assert after["release"] == before["release"]
        assert set(after["traffic"]) == set(before["traffic"])
        assert after["state"] == "degraded"
        write_pages(fleet)
        page = operator.get("/operations/status.json").json()
        assert {host["name"]: host["reachable"] for host in page["hosts"]}["agent2"] is False
    finally:
        until(lambda: answers(fleet.address("agent2")), "agent2", 120)
    until(lambda: fleet.status()["state"] == "up", "its instances")
