"""What is removed in time, and what stays."""

import asyncio
from typing import Any

from service import KEY
from work import Site, finished, message

from agent_service.core.settings import Settings
from agent_service.memory.database import create_pool
from agent_service.work.retention import clean


def age(site: Site, days: int) -> None:
    for table, columns in {
        "analyses": ["created_at", "finished_at"], "inbound_messages": ["received_at"], "outbox": ["sent_at"],
        "events": ["at", "dispatched_at"], "job_keys": ["queued_at", "done_at"],
    }.items():  # fmt: skip
        changes = ", ".join(f"{column} = {column} - interval '{days} days'" for column in columns)
        site.rows(f"UPDATE {table} SET {changes}")


def counts(site: Site) -> dict[str, int]:
    tables = ("analyses", "inbound_messages", "outbox", "events", "job_keys", "procrastinate_jobs")
    return {table: site.count(table) for table in tables}


def test_uploads_go_first_then_all_that_is_finished_and_nothing_that_is_not(site: Site) -> None:
    api = site.api("r1")
    worker = site.worker("r1").wait()
    task_id = api.post("/api/analyze", json={"text": "Old"}).json()["task_id"]
    finished(api, task_id)
    worker.stop()
    assert api.post("/webhook/uaz", json=message("Waiting")).status_code == 200
    waiting = api.post("/api/analyze", json={"text": "Waiting"}).json()["task_id"]
    site.rows("UPDATE events SET dispatched_at = now() WHERE subject = %s", [task_id])

    def run(**changes: Any) -> None:
        settings = Settings(_env_file=None, api_key=KEY, **{**site.settings, **changes})

        async def once() -> None:
            async with create_pool(settings) as pool:
                await clean(pool, settings)

        asyncio.run(once())

    run()
    assert site.count("analysis_documents WHERE content IS NULL") == 0
    age(site, 8)
    run()
    assert site.rows("SELECT count(*) FROM analysis_documents WHERE content IS NULL") == [(1,)]
    assert api.get(f"/api/status/{task_id}").json()["state"] == "done"
    age(site, 90)
    run()
    # What waits stays however old it is: the message, the second task, and their events.
    assert counts(site) == {
        "analyses": 1, "inbound_messages": 1, "outbox": 0, "events": 2, "job_keys": 2, "procrastinate_jobs": 2,
    }  # fmt: skip
    assert api.get(f"/api/status/{task_id}").status_code == 404
    site.worker("r1").wait()
    assert finished(api, waiting)["state"] == "done"
