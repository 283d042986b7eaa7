"""logs.yml: a request is found on its whole way, lines are shown as they come, and none is lost on its way."""

from __future__ import annotations

import json
import re
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from support.deploys import interrupt, power, started, until
from support.fleet import HOSTS, Fleet

STORE = "/var/lib/agentfleet-logs-store/lines"


def line_with(process: subprocess.Popen[str], text: str) -> str:
    """The first line that a process writes with TEXT in it."""
    patience = threading.Timer(60, process.kill)
    patience.start()
    try:
        assert process.stdout
        return next(line for line in process.stdout if text in line)
    finally:
        patience.cancel()


@pytest.fixture
def failing(client: httpx.Client, model_server: httpx.Client) -> str:
    """The id of a request that fails, for the model refuses it, between others that do not."""
    request_id = uuid.uuid4().hex
    client.post("/api/chat", json={"message": "before", "session_id": uuid.uuid4().hex}).raise_for_status()
    model_server.post("/_control", json={"fail_next": 9, "status": 401}).raise_for_status()
    try:
        answer = client.post(
            "/api/chat",
            json={"message": "it fails", "session_id": uuid.uuid4().hex},
            headers={"X-Request-Id": request_id},
        )
    finally:
        model_server.post("/_control", json={"reset": True}).raise_for_status()
    assert answer.status_code >= 500
    assert answer.headers["X-Request-Id"] == request_id
    return request_id


def kept(fleet: Fleet, text: str) -> list[str]:
    """Lines with TEXT on the log host, each once."""
    plain, packed = "! -name '*.zst' -exec cat", "-name '*.zst' -exec zstd -dcq"
    whole = f"find {STORE} -name '*.log*' {plain} {{}} +; find {STORE} {packed} {{}} +"
    return sorted(set(fleet.on("ops1", f"({whole}) | grep -F '{text}'").stdout.splitlines()))


def test_the_failing_request_is_found_on_its_way(fleet: Fleet, failing: str) -> None:
    until(lambda: {line.split()[0] for line in kept(fleet, failing)} > {"edge1"}, "the lines on the log host")
    lines = fleet.playbook("logs", "-e", f"request_id={failing}").ok().stdout.splitlines()
    assert len(lines) >= 2
    assert all(failing in line for line in lines)
    assert any("  edge1 " in line and "  error " in line and "POST /api/chat 5" in line for line in lines)
    assert any("  agent" in line and "route=/api/chat" in line for line in lines)


def test_a_request_that_never_was_has_no_lines(fleet: Fleet) -> None:
    assert fleet.playbook("logs", "-e", f"request_id={uuid.uuid4().hex}").ok().stdout.split("\n")[0] == "no lines"


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("since=yesterday", "write 90s, 15m, 2h, 1d"),
        ("host=agent9", "host=agent9: name one of edge1, agent1, agent2, data1, ops1"),
        ("component=nginx", "must be one of edge, balancer, director, agent, worker"),
        ("level=fatal", "must be one of emergency, alert, critical, error"),
        ("what=trace", "what=trace shows one request"),
        ("day=2026-11-30", "day=2026-11-30 is of what=summary"),
        ("request_id=a|b", "an id is 8 to 64"),
    ],
)
def test_what_cannot_be_read_is_refused_in_a_line(fleet: Fleet, option: str, said: str) -> None:
    refused = fleet.playbook("logs", "-e", option)
    assert refused.returncode
    assert said in refused.stdout


def test_lines_are_shown_as_they_come_until_interrupted(fleet: Fleet, client: httpx.Client) -> None:
    follower = started(fleet, "-e", "follow=true", "-e", "host=edge1", name="logs")
    try:
        line_with(follower, "edge1")
        request_id = uuid.uuid4().hex
        client.get("/health", headers={"X-Request-Id": request_id}).raise_for_status()
        assert "GET /health 200" in line_with(follower, request_id)
    finally:
        interrupt(follower)


def test_a_jobs_request_is_followed_from_the_edge_over_the_agent_to_the_worker(
    fleet: Fleet, client: httpx.Client
) -> None:
    request_id = uuid.uuid4().hex
    asked = client.post(
        "/api/analyze", json={"text": "In March 7 units were sold."}, headers={"X-Request-Id": request_id}
    )
    task = asked.raise_for_status().json()["task_id"]
    until(lambda: client.get(f"/api/status/{task}").json()["state"] == "done", "the end of the job")
    until(lambda: any('"unit":"agent-worker@' in line for line in kept(fleet, request_id)), "the worker's line")
    lines = fleet.playbook("logs", "-e", f"request_id={request_id}").ok().stdout.splitlines()
    parts = [line.split()[3] for line in lines]
    assert parts[0] == "edge", lines
    assert re.fullmatch(r"(blue|green)-\d", parts[1]), lines
    assert any(part.startswith("worker-") for part in parts[2:]), lines
    alone = fleet.playbook("logs", "-e", f"request_id={request_id}", "-e", "component=worker").ok().stdout
    assert alone.splitlines() == [line for line in lines if "  worker-" in line]
    # The hosts themselves have the same.
    own = fleet.playbook("logs", "-e", f"request_id={request_id}", "-e", "from_hosts=true").ok().stdout
    assert sorted(own.splitlines()) == sorted(lines)


def test_a_level_and_a_host_leave_out_the_rest(fleet: Fleet, failing: str) -> None:
    until(lambda: {line.split()[0] for line in kept(fleet, failing)} > {"edge1"}, "the lines on the log host")
    shown = fleet.playbook("logs", "-e", "level=error", "-e", "host=edge1").ok().stdout.splitlines()
    assert any(failing in line for line in shown)
    assert {line.split()[2] for line in shown} == {"edge1"}
    assert {line.split()[4] for line in shown} <= {"error", "critical", "alert", "emergency"}


def test_a_day_in_figures(fleet: Fleet, failing: str) -> None:
    until(lambda: {line.split()[0] for line in kept(fleet, failing)} > {"edge1"}, "the lines on the log host")
    lines = fleet.playbook("logs", "-e", "what=summary").ok().stdout.splitlines()
    counted = re.fullmatch(r".* UTC: ([\d,]+) lines, ([\d,]+) warnings, ([\d,]+) errors", lines[0])
    assert counted, lines[0]
    total = int(counted[1].replace(",", ""))
    for heading in ("component", "host"):
        begin = next(number for number, line in enumerate(lines) if line.startswith(f"{heading} "))
        rows = lines[begin + 1 : lines.index("", begin)]
        assert sum(int(row.split()[1].replace(",", "")) for row in rows) == total
    # Every host has sent lines of its own.
    assert {row.split()[0] for row in rows} == set(HOSTS)
    # Of the edge alone, since few kinds of error are shown and earlier tests have caused many elsewhere.
    shown = fleet.playbook("logs", "-e", "what=summary", "-e", "component=edge").ok().stdout.splitlines()
    assert any(re.match(r" +\d+  \S+ \S+  edge +POST /api/chat 5", line) for line in shown), shown


@contextmanager
def numbered(fleet: Fleet, host: str, seconds: float) -> Iterator[str]:
    """Lines of a host with a number each, written as long as the block takes, and SECONDS at least."""
    mark = uuid.uuid4().hex
    words = (
        f'n=0; while [ ! -e /run/{mark} ]; do n=$((n + 1)); echo "{mark} $n."; sleep 0.02; done; echo "{mark} end $n."'
    )
    fleet.on(host, f"systemd-run --quiet --collect --unit=agentfleet-{mark} bash -c '{words}'").ok()
    began = time.monotonic()
    yield mark
    until(lambda: time.monotonic() > began + seconds, "enough lines", seconds + 10)
    fleet.on(host, f"touch /run/{mark}").ok()


def complete(fleet: Fleet, mark: str, seconds: float = 120) -> None:
    """All numbers up to the last are on the log host, and each is shown once."""
    # systemd names the whole command where it says that the unit started: only a number makes it the end.
    end = re.compile(rf"{mark} end (\d+)\.")
    until(lambda: any(map(end.search, kept(fleet, mark))), "the last line", seconds)
    found = kept(fleet, f'"text":"{mark}')
    last = next(int(number) for line in found for number in end.findall(line))
    numbers = sorted(int(number) for line in found for number in re.findall(rf"{mark} (\d+)\.", line))
    assert numbers == list(range(1, last + 1))
    assert last > 50


def test_lines_written_while_the_log_host_is_away_come_when_it_is_back(fleet: Fleet) -> None:
    with numbered(fleet, "agent1", 3) as one, numbered(fleet, "data1", 3) as other:
        fleet.on("ops1", "systemctl kill -s KILL agentfleet-logs-store; systemctl stop agentfleet-logs-store").ok()
        # Who sends may end meanwhile as well.
        fleet.on("data1", "sleep 2; systemctl restart agentfleet-logs").ok()
        fleet.on("ops1", "systemctl start agentfleet-logs-store").ok()
    for mark in (one, other):
        complete(fleet, mark)


@pytest.mark.soak
def test_a_log_host_that_is_down_for_a_minute_loses_no_line(fleet: Fleet) -> None:
    with numbered(fleet, "agent2", 80) as mark:
        fleet.on("ops1", "systemctl stop agentfleet-logs-store; sleep 60; systemctl start agentfleet-logs-store").ok()
    complete(fleet, mark)


@pytest.mark.soak
def test_a_log_host_whose_link_is_cut_for_a_minute_loses_no_line(fleet: Fleet) -> None:
    link = f"vb-{fleet.name}-ops1"
    with numbered(fleet, "agent2", 80) as mark:
        subprocess.run(["ip", "link", "set", link, "down"], check=True)
        try:
            fleet.on("agent2", "sleep 60").ok()
            shown = fleet.playbook("logs")
        finally:
            subprocess.run(["ip", "link", "set", link, "up"], check=True)
        assert shown.returncode != 0
        assert "-e from_hosts=true" in shown.stdout
    complete(fleet, mark, 180)


@pytest.mark.soak
def test_a_host_that_is_off_still_has_its_lines(fleet: Fleet) -> None:
    with numbered(fleet, "agent2", 3) as mark:
        pass
    complete(fleet, mark)
    power(fleet, "off", "agent2")
    try:
        since = ["-e", "host=agent2", "-e", "since=5m", "-e", "lines=5000"]
        assert mark in fleet.playbook("logs", *since).ok().stdout
        behind = "agent2 sent its last line "
        until(lambda: behind in fleet.playbook("logs", *since).ok().stdout, "that it is said to be away", 240)
    finally:
        power(fleet, "up", "agent2")
    until(lambda: behind not in fleet.playbook("logs", *since).ok().stdout, "its lines again", 240)


def test_the_port_is_shut_from_outside(fleet: Fleet) -> None:
    reach = f"timeout 2 bash -c '</dev/tcp/{fleet.address('ops1')}/6514' 2>/dev/null"
    assert fleet.run("bash", "-c", reach).returncode != 0
    assert fleet.on("agent1", reach).returncode == 0


@pytest.mark.soak
def test_what_a_request_did_is_shown_as_a_tree(fleet: Fleet, client: httpx.Client) -> None:
    words = {"label": "spans", "agent_environment": {"AGENT_LOG_SPANS": "true"}}
    fleet.playbook("deploy", "-e", json.dumps(words)).ok()
    try:
        request_id = uuid.uuid4().hex
        headers = {"X-Request-Id": request_id}
        client.post("/api/chat", json={"message": "it", "session_id": request_id}, headers=headers).raise_for_status()
        until(lambda: any("span_id" in line and "POST" in line for line in kept(fleet, request_id)), "spans")
        shown = fleet.playbook("logs", "-e", "what=trace", "-e", f"request_id={request_id}").ok().stdout.splitlines()
    finally:
        fleet.playbook("deploy").ok()
    assert shown[0].startswith("trace ")
    assert re.match(r" +POST /api/chat +[\d.]+ ms", shown[1]), shown
    assert any("invoke_agent" in line for line in shown[2:]), shown
