"""One trace from a request to the job that it leaves behind, at a real receiver, and no word of anybody in it."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from collector import Collector, lines
from conftest import Run
from servers import PASSWORD, Model, Postgres, wait_for
from service import KEY, ProcessService, Worker, migrate
from work import SECRET, TOKEN, Receiver, Site, finished, message

PRIVATE = "xylophone"
SERVER, CLIENT, CONSUMER, INTERNAL = 2, 3, 5, 1
HEADERS = "x-collector-key=a-key-of-the-collector"


def traceparent() -> tuple[str, dict[str, str]]:
    trace_id = uuid.uuid4().hex
    return trace_id, {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    server = Collector()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def site(
    postgres: Postgres, model_server: Model, model_settings: dict[str, Any], collector: Collector, receiver: Receiver,
    run: Run, tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:  # fmt: skip
    """One service process and one worker for all of this file; their logs are files."""
    postgres.create_database("traced")
    _, errors = (process := migrate(postgres.port, "traced")).communicate(timeout=60)
    assert process.returncode == 0, errors
    settings = {
        **model_settings,
        "database_name": "traced",
        "database_user": "traced",
        "queue": True,
        "uaz_webhook_secret": SECRET,
        "uaz_url": receiver.url,
        "uaz_token": TOKEN,
        "crm_url": receiver.url,
        "trace_endpoint": collector.url,
        "trace_headers": HEADERS,
        "log_spans": True,
        "job_attempts": 1,
    }
    made = Site(postgres, "traced", model_server, receiver, tmp_path_factory.mktemp("traced"), settings, run)
    yield made
    made.stop()


@pytest.fixture(scope="module")
def environment(site: Site) -> dict[str, str]:
    # Quickly to the collector, as its documentation says.
    return {**site.environment("traced"), "OTEL_BSP_SCHEDULE_DELAY": "100"}


@pytest.fixture(scope="module")
def api(site: Site, environment: dict[str, str]) -> Iterator[ProcessService]:
    service = ProcessService(site.directory / "api.log", **environment)
    service.wait(120)
    yield service
    service.stop()


@pytest.fixture(scope="module")
def worker(site: Site, environment: dict[str, str]) -> Worker:
    worker = Worker(site.directory / "worker.log", **environment)
    site.workers.append(worker)
    return worker.wait()


def test_turn_is_one_tree(api: ProcessService, collector: Collector, model: Model) -> None:
    trace_id, headers = traceparent()
    asked = {"message": f"What is our profit margin? {PRIVATE}", "session_id": "s1", "user_id": "ana"}
    arguments = {"revenue": 100, "cost": 60}
    model.control(tool_call={"name": "margin", "arguments": arguments}, answer="Done.")
    answered = api.client.post("/api/chat", json=asked, headers={**headers, "X-Request-Id": "r1"})
    assert answered.status_code == 200
    usage = answered.json()["usage"]
    root = collector.tree(trace_id, "POST /api/chat", "execute_tool margin", "store turn")
    assert (root.kind, root.parent_id) == (SERVER, "00f067aa0ba902b7")
    assert root.attributes == {
        "http.request.method": "POST",
        "http.route": "/api/chat",
        "http.response.status_code": 200,
        "agent.request_id": "r1",
    }
    assert root.resource["service.name"] == "agent"
    assert root.resource["service.version"] == "traced"
    [turn] = root.children
    assert (turn.name, turn.kind) == ("invoke_agent financial", INTERNAL)
    assert turn.attributes["gen_ai.conversation.id"] == "s1"
    assert turn.attributes["gen_ai.usage.input_tokens"] == usage["input_tokens"]
    parts = [child.name for child in turn.children]
    assert parts.count("chat deepseek-v4-flash") == 2
    assert {"load history", "route", "execute_tool margin", "store turn"} <= set(parts)
    call = turn.find("chat deepseek-v4-flash")
    assert call.kind == CLIENT
    expected = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "deepseek",
        "gen_ai.request.model": "deepseek-v4-flash",
        "gen_ai.response.model": "deepseek-v4-flash",
        "gen_ai.agent.name": "financial",
    }
    assert expected.items() <= call.attributes.items()
    tokens = [
        sum(one.attributes[f"gen_ai.usage.{side}_tokens"] for one in turn.children if one.name == call.name)
        for side in ("input", "output")
    ]
    assert tokens == [usage["input_tokens"], usage["output_tokens"]]
    assert turn.find("route").attributes == {"agent.route.by": "rules", "gen_ai.agent.name": "financial"}
    assert turn.find("execute_tool margin").attributes["gen_ai.operation.name"] == "execute_tool"
    assert turn.find("store turn").attributes == {"db.system.name": "postgresql"}
    assert collector.received[0].headers["x-collector-key"] == "a-key-of-the-collector"


def test_stream_and_failure_are_trees_too(api: ProcessService, collector: Collector, model: Model) -> None:
    trace_id, headers = traceparent()
    answered = api.client.get("/chat/stream", params={"message": f"What is our margin? {PRIVATE}"}, headers=headers)
    assert answered.status_code == 200
    root = collector.tree(trace_id, "GET /chat/stream")
    assert root.find("chat deepseek-v4-flash").attributes["gen_ai.response.time_to_first_chunk"] > 0
    trace_id, headers = traceparent()
    model.control(fail_next=1, status=400)
    body = {"message": f"What is our margin? {PRIVATE}"}
    assert api.client.post("/api/chat", json=body, headers=headers).status_code == 502
    root = collector.tree(trace_id, "POST /api/chat")
    for name in ("POST /api/chat", "invoke_agent financial", "chat deepseek-v4-flash"):
        assert root.find(name).failed
        assert root.find(name).attributes["error.type"] == "model-refused"


def test_job_belongs_to_the_request_that_queued_it(
    api: ProcessService, worker: Worker, collector: Collector, model: Model, receiver: Receiver
) -> None:
    trace_id, headers = traceparent()
    body = {"text": f"Revenue was 7. {PRIVATE}", "user_id": "ana"}
    accepted = api.client.post("/api/analyze", json=body, headers={**headers, "X-Request-Id": "r-job"})
    task_id = accepted.json()["task_id"]
    assert finished(api.client, task_id, user_id="ana")["state"] == "done"
    note = "process consume:crm_notes"
    root = collector.tree(trace_id, "POST /api/analyze", "process analyze", "finish job", note, "send crm_note")
    assert root.find("accept analysis").attributes == {"db.system.name": "postgresql"}
    job = root.find("process analyze")
    assert job.kind == CONSUMER
    assert job.resource["agent.process"] == "worker"
    assert job.attributes["messaging.system"] == "procrastinate"
    assert job.attributes["agent.job.outcome"] == "done"
    assert job.find("chat deepseek-v4-flash").attributes["gen_ai.agent.name"] == "analyst"
    # What the job leaves behind follows from it, to where it is sent.
    assert job.find(note).find("send crm_note").kind == CLIENT
    [sent] = [one for one in receiver.posts() if trace_id in one["headers"].get("traceparent", "")]
    assert sent["path"] == "/notes"
    wait_for(lambda: '"event": "job"' in worker.log(), 10, "the job's line")
    line = next(line for line in lines(worker.log()) if line["event"] == "job" and line["task"] == "analyze")
    assert (line["request_id"], line["trace_id"]) == ("r-job", trace_id)


def test_message_that_came_in_is_answered_in_its_trace(
    api: ProcessService, worker: Worker, collector: Collector, model: Model, receiver: Receiver
) -> None:
    trace_id, headers = traceparent()
    taken = api.client.post("/webhook/uaz", json=message(f"What is our margin? {PRIVATE}"), headers=headers)
    assert taken.json() == {"status": "accepted"}
    root = collector.tree(trace_id, "POST /webhook/uaz", "process answer_message", "store turn")
    assert root.find("process answer_message").find("invoke_agent financial").children


def test_failed_job_names_its_request(api: ProcessService, worker: Worker, collector: Collector, model: Model) -> None:
    model.control(fail_next=1, status=400)
    trace_id, headers = traceparent()
    body = {"text": f"Revenue was 8. {PRIVATE}", "session_id": "s2"}
    task_id = api.client.post("/api/analyze", json=body, headers={**headers, "X-Request-Id": "r-bad"}).json()["task_id"]
    assert finished(api.client, task_id)["state"] == "failed"
    root = collector.tree(trace_id, "POST /api/analyze", "process analyze")
    assert root.find("process analyze").failed
    wait_for(lambda: "r-bad" in worker.log(), 10, "the job's lines")
    told = [line for line in lines(worker.log()) if line.get("request_id") == "r-bad"]
    assert {"model_failed", "job_failed", "job"} <= {line["event"] for line in told}


def test_tree_is_read_from_the_log(api: ProcessService, model: Model) -> None:
    trace_id, headers = traceparent()
    assert api.client.post("/api/chat", json={"message": "Hi"}, headers=headers).status_code == 200

    def spans() -> dict[str, dict[str, Any]]:
        found = [line for line in lines(api.log()) if line["event"] == "span" and line["trace_id"] == trace_id]
        return {line["name"]: line for line in found}

    wait_for(lambda: "POST /api/chat" in spans(), 10, "the line of the request's span")
    found = spans()
    turn = next(line for name, line in found.items() if name.startswith("invoke_agent"))
    assert turn["parent_id"] == found["POST /api/chat"]["span_id"]
    assert found["load history"]["parent_id"] == turn["span_id"]
    request = next(one for one in lines(api.log()) if (one["event"], one.get("trace_id")) == ("request", trace_id))
    assert request["span_id"] == found["POST /api/chat"]["span_id"]
    assert request["session_id"]


def test_nothing_holds_a_text_or_a_secret(
    api: ProcessService, worker: Worker, collector: Collector, model: Model
) -> None:
    """After all that was said above."""
    told = [collector.bytes().decode(errors="replace"), api.log(), worker.log()]
    assert all(len(text) > 1000 for text in told)
    for secret in (PRIVATE, KEY, PASSWORD, model.key, TOKEN, SECRET, HEADERS.split("=")[1]):
        assert not any(secret in text for text in told), secret
