"""Answers that are kept: for whom, for how long, and for what they count."""

import subprocess
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from access import FREE, GUARD, PRO, bearer, token
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.tools import tool
from langchain_core.utils.function_calling import convert_to_openai_tool
from redis import Redis as RedisClient
from servers import PASSWORD, Model, Postgres, Redis
from service import KEY, Client, LocalService, agentctl

from agent_service.models.cache import fingerprint, reader
from agent_service.models.turn import TurnCalls

Run = Callable[[dict[str, Any]], LocalService]


@pytest.fixture
def settings(model_settings: dict[str, Any]) -> dict[str, Any]:
    return {**model_settings, "name": f"n{uuid.uuid4().hex[:8]}", "response_cache_seconds": 60, "classifier_seconds": 0}


@pytest.fixture
def kept(run_briefly: Run, settings: dict[str, Any], model: Model) -> Client:
    return run_briefly(settings).client


def test_same_opening_question_is_answered_once(
    run_briefly: Run,
    settings: dict[str, Any],
    model: Model,
    kept: Client,
    postgres: Postgres,
    database: str,
    session_id: str,
) -> None:
    first = kept.chat("Olá, ação 请问").json()
    peer = run_briefly(settings).client
    again = peer.chat("Olá, ação 请问", session_id=session_id).json()
    assert again["response"] == first["response"]
    assert again["model"] == "deepseek-v4-flash"
    counts = dict.fromkeys(("input_tokens", "output_tokens", "total_tokens", "cached_tokens"), 0)
    assert again["usage"] == {**counts, "cost_usd": "0", "from_cache": True}
    assert first["usage"]["from_cache"] is False
    token, done = peer.events("Olá, ação 请问")
    assert (token.name, token.data["token"]) == ("token", first["response"])
    assert done.data["usage"] == again["usage"]
    assert len(model.requests()) == 1
    assert 'agent_response_cache_total{result="hit"} 2.0' in peer.get("/metrics").text
    query = "SELECT outcome, cost_usd FROM model_calls WHERE session_id = %s"
    assert postgres.execute(query, database, [session_id]) == [("cached", 0)]
    # The conversation goes on from it as from any other.
    assert peer.chat("And?", session_id=session_id).json()["response"] == "(2) You said: And?"


def test_other_questions_are_not(kept: Client, model: Model) -> None:
    for message in ("Hi", "hi", "Hi ", "Hi!"):
        assert kept.chat(message).json()["response"] == f"(1) You said: {message}"
    assert len(model.requests()) == 4


def test_users_never_share_an_answer(kept: Client, model: Model) -> None:
    for user in ({}, {"user_id": "ana"}, {"user_id": "eve"}, {"user_id": "all"}):
        model.control(answer=f"For {user}")
        assert kept.chat("What do I owe?", **user).json()["response"] == f"For {user}"
    model.control(answer="new")
    assert kept.chat("What do I owe?", user_id="ana").json()["response"] == "For {'user_id': 'ana'}"
    assert kept.chat("What do I owe?").json()["response"] == "For {}"


def test_later_messages_without_a_user_stay_in_their_conversation(kept: Client, model: Model) -> None:
    for session in ("one-of-them", "another-one"):
        kept.chat("Hi", session_id=session + uuid.uuid4().hex)
    assert len(model.requests()) == 1
    for session in ("a" + uuid.uuid4().hex, "b" + uuid.uuid4().hex):
        kept.chat("Hi", session_id=session)
        kept.chat("What do I owe?", session_id=session)
    assert len(model.requests()) == 3


def test_failures_and_stand_ins_are_not_kept(
    run_briefly: Run, settings: dict[str, Any], model: Model, other_model: Model
) -> None:
    other = {"openai_url": f"{other_model.url}/v1", "openai_key": other_model.key, "model_fallbacks": "openai:gpt-5"}
    client = run_briefly({**settings, **other}).client
    model.control(fail_next=1, status=400)
    assert client.chat("Hi").json()["model"] == "gpt-5"
    assert client.chat("Hi").json()["model"] == "deepseek-v4-flash"
    model.control(empty=True)
    other_model.control(empty=True)
    assert client.chat("Ho").status_code == 502
    model.control(reset=True)
    assert client.chat("Ho").json()["response"] == "(1) You said: Ho"


def test_streamed_answers_are_kept_too(kept: Client, model: Model) -> None:
    answer = kept.events("Hi")[-1].data["response"]
    assert kept.chat("Hi").json()["response"] == answer
    assert len(model.requests()) == 1


def test_kept_answers_expire(kept: Client, settings: dict[str, Any], redis: Redis) -> None:
    kept.chat("Hi")
    with RedisClient(port=redis.port, password=PASSWORD) as connection:
        (key,) = connection.scan_iter(f"{settings['name']}:answer:*")
        assert 0 < connection.ttl(key) <= 60


def test_cache_is_missed_by_nobody_while_redis_is_away(kept: Client, model: Model, redis: Redis) -> None:
    kept.chat("Hi")
    redis.stop()
    try:
        assert kept.chat("Hi").json()["usage"]["from_cache"] is False
    finally:
        redis.start()


def test_nothing_is_kept_unless_asked_for(client: Client, model: Model) -> None:
    assert [client.chat("Hi").json()["usage"]["from_cache"] for _ in range(2)] == [False, False]
    assert len(model.requests()) == 2


@tool
def balance(account: str) -> str:
    """Look up the balance of an account."""
    return account


def test_reader_is_everybody_with_a_key_only_for_what_is_nobodys() -> None:
    turn = partial(TurnCalls, session_id="s", caller="key:shop")
    asked: list[BaseMessage] = [HumanMessage("Hi")]
    assert reader(turn(opening=True), asked) == "key:shop all"
    assert reader(turn(opening=True), [*asked, ToolMessage("12", tool_call_id="1")]) == "key:shop session:s"
    assert reader(turn(), asked) == "key:shop session:s"
    assert reader(turn(user_id="ana", opening=True), asked) == "key:shop user:ana"


def test_keys_and_tokens_never_share_an_answer(run_briefly: Run, settings: dict[str, Any], model: Model) -> None:
    client = run_briefly({**settings, **GUARD}).client

    def ask(credential: str, **fields: str) -> str:
        answer = client.post("/api/chat", json={"message": "What do I owe?", **fields}, headers=bearer(credential))
        return str(answer.json()["response"])

    askers: list[tuple[str, dict[str, str]]] = [
        (KEY, {}), (PRO, {}), (FREE, {}), (token("ana"), {}), (token("eve"), {}),
        (KEY, {"user_id": "ana"}), (PRO, {"user_id": "ana"}),
    ]  # fmt: skip
    for number, (credential, fields) in enumerate(askers):
        model.control(answer=f"For {number}")
        assert ask(credential, **fields) == f"For {number}"
    model.control(answer="New")
    assert [ask(credential, **fields) for credential, fields in askers] == [f"For {n}" for n in range(len(askers))]


def test_all_that_shapes_an_answer_is_in_its_name() -> None:
    messages = [SystemMessage("Be brief."), HumanMessage("Hi")]
    names = [
        fingerprint("m", "all", {}, [], messages),
        fingerprint("n", "all", {}, [], messages),
        fingerprint("m", "user:a", {}, [], messages),
        fingerprint("m", "all", {"temperature": 0}, [], messages),
        fingerprint("m", "all", {}, [convert_to_openai_tool(balance)], messages),
        fingerprint("m", "all", {}, [], [SystemMessage("Be long."), HumanMessage("Hi")]),
        fingerprint("m", "all", {}, [], [HumanMessage("Be brief."), HumanMessage("Hi")]),
        fingerprint("m", "all", {}, [], [*messages, AIMessage("Hi"), HumanMessage("Hi")]),
    ]
    assert len(set(names)) == len(names)
    copies = [SystemMessage("Be brief."), HumanMessage("Hi", id="another")]
    assert fingerprint("m", "all", {}, [], copies) == names[0]


def test_warming_from_a_file(
    run_briefly: Run, settings: dict[str, Any], model: Model, kept: Client, tmp_path: Path
) -> None:
    questions = tmp_path / "questions.txt"
    questions.write_text("# What people ask\nWhat can you do?\n\nQuem és?\nQuem és?\n")

    def warm(**changes: str) -> "subprocess.CompletedProcess[str]":
        settings = {"AGENT_RESPONSE_CACHE_SECONDS": "60", **changes}
        return agentctl("warm", str(questions), "--url", str(kept.base_url), **settings)

    assert warm().stdout == "2 answered, 0 kept already, 0 failed\n"
    assert warm().stdout == "0 answered, 2 kept already, 0 failed\n"
    assert kept.chat("Quem és?").json()["usage"]["from_cache"] is True
    assert len(model.requests()) == 2
    wrong = warm(AGENT_API_KEY="a-key-of-somebody-else")
    assert wrong.returncode == 1
    assert "401" in wrong.stderr
    idle = warm(AGENT_RESPONSE_CACHE_SECONDS="0")
    assert (idle.returncode, idle.stderr) == (2, "Nothing would be kept: AGENT_RESPONSE_CACHE_SECONDS is 0.\n")
