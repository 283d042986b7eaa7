"""What is measured and traced by setting: shares, texts that are asked for, and a collector that is away."""

import signal
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from collector import Collector
from conftest import Run
from servers import PASSWORD, Model, Postgres, Redis, wait_for
from service import Client, ProcessService, database_environment

SURE = "What is our profit margin?"


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
    server = Collector()
    yield server
    server.stop()


def test_call_is_measured(client: Client, model: Model) -> None:
    names = (
        "agent_context_window_ratio_count",
        "agent_model_first_token_seconds_count",
        "agent_retrieval_seconds_count",
    )
    before = [client.metric(name) for name in names]
    share = client.metric("agent_context_window_ratio_sum")
    usage = client.events(SURE)[-1].data["usage"]
    assert [client.metric(name) for name in names] == [count + 1 for count in before]
    # DeepSeek's window is a million tokens.
    assert client.metric("agent_context_window_ratio_sum") - share == pytest.approx(usage["input_tokens"] / 1e6)


def test_texts_are_traced_where_they_are_asked_for(
    run_briefly: Run, model_settings: dict[str, Any], model: Model, collector: Collector
) -> None:
    client = run_briefly({**model_settings, "trace_endpoint": collector.url, "telemetry_texts": True}).client
    trace_id = uuid.uuid4().hex
    client.post("/api/chat", json={"message": SURE}, headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
    call = collector.tree(trace_id, "POST /api/chat").find("chat deepseek-v4-flash").attributes
    assert SURE in call["gen_ai.input.messages"]
    assert f"You said: {SURE}" in call["gen_ai.output.messages"]


def test_whoever_sends_a_trace_decides_whether_it_is_kept(
    run_briefly: Run, model_settings: dict[str, Any], model: Model, collector: Collector
) -> None:
    settings = {**model_settings, "trace_endpoint": collector.url, "trace_ratio": 0}
    client = run_briefly(settings).client
    kept, left = uuid.uuid4().hex, uuid.uuid4().hex
    for headers in ({"traceparent": f"00-{left}-00f067aa0ba902b7-00"}, {}, {"traceparent": "00-nonsense"},
                    {"traceparent": f"00-{kept}-00f067aa0ba902b7-01"}):  # fmt: skip
        assert client.post("/api/chat", json={"message": SURE}, headers=headers).status_code == 200
    collector.tree(kept, "POST /api/chat")
    assert {span.trace_id for span in collector.spans()} == {kept}


def test_collector_that_refuses_costs_spans_alone(
    run_briefly: Run, model_settings: dict[str, Any], model: Model, collector: Collector
) -> None:
    collector.status = 400
    client = run_briefly({**model_settings, "trace_endpoint": collector.url}).client
    assert client.chat(SURE).status_code == 200
    wait_for(lambda: client.metric("agent_spans_lost_total") > 0, 20, "lost spans")
    assert client.chat(SURE).status_code == 200


def test_collector_that_hangs_keeps_nobody(
    postgres: Postgres, redis: Redis, database: str, collector: Collector, tmp_path: Path
) -> None:
    """The address is the standard variable's; of nothing that is configured the log tells a secret."""
    collector.gate.clear()
    service = ProcessService(
        tmp_path / "log",
        **database_environment(postgres.port, database),
        AGENT_REDIS_PORT=str(redis.port),
        AGENT_REDIS_PASSWORD=PASSWORD,
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_EXPORTER_OTLP_HEADERS="x-collector-key=a-key-of-the-collector",
    )
    service.wait(120)
    for _ in range(3):
        assert service.client.chat(SURE).status_code == 200
    wait_for(lambda: bool(collector.received), 20, "the export that hangs")
    # The export still hangs when the process has ended.
    assert service.stop() in (0, -signal.SIGTERM)
    assert not collector.gate.is_set()
    assert "a-key-of-the-collector" not in service.log()
