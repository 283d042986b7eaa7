"""The disk under PostgreSQL's data is full: what is answered, and that nothing acknowledged is lost or done twice."""

import contextlib
import os
import subprocess
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import DATABASE
from servers import Postgres, accepts, wait_for
from service import migrate
from work import Site, finished, message

pytestmark = [
    pytest.mark.soak,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: a file is mounted as the disk"),
]

DISK_MEGABYTES = 256


@pytest.fixture
def disk(directory: Path) -> Iterator[Path]:
    image, mounted = directory / f"disk-{uuid.uuid4().hex}", directory / f"mounted-{uuid.uuid4().hex}"
    mounted.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_MEGABYTES << 20)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, mounted], check=True)
    yield mounted
    subprocess.run(["umount", mounted], check=True)


@pytest.fixture
def small(disk: Path) -> Iterator[Postgres]:
    (disk / "postgres").mkdir()
    disk.chmod(0o755)
    server = Postgres(disk / "postgres")
    server.create_database(DATABASE)
    process = migrate(server.port, DATABASE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    yield server
    with contextlib.suppress(RuntimeError):
        server.stop()


@pytest.fixture
def full(site: Site, small: Postgres) -> Site:
    """The usual site, on the database of the small disk."""
    settings = {**site.settings, "database_port": small.port, "database_name": DATABASE, "database_user": DATABASE}
    return replace(site, postgres=small, database=DATABASE, settings=settings, workers=site.workers)


def fill(disk: Path) -> Path:
    """To the last byte, as logs or a backup would."""
    filler = disk / "filler"
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(b"\0" * 65_536)
    with contextlib.suppress(OSError), filler.open("ab", buffering=0) as file:
        while True:
            file.write(b"\0")
    return filler


def test_nothing_acknowledged_is_lost_or_done_twice(full: Site, disk: Path) -> None:
    api = full.api("r1", worker_stop_seconds=1)
    full.worker("r1").wait()
    turns: list[str] = []
    tasks: list[str] = []
    received = 0
    refusals = []

    def work(round: int) -> None:
        nonlocal received
        session = f"full-{uuid.uuid4()}"
        turn = api.chat(f"Message {round} " + "x" * 8_000, session_id=session)
        if turn.status_code == 200:
            turns.append(session)
        # What no compression makes small.
        task = api.post("/api/analyze", json={"text": os.urandom(60_000).hex(), "question": "What is it?"})
        if task.status_code == 202:
            tasks.append(task.json()["task_id"])
        heard = api.post("/webhook/uaz", json=message(f"Message {round}", chat=f"55119{round:07}"))
        if heard.status_code == 200:
            received += 1
        refusals.extend(answer for answer in (turn, task, heard) if answer.status_code not in (200, 202))

    for round in range(3):
        work(round)
    assert refusals == []
    filler = fill(disk)
    for round in range(3, 400):
        work(round)
        if len(refusals) >= 6:
            break
    assert {(refused.status_code, refused.json()["type"]) for refused in refusals} == {
        (503, "urn:agent:problem:database-unavailable")
    }
    assert all(refused.headers["content-type"] == "application/problem+json" for refused in refusals)
    assert api.get("/health").status_code == 200

    filler.unlink()

    def ready() -> bool:
        # PostgreSQL ends where it cannot even write its log; what starts it again is its unit, as an operator's hand.
        if not accepts(full.postgres.port):
            with contextlib.suppress(RuntimeError):
                full.postgres.start()
        return api.get("/ready").status_code == 200 and api.chat("Hi").status_code == 200

    wait_for(ready, 20, "recovery")
    assert len(turns) >= 3
    for session in turns:
        rows = full.rows("SELECT count(*) FROM messages WHERE conversation_id = %s", [session])
        assert rows == [(2,)], session
    for task in tasks:
        assert finished(api, task, 120)["state"] == "done"
    assert full.count("events WHERE type = 'analysis.finished'") == len(tasks)
    wait_for(lambda: full.count("outbox WHERE state = 'sent'") >= received, 120, "all answers")
    texts = [sent["body"]["text"] for sent in full.receiver.posts()]
    assert len(texts) == len(set(texts)) == received == full.count("inbound_messages")
