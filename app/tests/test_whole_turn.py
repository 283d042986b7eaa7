"""What the parts make together: the team asks through the models' tiers, fallbacks and books."""

from collections.abc import Callable
from typing import Any

import pytest
from servers import Model, Postgres, wait_for
from service import Client, Event, LocalService
from test_team import SURE, UNKNOWN, call

Run = Callable[[dict[str, Any]], LocalService]
Calls = Callable[[str], list[tuple[str, str, str, bool]]]

LONG = "Let me write that down. " * 10
MARGIN = {"revenue": "10", "costs": "8"}


@pytest.fixture
def calls(postgres: Postgres, database: str) -> Calls:
    """Whose calls a conversation's rows are, of which model, how they ended, and whether their cost is known."""

    def rows(session_id: str) -> list[tuple[str, str, str, bool]]:
        query = "SELECT agent, model, outcome, cost_usd > 0 FROM model_calls WHERE session_id = %s ORDER BY id"
        return postgres.execute(query, database, [session_id])

    return rows


@pytest.fixture
def client(run: Run, model_settings: dict[str, Any], model: Model, other_model: Model) -> Client:
    tiers = {"model": "deepseek-v4-pro", "model_economy": "deepseek-v4-flash", "model_fallbacks": "openai:gpt-5-mini"}
    other = {"openai_url": f"{other_model.url}/v1", "openai_key": other_model.key}
    return run({**model_settings, **tiers, **other, "breaker_failures": 1000}).client


def streamed(events: list[Event]) -> str:
    """What a client that keeps to the protocol shows in the end."""
    shown = ""
    for event in events:
        if event.name == "token":
            shown += event.data["token"]
        elif event.name == "restart":
            shown = ""
    return shown


def test_classifier_asks_the_economy_tier_and_its_call_is_booked(
    client: Client, model: Model, session_id: str, calls: Calls
) -> None:
    model.control(choice={"agent": "hr", "intent": "", "certainty": 0.9})
    *tokens, done = client.events(UNKNOWN, session_id=session_id)
    assert streamed(tokens) == done.data["response"] == f"(1) You said: {UNKNOWN}"
    assert (done.data["agent"], done.data["model"]) == ("hr", "deepseek-v4-pro")
    assert calls(session_id) == [
        ("router", "deepseek-v4-flash", "ok", True),
        ("hr", "deepseek-v4-pro", "ok", True),
    ]
    asked = [request["body"]["model"] for request in model.requests()]
    assert asked == ["deepseek-v4-flash", "deepseek-v4-pro"]


def test_usage_is_of_all_calls_of_a_turn(
    client: Client, model: Model, session_id: str, calls: Calls, postgres: Postgres, database: str
) -> None:
    call(model, "margin", MARGIN)
    usage = client.chat("What is our profit margin?", session_id=session_id).json()["usage"]
    assert [agent for agent, *_ in calls(session_id)] == ["financial", "financial"]
    query = "SELECT sum(input_tokens), sum(output_tokens), sum(cost_usd)::text FROM model_calls WHERE session_id = %s"
    [(asked, answered, cost)] = postgres.execute(query, database, [session_id])
    assert (usage["input_tokens"], usage["output_tokens"], usage["cost_usd"]) == (asked, answered, cost)


def test_text_that_was_held_back_is_void_without_a_word(client: Client, model: Model, session_id: str) -> None:
    model.control(cut_after_tokens=3, answer="This is void and short.")
    events = client.events(SURE, session_id=session_id)
    assert {event.name for event in events[:-1]} == {"token"}
    assert streamed(events) == events[-1].data["response"] == f"(1) You said: {SURE}"
    assert events[-1].data["model"] == "gpt-5-mini"


def test_text_that_was_handed_on_is_void_after_a_restart(client: Client, model: Model) -> None:
    model.control(cut_after_tokens=60, answer="This is void and long. " * 20)
    events = client.events(SURE)
    assert [event.name for event in events].count("restart") == 1
    assert streamed(events) == events[-1].data["response"] == f"(1) You said: {SURE}"


def test_remark_before_a_tool_is_void_where_the_answer_after_it_breaks_off(
    client: Client, model: Model, session_id: str, stored: Callable[[str], list[Any]]
) -> None:
    """The first call, which is shorter, ends whole; the second is cut."""
    call(model, "margin", MARGIN, tool_text=LONG)
    model.control(answer="void " * 400, cut_after_tokens=len(LONG))
    events = client.events("What is our profit margin?", session_id=session_id)
    assert [event.name for event in events].count("restart") == 1
    answer = events[-1].data["response"]
    assert streamed(events) == answer
    assert "void" not in answer and "Let me" not in answer
    assert stored(session_id)[1][2] == answer


def test_next_round_of_a_tool_is_no_restart(client: Client, model: Model) -> None:
    call(model, "margin", MARGIN, tool_text=LONG)
    events = client.events("What is our profit margin?")
    assert {event.name for event in events[:-1]} == {"token"}
    assert streamed(events) == events[-1].data["response"] == f"{LONG}\n\nDone."


def test_specialist_without_any_model_says_the_degraded_answer(
    run_briefly: Run, model_settings: dict[str, Any], model: Model
) -> None:
    client = run_briefly({**model_settings, "degraded_answer": "Later.", "breaker_failures": 1000}).client
    call(model, "margin", MARGIN, tool_text=LONG)
    model.control(answer="void " * 400, cut_after_tokens=len(LONG))
    events = client.events("What is our profit margin?")
    assert streamed(events) == events[-1].data["response"] == "Later."
    assert events[-1].data["degraded"] is True


def test_failed_classifier_costs_nobody_an_answer(client: Client, model: Model, session_id: str, calls: Calls) -> None:
    model.control(fail_next=1, status=400)
    body = client.chat(UNKNOWN, session_id=session_id).json()
    # Its fallback was asked, and named nobody.
    assert (body["agent"], body["response"]) == ("general", f"(1) You said: {UNKNOWN}")
    wait_for(lambda: len(calls(session_id)) == 3, 5, "the rows of all calls")
    agent, _, outcome, _ = calls(session_id)[0]
    assert (agent, outcome) == ("router", "model-refused")
