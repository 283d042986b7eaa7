"""Who answers, and what it costs, through the HTTP port."""

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from servers import Model, Postgres
from service import Client, LocalService

Run = Callable[[dict[str, Any]], LocalService]

UNKNOWN = "xyzzy plugh"
SURE = "What is our cash position?"


def routed(client: Client, agent: str, by: str) -> float:
    return client.metric(f'agent_routed_total{{agent="{agent}",by="{by}"}}')


def offered(request: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in request["body"].get("tools", [])]


def test_sure_message_costs_one_call_of_its_specialist(client: Client, model: Model) -> None:
    before = routed(client, "cashflow", "rules")
    body = client.chat(SURE).json()
    assert (body["agent"], body["intent"]) == ("cashflow", "cashflow_monitoring")
    assert 0.55 <= body["confidence"] < 1
    assert routed(client, "cashflow", "rules") == before + 1
    [request] = model.requests()
    assert "cash-flow analyst" in request["body"]["messages"][0]["content"]
    assert "record_entry" in offered(request)


def test_parameters_of_a_specialist_go_with_the_call(client: Client, model: Model) -> None:
    client.chat(SURE)
    client.chat("Hello")
    assert [request["body"].get("temperature") for request in model.requests()] == [0.2, None]


def test_unsure_message_is_classified_by_one_more_call(client: Client, model: Model) -> None:
    before = routed(client, "hr", "model")
    model.control(choice={"agent": "hr", "intent": "policy_consultation", "certainty": 0.7})
    body = client.chat(UNKNOWN).json()
    assert (body["agent"], body["intent"], body["confidence"]) == ("hr", "policy_consultation", 0.7)
    assert routed(client, "hr", "model") == before + 1
    first, second = model.requests()
    assert offered(first) == ["route"]
    assert "HR adviser" in second["body"]["messages"][0]["content"]
    sizes = [sum(len(message["content"]) for message in r["body"]["messages"]) for r in (first, second)]
    assert sizes[0] < 4000
    assert body["usage"]["total_tokens"] > 0


@pytest.mark.parametrize(
    "choice",
    [
        None,
        {"agent": "finance", "intent": "", "certainty": 1},
        {"agent": "hr", "intent": "sales_funnel", "certainty": 1},
        {"agent": "hr", "intent": "", "certainty": 7},
        {"agent": "hr"},
        {},
    ],
)
def test_nonsense_of_the_classifier_leaves_the_rules_answer(
    client: Client, model: Model, choice: dict[str, Any] | None
) -> None:
    before = routed(client, "general", "fallback")
    model.control(choice=choice)
    response = client.chat(UNKNOWN)
    assert response.status_code == 200
    assert (response.json()["agent"], response.json()["intent"]) == ("general", None)
    assert routed(client, "general", "fallback") == before + 1


def test_failing_classifier_leaves_the_rules_answer(client: Client, model: Model) -> None:
    model.control(fail_next=2, status=500)
    response = client.chat(UNKNOWN)
    assert (response.status_code, response.json()["agent"]) == (200, "general")


def test_slow_classifier_is_not_waited_for(run: Run, model_settings: dict[str, Any], model: Model) -> None:
    hasty = run({**model_settings, "classifier_seconds": 0.05}).client
    model.control(latency_seconds=0.3, choice={"agent": "hr", "intent": "", "certainty": 1})
    assert hasty.chat(UNKNOWN).json()["agent"] == "general"


def test_classifier_can_be_switched_off(run: Run, model_settings: dict[str, Any], model: Model) -> None:
    rules = run({**model_settings, "classifier_seconds": 0}).client
    assert rules.chat(UNKNOWN).json()["agent"] == "general"
    assert len(model.requests()) == 1


def test_offline_routes_by_rules_alone(offline: LocalService) -> None:
    assert offline.client.chat("Escreva uma vaga para garçom").json()["agent"] == "hr"
    assert offline.client.chat("请问本月的现金流如何").json()["agent"] == "cashflow"
    body = offline.client.chat(UNKNOWN).json()
    assert body["agent"] == "general"
    assert 0 < body["confidence"] < 0.55


def test_follow_up_stays_with_who_answered(client: Client, peer: LocalService, session_id: str, model: Model) -> None:
    before = routed(peer.client, "cashflow", "conversation")
    client.chat(SURE, session_id=session_id)
    body = peer.client.chat("And for March?", session_id=session_id).json()
    assert body["agent"] == "cashflow"
    assert routed(peer.client, "cashflow", "conversation") == before + 1
    assert len(model.requests()) == 2
    assert client.chat("Tell me a joke", session_id=session_id).json()["agent"] == "general"


def test_long_message_that_the_rules_do_not_know_is_no_follow_up(client: Client, session_id: str, model: Model) -> None:
    client.chat(SURE, session_id=session_id)
    model.control(choice={"agent": "hr", "intent": "", "certainty": 0.9})
    assert client.chat("xyzzy plugh " * 10, session_id=session_id).json()["agent"] == "hr"
    assert "answered by cashflow" in model.requests()[-2]["body"]["messages"][-1]["content"]


def test_classifier_does_not_leak_into_the_stream(client: Client, model: Model) -> None:
    model.control(choice={"agent": "hr", "intent": "", "certainty": 0.9})
    *tokens, done = client.events(UNKNOWN)
    assert "".join(event.data["token"] for event in tokens) == done.data["response"] == f"(1) You said: {UNKNOWN}"
    assert done.data["agent"] == "hr"


ENTRY = {"direction": "in", "amount": "1250.50", "currency": "EUR", "description": "Invoice 7", "due_on": "2026-05-01"}


def entries(postgres: Postgres, database: str, user: str) -> list[Any]:
    query = "SELECT direction, amount::text, currency, due_on::text FROM cash_entries WHERE user_id = %s ORDER BY id"
    return postgres.execute(query, database, [user])


@pytest.fixture
def user() -> str:
    return f"user-{uuid.uuid4()}"


def call(model: Model, name: str, arguments: dict[str, Any], **more: Any) -> None:
    model.control(tool_call={"name": name, "arguments": arguments}, answer="Done.", **more)


def result(model: Model) -> str:
    """What the last tool told the model."""
    message = model.requests()[-1]["body"]["messages"][-1]
    assert message["role"] == "tool"
    return str(message["content"])


def test_tool_does_something(client: Client, model: Model, postgres: Postgres, database: str, user: str) -> None:
    before = client.metric('agent_tool_calls_total{outcome="done",tool="record_entry"}')
    call(model, "record_entry", ENTRY)
    body = client.chat("Record a payment of 1250.50 EUR on the bank account", user_id=user).json()
    assert (body["agent"], body["response"]) == ("cashflow", "Done.")
    assert entries(postgres, database, user) == [("in", "1250.50", "EUR", "2026-05-01")]
    assert len(model.requests()) == 2
    assert client.metric('agent_tool_calls_total{outcome="done",tool="record_entry"}') == before + 1


def test_usage_is_that_of_all_calls(client: Client, model: Model, user: str) -> None:
    before = client.metric("agent_tokens_total")
    call(model, "record_entry", ENTRY)
    usage = client.chat(SURE, user_id=user).json()["usage"]
    assert client.metric("agent_tokens_total") == before + usage["total_tokens"]


def test_user_never_sees_what_is_anothers(client: Client, model: Model, user: str) -> None:
    call(model, "record_entry", ENTRY)
    client.chat(SURE, user_id=user)
    period = {"since": "2026-01-01", "until": "2026-12-31", "currency": "EUR"}
    balance = {"opening_balance": "10", "currency": "EUR", "until": "2026-12-31"}
    lead = {"name": "Ana", "company": "Sol", "budget": "confirmed", "authority": "decides", "need": "urgent",
            "timing": "later"}  # fmt: skip
    for who, seen, kept in ((user, "Invoice 7", '"balance": "1260.50"'), (f"{user}-b", "", '"balance": "10.00"')):
        call(model, "list_entries", period)
        client.chat(SURE, user_id=who)
        assert ("Invoice 7" in result(model)) == bool(seen)
        call(model, "project_balance", balance)
        client.chat(SURE, user_id=who)
        assert kept in result(model)
    call(model, "qualify_lead", lead)
    client.chat("Qualify this lead", user_id=user)
    assert '"grade": "hot"' in result(model)
    for who, there in ((user, True), (f"{user}-b", False)):
        call(model, "list_leads", {})
        client.chat("Show my leads", user_id=who)
        assert ("Ana" in result(model)) == there


def test_model_cannot_say_who_asks(client: Client, model: Model, postgres: Postgres, database: str, user: str) -> None:
    call(model, "record_entry", {**ENTRY, "asker": {"user_id": f"{user}-b", "session_id": "x", "pool": None}})
    assert client.chat(SURE, user_id=user).json()["response"] == "Done."
    assert (len(entries(postgres, database, user)), entries(postgres, database, f"{user}-b")) == (1, [])
    assert all("asker" not in str(request["body"]["tools"]) for request in model.requests())


def test_nobody_s_entry_is_refused_to_the_model(client: Client, model: Model) -> None:
    call(model, "record_entry", ENTRY)
    assert client.chat(SURE).json()["response"] == "Done."
    assert "user_id is needed" in result(model)


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("record_entry", {**ENTRY, "amount": "1e400"}, "amount"),
        ("record_entry", {**ENTRY, "amount": "-5"}, "amount"),
        ("record_entry", {**ENTRY, "currency": "euro"}, "currency"),
        ("record_entry", {**ENTRY, "due_on": "soon"}, "due_on"),
        ("record_entry", {}, "amount"),
        ("project_revenue", {"last_months": ["0", "5"], "months_ahead": 3}, "growth from nothing"),
        ("transfer_all", {"to": "me"}, "not a valid tool"),
    ],
)
def test_fault_of_a_tool_is_told_to_the_model(
    client: Client, model: Model, user: str, name: str, arguments: dict[str, Any], said: str
) -> None:
    call(model, name, arguments)
    response = client.chat(SURE, user_id=user)
    assert (response.status_code, response.json()["response"]) == (200, "Done.")
    assert said in result(model)


def test_tool_that_fails_tells_no_inner_things(
    run: Run, model_settings: dict[str, Any], model: Model, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setattr("agent_service.tools.cashflow._INSERT", "SELECT secret FROM nothing_like_it")
    call(model, "record_entry", ENTRY)
    client = run(model_settings).client
    assert client.chat(SURE, user_id=user).json()["response"] == "Done."
    assert "secret" not in result(model)


def test_slow_tool_is_told_to_the_model(
    run: Run, model_settings: dict[str, Any], model: Model, monkeypatch: pytest.MonkeyPatch, user: str
) -> None:
    monkeypatch.setattr("agent_service.tools.cashflow._INSERT", "SELECT pg_sleep(5)")
    call(model, "record_entry", ENTRY)
    client = run({**model_settings, "tool_seconds": 0.1}).client
    assert client.chat(SURE, user_id=user).json()["response"] == "Done."
    assert "in time" in result(model)


def test_rounds_of_tools_are_bounded(run: Run, model_settings: dict[str, Any], model: Model) -> None:
    client = run({**model_settings, "tool_rounds": 2}).client
    margin = {"revenue": "10", "costs": "8"}
    call(model, "margin", margin, tool_rounds=3)
    assert client.chat("What is our profit margin?").json()["response"] == "Done."
    assert "No more calls" in result(model)
    model.reset()
    call(model, "margin", margin, tool_rounds=100)
    response = client.chat("What is our profit margin?")
    assert (response.status_code, response.json()["type"]) == (502, "urn:agent:problem:model-tool-loop")
    assert len(model.requests()) == 4


def test_tool_rounds_do_not_leak_into_the_stream(client: Client, model: Model, user: str) -> None:
    call(model, "record_entry", ENTRY, tool_text="Let me write that down.")
    *tokens, done = client.events(SURE, user_id=user)
    assert "".join(event.data["token"] for event in tokens) == done.data["response"] == "Done."


def test_long_text_before_a_tool_stays_part_of_the_answer(client: Client, model: Model, user: str) -> None:
    call(model, "record_entry", ENTRY, tool_text="Let me write that down. " * 10)
    *tokens, done = client.events(SURE, user_id=user)
    joined = "".join(event.data["token"] for event in tokens)
    assert joined == done.data["response"]
    assert joined.startswith("Let me") and joined.endswith("\n\nDone.")


def test_cut_off_tool_call_is_not_carried_out(
    client: Client, model: Model, postgres: Postgres, database: str, user: str
) -> None:
    call(model, "record_entry", ENTRY, tool_text="one two three", cut_after_tokens=4, cut_cleanly=True)
    assert client.post("/api/chat/stream", json={"message": SURE, "user_id": user}).status_code == 502
    assert entries(postgres, database, user) == []
