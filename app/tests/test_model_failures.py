import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from conftest import MODEL_SECONDS
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import tool
from servers import Model, free_port
from service import Client, LocalService

from agent_service.core.settings import Settings
from agent_service.models.providers import create_model

Stored = Callable[[str], list[tuple[int, str, str]]]


def check_failure(response: httpx.Response, status: int, code: str) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["x-agent-error-source"] == "model"
    assert response.json()["type"] == f"urn:agent:problem:{code}"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_passing_failure_is_retried(client: Client, model: Model, status: int) -> None:
    model.control(fail_next=1, status=status)
    assert client.chat("Hi").status_code == 200
    assert len(model.requests()) == 2


@pytest.mark.parametrize(
    ("status", "answered", "code", "calls"),
    [
        (500, 502, "model-failed", 2),
        (503, 502, "model-failed", 2),
        (429, 503, "model-busy", 2),
        (401, 502, "model-refused", 1),
        (402, 502, "model-refused", 1),
        (400, 502, "model-refused", 1),
    ],
)
def test_lasting_failure(
    client: Client, model: Model, session_id: str, stored: Stored, status: int, answered: int, code: str, calls: int
) -> None:
    errors = client.metric("agent_model_errors_total")
    model.control(fail_next=10, status=status)
    check_failure(client.chat("Hi", session_id=session_id), answered, code)
    assert len(model.requests()) == calls
    assert stored(session_id) == []
    assert client.metric("agent_model_errors_total") == errors + 1
    model.control(reset=True)
    assert client.chat("Hi", session_id=session_id).json()["response"] == "(1) You said: Hi"


def test_wait_that_the_model_asks_for_is_passed_on(client: Client, model: Model) -> None:
    model.control(fail_next=10, status=429, retry_after="1")
    response = client.chat("Hi")
    check_failure(response, 503, "model-busy")
    assert response.headers["retry-after"] == "1"
    first, second = model.requests()
    # Without it the wait is half a second at most.
    assert second["time"] - first["time"] > 0.9


def test_slow_model_answers(client: Client, model: Model) -> None:
    model.control(latency_seconds=0.5)
    assert client.chat("Hi").status_code == 200


def test_too_slow_model_times_out(client: Client, model: Model) -> None:
    model.control(latency_seconds=MODEL_SECONDS + 0.5)
    check_failure(client.chat("Hi"), 504, "model-timeout")


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [
        ({"garbage": True}, "model-failed"),
        ({"empty": True}, "model-empty"),
        ({"finish_reason": "insufficient_system_resource"}, "model-busy"),
    ],
)
def test_answer_that_is_none(client: Client, model: Model, behaviour: dict[str, Any], code: str) -> None:
    model.control(**behaviour)
    check_failure(client.chat("Hi"), 503 if code == "model-busy" else 502, code)


def test_answer_that_cannot_be_stored_as_it_is(client: Client, model: Model, session_id: str, stored: Stored) -> None:
    model.control(answer="a\x00b \ud800 c")
    assert client.chat("Hi", session_id=session_id).json()["response"] == "a\ufffdb ? c"
    assert stored(session_id)[1] == (2, "assistant", "a\ufffdb ? c")
    assert client.events("Hi", session_id=session_id)[-1].data["response"] == "a\ufffdb ? c"


def test_model_that_is_not_there(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], model: Model
) -> None:
    lost = run({**model_settings, "model_url": f"http://127.0.0.1:{free_port()}"}).client
    check_failure(lost.chat("Hi"), 502, "model-unreachable")
    ready = lost.get("/ready")
    assert ready.status_code == 200
    assert ready.json()["checks"]["model"]["status"] == "degraded"


def test_wrong_model_key_shows_at_once(
    run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any], model: Model
) -> None:
    wrong = run({**model_settings, "model_key": "a-key-of-somebody-else"}).client
    check_failure(wrong.chat("Hi"), 502, "model-refused")
    assert wrong.get("/ready").json()["checks"]["model"]["status"] == "degraded"


@tool
def balance(account: str) -> str:
    """Look up the balance of an account."""
    return f"{account} holds 12"


def test_tools_go_over_the_wire(model_settings: dict[str, Any], model: Model) -> None:
    model.control(tool_call={"name": "balance", "arguments": {"account": "cash"}})
    created = create_model(Settings(_env_file=None, api_key="a-key-for-a-test", **model_settings))
    bound = created.chat.bind_tools([balance])

    async def talk() -> None:
        asked = await bound.ainvoke([HumanMessage("How much?")])
        assert isinstance(asked, AIMessage)
        assert asked.tool_calls[0]["name"] == "balance"
        assert asked.tool_calls[0]["args"] == {"account": "cash"}
        result = ToolMessage(balance.invoke(asked.tool_calls[0]["args"]), tool_call_id=asked.tool_calls[0]["id"])
        answer = await bound.ainvoke([HumanMessage("How much?"), asked, result])
        assert answer.text == "(1) You said: How much?"
        await created.close()

    asyncio.run(talk())
