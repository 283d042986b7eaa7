"""Fallbacks, retries, the breaker and the last resort, as clients of the service see them."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from servers import PASSWORD, Model, Postgres, Redis, wait_for
from service import Client, LocalService

Run = Callable[[dict[str, Any]], LocalService]
Stored = Callable[[str], list[tuple[int, str, str]]]
Calls = Callable[[str], list[tuple[str, str]]]

CAUSES = {
    "hanging": {"latency_seconds": 60},
    "429": {"fail_next": 1_000_000, "status": 429},
    "500": {"fail_next": 1_000_000, "status": 500},
    "garbage": {"garbage": True},
    "half a stream": {"cut_after_tokens": 2},
}
ANSWERS = {
    "hanging": (504, "model-timeout"),
    "429": (503, "model-busy"),
    "500": (502, "model-failed"),
    "garbage": (502, "model-failed"),
}


@pytest.fixture
def settings(model_settings: dict[str, Any]) -> dict[str, Any]:
    """A breaker of this test's own: it belongs to the release."""
    return {**model_settings, "release": f"r{uuid.uuid4().hex[:8]}", "breaker_failures": 3, "breaker_seconds": 2}


@pytest.fixture
def with_fallback(settings: dict[str, Any], other_model: Model) -> dict[str, Any]:
    other = {"openai_url": f"{other_model.url}/v1", "openai_key": other_model.key}
    return {**settings, **other, "model_fallbacks": "openai:gpt-5-mini"}


@pytest.fixture
def calls(postgres: Postgres, database: str) -> Calls:
    """The models that a session's calls went to, and their outcomes."""

    def rows(session_id: str) -> list[tuple[str, str]]:
        query = "SELECT model, outcome FROM model_calls WHERE session_id = %s ORDER BY called_at"
        return postgres.execute(query, database, [session_id])

    return rows


def code(response: httpx.Response) -> str:
    assert response.headers["x-agent-error-source"] == "model"
    return str(response.json()["type"]).removeprefix("urn:agent:problem:")


def breakers(client: Client) -> dict[str, str]:
    return {model["name"]: model["breaker"] for model in client.get("/ready").json()["checks"]["model"]["models"]}


@pytest.mark.parametrize("cause", ["429", "500", "garbage", "hanging"])
def test_fallback_answers_in_the_models_place(
    run_briefly: Run, with_fallback: dict[str, Any], model: Model, session_id: str, cause: str, calls: Calls
) -> None:
    client = run_briefly(with_fallback).client
    model.control(**CAUSES[cause])
    body = client.chat("Hi", session_id=session_id).json()
    assert (body["response"], body["model"], body["degraded"]) == ("(1) You said: Hi", "gpt-5-mini", False)
    assert client.metric("agent_model_fallbacks_total") == 1
    failed = (ANSWERS[cause][1], 1 if cause == "hanging" else 2)
    assert calls(session_id) == [("deepseek-v4-flash", failed[0])] * failed[1] + [("gpt-5-mini", "ok")]
    assert client.events("Hi again", session_id=session_id)[-1].data["model"] == "gpt-5-mini"


def test_problem_is_the_first_models_when_all_fail(
    run_briefly: Run, with_fallback: dict[str, Any], model: Model, other_model: Model
) -> None:
    client = run_briefly(with_fallback).client
    model.control(fail_next=10, status=429)
    other_model.control(fail_next=10, status=500)
    response = client.chat("Hi")
    assert (response.status_code, code(response)) == (503, "model-busy")


def test_half_a_stream_then_a_fallback_restarts_the_answer(
    run_briefly: Run, with_fallback: dict[str, Any], model: Model, session_id: str, stored: Stored
) -> None:
    client = run_briefly(with_fallback).client
    model.control(cut_after_tokens=2)
    events = client.events("Hello, this is long enough to be cut", session_id=session_id)
    names = [event.name for event in events]
    assert names[:3] == ["token", "token", "restart"]
    assert names[3:] == ["token"] * (len(names) - 4) + ["done"]
    answer = "(1) You said: Hello, this is long enough to be cut"
    assert "".join(event.data["token"] for event in events[3:-1]) == events[-1].data["response"] == answer
    assert stored(session_id)[1] == (2, "assistant", answer)
    # The model was not asked again after it had spoken.
    assert len(model.requests()) == 1


def test_stream_that_fails_before_a_token_is_repeated(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    client = run_briefly(settings).client
    model.control(fail_next=1, status=500)
    events = client.events("Hi")
    assert {event.name for event in events[:-1]} == {"token"}
    assert events[-1].data["response"] == "(1) You said: Hi"
    assert client.metric("agent_model_retries_total") == 1


def test_wait_that_nobody_waits_for_is_not_waited(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    client = run_briefly(settings).client
    model.control(fail_next=10, status=429, retry_after="60")
    response = client.chat("Hi")
    assert (code(response), response.headers["retry-after"]) == ("model-busy", "60")
    assert len(model.requests()) == 1


@pytest.mark.parametrize("cause", ANSWERS)
def test_breaker_opens_for_all_instances_and_recovers(
    run_briefly: Run, settings: dict[str, Any], model: Model, cause: str
) -> None:
    client, peer = run_briefly(settings).client, run_briefly(settings).client
    model.control(**CAUSES[cause])
    for number in range(3):
        response = (client, peer)[number % 2].chat("Hi")
        assert (response.status_code, code(response)) == ANSWERS[cause]
    asked = len(model.requests())
    wait_for(lambda: breakers(peer) == {"deepseek-v4-flash": "open"}, 5, "the peer's breaker")
    for instance in (client, peer):
        response = instance.chat("Hi")
        if code(response) != "model-resting":
            # The one try that was due.
            continue
        assert response.status_code == 503
        assert 1 <= int(response.headers["retry-after"]) <= 2
    assert len(model.requests()) <= asked + 2
    assert client.get("/ready").status_code == 200
    model.control(reset=True)
    for instance in (client, peer):
        wait_for(lambda instance=instance: instance.chat("Hi").status_code == 200, 20, "recovery")  # type: ignore[misc]
    wait_for(lambda: breakers(client) == breakers(peer) == {"deepseek-v4-flash": "closed"}, 5, "closed breakers")


def test_half_streams_open_the_breaker_too(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    client = run_briefly(settings).client
    model.control(**CAUSES["half a stream"])
    for _ in range(3):
        assert client.events("Hello, a message to cut")[-1].data["type"].startswith("urn:agent:problem:model-")
    response = client.post("/api/chat/stream", json={"message": "Hi"})
    assert code(response) == "model-resting"
    model.control(reset=True)
    wait_for(lambda: client.chat("Hi").status_code == 200, 20, "recovery")


def test_try_that_hangs_does_not_hold_up_the_next(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    """A try takes a minute by default; recovery must not wait for it."""
    client = run_briefly({**settings, "model_timeout_seconds": 6, "breaker_seconds": 1}).client
    model.control(fail_next=100, status=500)
    while code(client.chat("Hi")) != "model-resting":
        pass
    model.control(reset=True, latency_seconds=6)
    asked = len(model.requests())
    hanging = threading.Thread(target=client.chat, args=("Hi",))
    wait_for(lambda: breakers(client)["deepseek-v4-flash"] == "half-open", 5, "the next try")
    hanging.start()
    wait_for(lambda: len(model.requests()) == asked + 1, 5, "the try that hangs")
    model.control(reset=True)
    wait_for(lambda: client.chat("Hi").status_code == 200, 5, "recovery beside it")
    assert hanging.is_alive()
    hanging.join()
    assert breakers(client) == {"deepseek-v4-flash": "closed"}


def test_refusals_of_a_request_do_not_open_the_breaker(
    run_briefly: Run, settings: dict[str, Any], model: Model
) -> None:
    client = run_briefly(settings).client
    model.control(fail_next=5, status=400)
    assert {code(client.chat("Hi")) for _ in range(5)} == {"model-refused"}
    assert client.chat("Hi").status_code == 200


def test_breaker_of_another_release_is_its_own(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    bad = run_briefly({**settings, "release": "a-bad-one", "model_timeout_seconds": 0.05}).client
    good = run_briefly(settings).client
    model.control(latency_seconds=0.3)
    while code(bad.chat("Hi")) != "model-resting":
        pass
    assert good.chat("Hi").status_code == 200
    assert breakers(good) == {"deepseek-v4-flash": "closed"}


def test_breaker_works_in_the_process_while_redis_is_away(
    run_briefly: Run, settings: dict[str, Any], model: Model, redis: Redis
) -> None:
    client = run_briefly(settings).client
    model.control(fail_next=1_000_000, status=500)
    redis.stop()
    try:
        assert [code(client.chat("Hi")) for _ in range(4)] == ["model-failed"] * 3 + ["model-resting"]
        model.control(reset=True)
        wait_for(lambda: client.chat("Hi").status_code == 200, 20, "recovery")
    finally:
        redis.start()
    assert client.chat("Hi").status_code == 200


def test_open_breaker_hands_on_to_the_fallback_at_once(
    run_briefly: Run, with_fallback: dict[str, Any], model: Model
) -> None:
    client = run_briefly({**with_fallback, "breaker_seconds": 60}).client
    model.control(fail_next=1_000_000, status=500)
    assert {client.chat("Hi").json()["model"] for _ in range(3)} == {"gpt-5-mini"}
    asked = len(model.requests())
    assert client.chat("Hi").json()["model"] == "gpt-5-mini"
    assert len(model.requests()) == asked
    ready = client.get("/ready").json()
    assert ready["status"] == "degraded"
    assert ready["checks"]["model"]["models"] == [
        {"name": "deepseek-v4-flash", "tiers": "economy, standard, strong", "breaker": "open"},
        {"name": "gpt-5-mini", "tiers": "fallback", "breaker": "closed"},
    ]
    assert 'agent_breaker_state{model="deepseek:deepseek-v4-flash"} 2.0' in client.get("/metrics").text


def test_degraded_answer_is_a_choice(
    run_briefly: Run, settings: dict[str, Any], model: Model, session_id: str, stored: Stored, calls: Calls
) -> None:
    text = "Ninguém pode responder agora. 请稍后再试。"
    client = run_briefly({**settings, "degraded_answer": text}).client
    model.control(fail_next=1_000_000, status=400)
    response = client.chat("Hi", session_id=session_id)
    assert response.status_code == 200
    body = response.json()
    assert (body["response"], body["model"], body["degraded"]) == (text, "none", True)
    assert body["usage"] is None
    assert stored(session_id) == [(1, "user", "Hi"), (2, "assistant", text)]
    assert calls(session_id) == [("deepseek-v4-flash", "model-refused")]
    token, done = client.events("Hi")
    assert (token.data["token"], done.data["response"], done.data["degraded"]) == (text, text, True)
    assert client.metric("agent_degraded_answers_total") == 2
    model.control(reset=True, cut_after_tokens=2)
    *before, last, done = client.events("Hello, this is long enough to be cut")
    assert [event.name for event in before] == ["token", "token", "restart"]
    assert last.data["token"] == done.data["response"] == text


# For a specialist of the standard tier, by the rules alone.
SHORT, MANY = "Our cash position?", "Cash position? Liquidity? Cash flow?"


def test_tiers_are_models_of_their_own(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    tiers = {"model": "deepseek-v4-flash", "model_economy": "deepseek-flash", "model_strong": "deepseek-v4-pro"}
    client = run_briefly({**settings, **tiers, "model_tiering": True, "model_tier_maximum": "standard"}).client
    used = [client.chat(message).json()["model"] for message in (SHORT, "Our cash position in 2025?", MANY)]
    assert used == ["deepseek-flash", "deepseek-v4-flash", "deepseek-v4-flash"]
    free = run_briefly({**settings, **tiers, "model_tiering": True}).client
    assert free.chat(MANY).json()["model"] == "deepseek-v4-pro"
    plain = run_briefly({**settings, **tiers}).client
    assert plain.chat(MANY).json()["model"] == "deepseek-v4-flash"


def test_calls_of_a_turn_that_failed_are_kept(
    run_briefly: Run, settings: dict[str, Any], model: Model, session_id: str, calls: Calls, stored: Stored
) -> None:
    client = run_briefly(settings).client
    model.control(fail_next=10, status=500)
    client.chat("Hi", session_id=session_id)
    wait_for(lambda: calls(session_id) == [("deepseek-v4-flash", "model-failed")] * 2, 5, "rows of the failed calls")
    assert stored(session_id) == []
    model.control(reset=True, empty=True)
    client.chat("Hi", session_id=session_id)
    wait_for(lambda: calls(session_id)[2:] == [("deepseek-v4-flash", "model-empty")], 5, "the row of an empty answer")


def test_calls_are_stored_with_the_turn(
    run_briefly: Run, settings: dict[str, Any], model: Model, session_id: str, postgres: Postgres, database: str
) -> None:
    client = run_briefly(settings).client
    model.control(cached_tokens=3)
    answer = client.post(
        "/api/chat", json={"message": "Hi", "session_id": session_id, "user_id": "ana"}, headers={"X-Request-Id": "r-1"}
    ).json()
    query = """SELECT request_id, user_id, agent, model, outcome, input_tokens, output_tokens, cached_tokens, cost_usd
               FROM model_calls WHERE session_id = %s"""
    usage = answer["usage"]
    (row,) = postgres.execute(query, database, [session_id])
    assert row[:5] == ("r-1", "ana", "general", "deepseek-v4-flash", "ok")
    assert row[5:8] == (usage["input_tokens"], usage["output_tokens"], 3)
    assert f"{row[8]:f}" == usage["cost_usd"]
    assert client.metric("agent_cost_usd_total") == pytest.approx(float(usage["cost_usd"]))


def test_model_without_a_price_costs_null(
    run_briefly: Run, settings: dict[str, Any], model: Model, session_id: str, postgres: Postgres, database: str
) -> None:
    client = run_briefly({**settings, "model": "a-model-of-tomorrow"}).client
    assert client.chat("Hi", session_id=session_id).json()["usage"]["cost_usd"] is None
    assert client.metric("agent_unpriced_calls_total") == 1
    query = "SELECT cost_usd FROM model_calls WHERE session_id = %s"
    assert postgres.execute(query, database, [session_id]) == [(None,)]


def test_healthy_calls_ask_redis_nothing_between_looks(
    run_briefly: Run, settings: dict[str, Any], model: Model, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    import redis as client_library

    # The second look is later than any test.
    monkeypatch.setattr("agent_service.models.breakers.LOOK_SECONDS", 3600)
    client = run_briefly(settings).client
    with client_library.Redis(port=redis.port, password=PASSWORD, decode_responses=True) as connection:

        def looks() -> int:
            statistics: Any = connection.info("commandstats")
            return int(statistics.get("cmdstat_mget", {}).get("calls", 0))

        before = looks()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(lambda _: client.chat("Hi"), range(40)))
        assert looks() - before == 1
