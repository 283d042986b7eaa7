import json
import uuid
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from access import GUARD, SMALL, bearer
from servers import Postgres, wait_for
from service import Client, LocalService
from test_documents import pdf
from work import Site, finished


@pytest.fixture(scope="module")
def queued(run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any]) -> Client:
    return run({**model_settings, "queue": True, "release": "nobody-works-for"}).client


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


def test_uploads_of_all_kinds_in_one_batch_with_bounded_concurrency(site: Site) -> None:
    api = site.api("r1")
    site.model.control(latency_seconds=0.3)
    long = ("A line of the long report.\n" * 100).encode()
    files = [
        ("file", ("report.txt", long, "text/plain")),
        ("file", ("table.csv", b"a;b\n1;2\n", "text/csv")),
        ("file", ("facts.pdf", pdf("Profit 3"), "application/pdf")),
        ("file", ("facts.pdf", pdf("Profit 4"), "application/pdf")),
    ]
    fields = {"question": "What is it about?", "user_id": "ana", "session_id": "s1"}
    response = api.post("/api/analyze", files=files, data=fields)
    assert response.status_code == 202, response.text
    site.worker("r1", analyze_chunk_characters=1000, analyze_concurrency=2, model_timeout_seconds=20).wait()
    done = finished(api, response.json()["task_id"], 60, user_id="ana")
    assert done["state"] == "done", done
    assert [document["name"] for document in done["result"]["documents"]] == [
        "report.txt", "table.csv", "facts.pdf", "facts.pdf (4)",
    ]  # fmt: skip
    requests = site.model.requests()
    asked = [text for request in requests for text in [request["body"]["messages"][-1]["content"]]]
    assert sum(text.startswith("What is it about?\n\n<document name='report.txt'>") for text in asked) == 3
    assert all("What is it about?" in text for text in asked)
    times = sorted(request["time"] for request in requests)
    # Never three at once: the third begins when one of the two before it has ended.
    assert all(later - earlier >= 0.29 for earlier, later in zip(times, times[2:], strict=False))


def test_what_cannot_be_read_fails_with_its_reason(site: Site) -> None:
    api = site.api("r1")
    site.worker("r1").wait()
    task_id = api.post("/api/analyze", files={"file": ("scan.pdf", pdf(""))}).json()["task_id"]
    assert finished(api, task_id)["problem"]["code"] == "document-without-text"
    body = {"text": "x" * 2000, "question": "?"}
    site.worker("r2", analyze_max_characters=100).wait()
    task_id = site.api("r2").post("/api/analyze", json=body).json()["task_id"]
    assert finished(api, task_id)["problem"]["code"] == "document-too-long"


def test_the_same_key_is_the_same_task(site: Site) -> None:
    api = site.api("r1")

    def post(user: str) -> str:
        response = api.post("/api/analyze", json={"text": "x", "user_id": user}, headers={"Idempotency-Key": "k1"})
        assert response.status_code == 202, response.text
        return str(response.json()["task_id"])

    assert post("ana") == post("ana") != post("bia")
    assert site.count("procrastinate_jobs") == site.count("analysis_documents") == site.count("events") == 2


@pytest.mark.parametrize(
    ("body", "status", "reason"),
    [
        ({}, 422, "needs one of"),
        ({"text": "a", "url": "https://a.test"}, 422, "needs one of"),
        ({"text": ""}, 422, "is empty"),
        ({"text": "a\x00"}, 422, "U+0000"),
        ({"documents": []}, 422, "documents"),
        ({"documents": [{}]}, 422, "text or url"),
        ({"documents": [{"text": "a"}] * 21}, 422, "20 documents"),
        ({"text": "a", "more": 1}, 422, "not known"),
        ({"url": "https://a.test/x"}, 422, "fetches no URLs"),
        ([], 422, ""),
    ],
)
def test_bad_requests(queued: Client, body: object, status: int, reason: str) -> None:
    response = queued.post("/api/analyze", content=json.dumps(body))
    assert response.status_code == status, response.text
    assert reason in response.json()["detail"]


def test_bad_forms_and_sizes(queued: Client) -> None:
    boundary = {"Content-Type": "multipart/form-data; boundary=x"}
    for content, headers in ((b"nothing", boundary), (b"", {"Content-Type": "multipart/form-data"}), (b"{", {})):
        assert queued.post("/api/analyze", content=content, headers=headers).status_code == 400
    text = ("a.txt", b"x")
    assert queued.post("/api/analyze", files={"file": ("a.exe", b"x")}).status_code == 415
    assert queued.post("/api/analyze", files={"other": (None, "x")}).status_code == 422
    assert queued.post("/api/analyze", files={"file": text}, data={"unknown": "x"}).status_code == 422
    assert queued.post("/api/analyze", files=[("file", text)] * 21).status_code == 400
    assert queued.post("/api/analyze", files={"file": ("a.txt", b"x" * 11 * 1024 * 1024)}).status_code == 413
    # Other routes take no more than they did.
    assert queued.chat("x" * 300_000).status_code == 413


def test_what_an_analysis_costs_and_for_whom_is_on_record(site: Site) -> None:
    api = site.api("r1")
    site.worker("r1").wait()
    body = {"text": "Revenue was 12.", "user_id": "ana", "session_id": "s1"}
    response = api.post("/api/analyze", json=body)
    usage = finished(api, response.json()["task_id"], user_id="ana")["result"]["usage"]
    columns = "agent, model, outcome, request_id, session_id, user_id, output_tokens, cost_usd::text"
    wait_for(lambda: site.count("model_calls") == 1, 10, "the call's row")
    request_id = response.headers["x-request-id"]
    assert site.rows(f"SELECT {columns} FROM model_calls") == [
        ("analyst", "deepseek-v4-flash", "ok", request_id, "s1", "ana", usage["output_tokens"], usage["cost_usd"])
    ]
    wait_for(lambda: site.count("audit WHERE action = 'JOB analyze'") == 1, 10, "the audit row")
    query = "SELECT user_id, status, request_id, actor FROM audit WHERE action = 'JOB analyze'"
    assert site.rows(query) == [("ana", 200, request_id, None)]


def test_model_that_fails_for_a_while_delays_an_analysis(site: Site) -> None:
    api = site.api("r1")
    site.model.control(fail_next=3, status=500)
    task_id = api.post("/api/analyze", json={"text": "Revenue was 12."}).json()["task_id"]
    site.worker("r1").wait()
    assert finished(api, task_id)["state"] == "done"
    # The call is repeated, then the job; what was asked in vain is on record too.
    wait_for(lambda: site.count("model_calls") == 4, 10, "the calls' rows")
    assert [row for (row,) in site.rows("SELECT outcome FROM model_calls ORDER BY id")] == ["model-failed"] * 3 + ["ok"]


def test_analyses_count_as_requests_of_the_tier(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any]
) -> None:
    settings = {**model_settings, **GUARD, "queue": True, "release": "nobody-works-for", "name": uuid.uuid4().hex}
    client = run(settings).client
    post = partial(client.post, "/api/analyze", headers=bearer(SMALL))
    # What is refused is not counted.
    assert post(json={"text": "x", "question": "why " * 100}).status_code == 413
    assert post(json={"text": ""}).status_code == 422
    answers = [post(json={"text": "A long document. " * 100}) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [202] * 3 + [429]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["2", "1", "0", "0"]


def test_each_document_of_an_analysis_counts(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], postgres: Postgres, database: str
) -> None:
    """The tier allows three a day: what does not fit is refused whole, before any of it is kept."""
    settings = {**model_settings, **GUARD, "queue": True, "release": "nobody-works-for", "name": uuid.uuid4().hex}
    post = partial(run(settings).client.post, "/api/analyze", headers=bearer(SMALL))
    kept = postgres.execute("SELECT count(*) FROM analyses", database)
    for several in ({"json": {"documents": [{"text": "One"}] * 4}}, {"files": [("file", ("a.txt", b"One"))] * 4}):
        refused = post(**several)
        assert (refused.status_code, refused.headers["ratelimit-remaining"]) == (429, "3")
    assert postgres.execute("SELECT count(*) FROM analyses", database) == kept
    answers = [post(json={"documents": [{"text": "One"}] * count}) for count in (2, 2, 1)]
    assert [answer.status_code for answer in answers] == [202, 429, 202]
    assert [answer.headers["ratelimit-remaining"] for answer in answers] == ["1", "1", "0"]
