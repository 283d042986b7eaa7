import uuid

from work import Site, finished


def test_a_text_is_taken_at_once_and_analysed_by_the_worker(site: Site) -> None:
    api = site.api("r1")
    response = api.post("/api/analyze", json={"text": "Revenue was 12.", "question": "How much?", "user_id": "ana"})
    assert response.status_code == 202, response.text
    task_id = response.json()["task_id"]
    waiting = api.get(f"/api/status/{task_id}", params={"user_id": "ana"}).json()
    assert (waiting["state"], waiting["progress"], waiting["result"]) == ("queued", 0, None)
    site.worker("r1").wait()
    done = finished(api, task_id, user_id="ana")
    assert done["state"] == "done", done
    assert "Revenue was 12." in done["result"]["summary"]
    assert done["result"]["usage"]["output_tokens"] > 0
    assert done["progress"] == 1
    assert [kind for (kind,) in site.rows("SELECT type FROM events ORDER BY id")] == [
        "document.uploaded",
        "analysis.finished",
    ]


def test_a_task_of_another_user_is_not_there(site: Site) -> None:
    api = site.api("r1")
    task_id = api.post("/api/analyze", json={"text": "Secret", "user_id": "ana"}).json()["task_id"]
    for query in ({}, {"user_id": "bia"}):
        assert api.get(f"/api/status/{task_id}", params=query).status_code == 404
    assert api.get(f"/api/status/{uuid.uuid4()}", params={"user_id": "ana"}).status_code == 404
    assert api.get("/api/status/none").status_code == 422
