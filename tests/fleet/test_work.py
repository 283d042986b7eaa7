"""What is done in the background: by workers of the release that queued it, through kills, canaries and reverts."""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from support.deploys import committed, options, serving, shares, started, under_way, until
from support.fleet import Fleet

AGENTS = ("agent1", "agent2")
# Of one call of the model: long enough that jobs wait for each other, and still do when a slot is to be stopped.
SLOW = 4.0


@pytest.fixture
def slow(model_server: httpx.Client) -> Iterator[None]:
    model_server.post("/_control", json={"latency_seconds": SLOW}).raise_for_status()
    yield
    model_server.post("/_control", json={"reset": True}).raise_for_status()


def analyse(client: httpx.Client, count: int) -> list[str]:
    answers = []
    for number in range(count):
        # A client that is sent back to where it was would be one release's alone.
        client.cookies.clear()
        answers.append(client.post("/api/analyze", json={"text": f"In March {number} units were sold."}))
    assert {answer.status_code for answer in answers} == {202}, [answer.text for answer in answers]
    return [answer.json()["task_id"] for answer in answers]


def finished(client: httpx.Client, tasks: list[str], seconds: float = 120) -> None:
    """Wait until all are done; one that has failed is told at once."""
    left = set(tasks)

    def over() -> bool:
        for task in sorted(left):
            status = client.get(f"/api/status/{task}").json()
            assert status["state"] != "failed", status
            if status["state"] == "done":
                left.discard(task)
        return not left

    until(over, "the end of all analyses", seconds)


def jobs(fleet: Fleet, since: float) -> list[dict[str, Any]]:
    """What the workers of all agents say that they did since then."""
    found = []
    for host in AGENTS:
        lines = fleet.on(host, f"journalctl -o cat --since=@{since:.0f} -u 'agent-worker@*'").ok().stdout.splitlines()
        said = [json.loads(line) for line in lines if line.startswith("{")]
        found += [{**line, "host": host} for line in said if line.get("event") == "job"]
    return found


def finished_events(fleet: Fleet, tasks: list[str]) -> Counter[str]:
    names = ", ".join(f"'{task}'" for task in tasks)
    query = f"SELECT subject FROM events WHERE type = 'analysis.finished' AND subject IN ({names})"
    return Counter(fleet.sql(query).split())


def test_documents_are_analysed_by_a_worker(fleet: Fleet, client: httpx.Client) -> None:
    since = time.time()
    rows = "".join(f"2026-03-{day % 28 + 1:02d},{day}\n" for day in range(200_000))
    files = {"file": ("sales.csv", f"day,units\n{rows[:150_000]}", "text/csv")}
    answer = client.post("/api/analyze", files=files, data={"question": "Which day was best?"})
    assert answer.status_code == 202, answer.text
    finished(client, [answer.json()["task_id"]])
    assert [job["release"] for job in jobs(fleet, since) if job["outcome"] == "done"] == [serving(fleet)]
    # A body that the service takes is not refused on its way to it.
    large = client.post("/api/analyze", files={"file": ("big.csv", "a,b\n" * 2_700_000, "text/csv")})
    assert large.status_code == 413, large.text
    assert large.json()["type"] != "about:blank", "the service's own refusal, not the edge's"


def test_a_killed_worker_loses_no_job_and_does_none_twice(fleet: Fleet, client: httpx.Client, slow: None) -> None:
    tasks = analyse(client, 12)
    until(lambda: fleet.sql("SELECT count(*) > 0 FROM procrastinate_jobs WHERE status = 'doing'") == "t", "a job")
    for host in AGENTS:
        fleet.on(host, "systemctl kill --signal=KILL 'agent-worker@*'").ok()
    finished(client, tasks)
    assert finished_events(fleet, tasks) == Counter(tasks)


def renamed(app: Path) -> None:
    """A release whose analyses no other one knows."""
    path = app / "src/agent_service/work/analysis.py"
    text = path.read_text()
    assert 'TASK = "analyze"' in text
    path.write_text(text.replace('TASK = "analyze"', 'TASK = "analyze_anew"'))


def unchanged(app: Path) -> None:
    path = app / "src/agent_service/work/analysis.py"
    path.write_text(path.read_text() + "\n# Another release.\n")


@pytest.mark.parametrize(
    ("change", "known"), [(unchanged, True), pytest.param(renamed, False, marks=pytest.mark.soak)], ids=["known", "new"]
)
def test_a_reverted_canarys_jobs_are_done_once_by_code_that_knows_them(
    fleet: Fleet,
    client: httpx.Client,
    stable: str,
    slow: None,
    tmp_path: Path,
    change: Callable[[Path], None],
    known: bool,
) -> None:
    since = time.time()
    app = committed(fleet, tmp_path / "clone", change)
    run = started(fleet, *options(app, "canary", 120, strategy="canary", steps="50,100"))
    until(under_way(fleet, "baking", 0.5), "the canary", 240)
    tasks = analyse(client, 80)
    fleet.on("edge1", "agentfleet-director abort agent").ok()
    output = run.communicate()[0]
    assert run.returncode != 0, output
    assert shares(fleet) == {stable: 1.0}
    finished(client, tasks)
    done = [job for job in jobs(fleet, since) if job["outcome"] == "done"]
    assert finished_events(fleet, tasks) == Counter(tasks)
    assert len(done) == len(tasks)
    by = Counter(job["release"] for job in done)
    canary = next(release for release in by if release.startswith("canary-"))
    assert set(by) == {canary, stable}
    said = [fleet.on(host, f"journalctl -o cat --since=@{since:.0f} -u 'agent-stop-*'").stdout for host in AGENTS]
    # All of the above is also so where the canary's workers were done before anybody asked for their jobs.
    if known:
        moved = re.compile(rf"[1-9]\d* jobs and \d+ events of {re.escape(canary)} are {re.escape(stable)}'s now")
        assert any(moved.search(text) for text in said), said
    else:
        assert any("its worker has more to do" in text for text in said), said
        assert {job["release"] for job in done if job["task"] == "analyze_anew"} == {canary}

    def stopped() -> bool:
        units = "systemctl list-units --plain --no-legend --state=active 'agent-worker@*'"
        return all(len(fleet.on(host, units).ok().stdout.splitlines()) == 1 for host in AGENTS)

    until(stopped, "the end of the canary's workers")
