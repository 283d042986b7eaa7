"""What is kept of conversations and of users: sessions, summaries, and the memory beyond both."""

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from access import SECRET, bearer, token
from redis import Redis as RedisClient
from servers import PASSWORD, Model, Postgres, Redis, wait_for
from service import Client, LocalService
from test_chat import said

Run = Callable[[dict[str, Any]], LocalService]
Rows = Callable[..., list[Any]]

# Due after the sixth turn: then eight of twelve messages are summarized.
SETTINGS: dict[str, Any] = {
    "model": "deepseek-v4-pro",
    "model_economy": "deepseek-v4-flash",
    "classifier_seconds": 0,
    "breaker_failures": 1000,
    "history_messages": 8,
    "summary_keep_messages": 4,
    "context_tokens": 4000,
    "jwt_secret": SECRET,
    "tiers": {"free": {"requests_per_day": None}},
}
SUMMARY = {"summary": "Ana opens a bakery.", "facts": ["Ana's bakery is in Porto.", " Ana's bakery  is in Porto.", ""]}
TOLD = ("user", "What have we spoken of so far?"), ("assistant", "Ana opens a bakery.")


@pytest.fixture(scope="module")
def long(run: Run, model_settings: dict[str, Any]) -> LocalService:
    return run({**model_settings, **SETTINGS})


@pytest.fixture(scope="module")
def other(run: Run, model_settings: dict[str, Any]) -> LocalService:
    return run({**model_settings, **SETTINGS})


@pytest.fixture
def client(long: LocalService, model: Model) -> Client:
    model.control(choice=SUMMARY)
    return long.client


@pytest.fixture
def user_id() -> str:
    return f"user-{uuid.uuid4()}"


@pytest.fixture
def rows(postgres: Postgres, database: str) -> Rows:
    return lambda query, *values: postgres.execute(query, database, values)


@pytest.fixture
def keys(redis: Redis) -> Iterator["RedisClient[str]"]:
    with RedisClient(port=redis.port, password=PASSWORD, decode_responses=True) as connection:
        yield connection


def summaries(rows: Rows, session_id: str) -> list[Any]:
    return rows("SELECT position, content FROM conversation_summaries WHERE conversation_id = %s", session_id)


def outcomes(client: Client, outcome: str) -> float:
    name = f'agent_summaries_total{{outcome="{outcome}"}} '
    return sum(
        float(line.removeprefix(name)) for line in client.get("/metrics").text.splitlines() if line.startswith(name)
    )


def summarized(client: Client, rows: Rows, session_id: str, user_id: str | None = None) -> None:
    for number in range(1, 7):
        assert client.chat(f"Message {number}", session_id=session_id, user_id=user_id).status_code == 200
    wait_for(lambda: bool(summaries(rows, session_id)), 20, "the summary")


def asked(model: Model) -> list[tuple[str, str]]:
    """What the newest answer was made of."""
    return said([request["body"] for request in model.requests() if not is_summary(request["body"])][-1])


def is_summary(body: dict[str, Any]) -> bool:
    return "tool_choice" in body


def noted(model: Model) -> list[dict[str, Any]]:
    """What was asked for summaries."""
    return [request["body"] for request in model.requests() if is_summary(request["body"])]


def test_older_messages_become_a_summary_by_the_economy_tier(
    client: Client, model: Model, rows: Rows, session_id: str, user_id: str
) -> None:
    summarized(client, rows, session_id, user_id)
    assert summaries(rows, session_id) == [(8, "Ana opens a bakery.")]
    [call] = noted(model)
    assert call["model"] == "deepseek-v4-flash"
    assert [f"Message {number}\n" in str(call["messages"][-1]["content"]) for number in range(1, 7)] == [
        True, True, True, True, False, False,
    ]  # fmt: skip
    assert client.chat("Message 7", session_id=session_id, user_id=user_id).status_code == 200
    newest = [f"Message {number}" for number in (5, 6, 7)]
    assert asked(model)[:2] == list(TOLD)
    assert [text for role, text in asked(model)[2:] if role == "user" and "remember" not in text] == newest
    query = "SELECT model, outcome, cost_usd > 0, user_id FROM model_calls WHERE session_id = %s AND agent = 'summary'"
    wait_for(lambda: bool(rows(query, session_id)), 10, "the row of the call")
    assert rows(query, session_id) == [("deepseek-v4-flash", "ok", True, user_id)]


def test_summary_tells_of_the_summary_before_it(client: Client, model: Model, rows: Rows, session_id: str) -> None:
    summarized(client, rows, session_id)
    model.control(choice={"summary": "Ana opened a bakery.", "facts": []})
    for number in range(7, 13):
        client.chat(f"Message {number}", session_id=session_id)
    wait_for(lambda: summaries(rows, session_id)[0][0] > 8, 20, "the second summary")
    told = str(noted(model)[-1]["messages"][-1]["content"])
    assert "<summary>\nAna opens a bakery.\n</summary>" in told
    assert "Message 5\n" in told and "Message 4\n" not in told


def test_summary_is_no_part_of_a_stream(client: Client, rows: Rows, session_id: str) -> None:
    for number in range(1, 8):
        events = client.events(f"Message {number}", session_id=session_id)
        tokens = "".join(event.data["token"] for event in events[:-1])
        assert tokens == events[-1].data["response"] == f"({tokens[1]}) You said: Message {number}"
    wait_for(lambda: bool(summaries(rows, session_id)), 20, "the summary")


def test_facts_are_recalled_in_the_users_other_conversations_alone(
    client: Client, model: Model, rows: Rows, session_id: str, user_id: str
) -> None:
    summarized(client, rows, session_id, user_id)
    assert rows("SELECT content FROM memories WHERE user_id = %s", user_id) == [("Ana's bakery is in Porto.",)]
    client.chat("Where is my bakery?", user_id=user_id)
    assert asked(model) == [
        ("user", "What do you remember of me that may matter now?"),
        ("assistant", "- Ana's bakery is in Porto."),
        ("user", "Where is my bakery?"),
    ]
    # Not where they have nothing to do with it, not to others, and not to nobody.
    for message, whose in [("Bom dia", user_id), ("Where is my bakery?", "eve"), ("Where is my bakery?", None)]:
        client.chat(message, user_id=whose)
        assert asked(model) == [("user", message)]


def test_without_a_summary_the_newest_messages_go_on(client: Client, model: Model, rows: Rows, session_id: str) -> None:
    model.control(choice=None)
    failed = outcomes(client, "failed")
    for number in range(1, 8):
        assert client.chat(f"Message {number}", session_id=session_id).status_code == 200
    wait_for(lambda: outcomes(client, "failed") > failed, 20, "a failed summary")
    assert [text for role, text in asked(model) if role == "user"] == [f"Message {n}" for n in (3, 4, 5, 6, 7)]
    assert summaries(rows, session_id) == []
    # What was not done is done after the next turn.
    model.control(choice=SUMMARY)

    def look() -> bool:
        client.chat("And now?", session_id=session_id)
        return bool(summaries(rows, session_id))

    wait_for(look, 20, "the summary")


def test_one_instance_at_a_time_summarizes_a_conversation(
    client: Client, rows: Rows, session_id: str, postgres: Postgres, database: str
) -> None:
    with psycopg.connect(
        host="127.0.0.1", port=postgres.port, dbname=database, user="postgres", password=PASSWORD
    ) as another:
        another.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 6))", [f"summary:{session_id}"])
        busy = outcomes(client, "busy")
        for number in range(1, 7):
            client.chat(f"Message {number}", session_id=session_id)
        wait_for(lambda: outcomes(client, "busy") > busy, 20, "an instance that gives way")
        assert summaries(rows, session_id) == []
    client.chat("Message 7", session_id=session_id)
    wait_for(lambda: bool(summaries(rows, session_id)), 20, "the summary")


def test_share_of_the_window_makes_a_summary_due(client: Client, rows: Rows, session_id: str) -> None:
    client.chat("Message 1", session_id=session_id)
    client.chat("word " * 3500, session_id=session_id)
    wait_for(lambda: summaries(rows, session_id) == [(2, "Ana opens a bakery.")], 20, "the summary")


def test_messages_that_do_not_fit_the_window_are_left_out(client: Client, model: Model, session_id: str) -> None:
    client.chat("word " * 3500, session_id=session_id)
    assert client.chat("Message 2", session_id=session_id).status_code == 200
    assert asked(model) == [("user", "Message 2")]


def test_offline_model_summarizes_by_a_rule(
    run: Run, base_settings: dict[str, Any], rows: Rows, session_id: str, user_id: str
) -> None:
    client = run({**base_settings, "model_key": "", "history_messages": 8, "summary_keep_messages": 4}).client
    messages = ["My name is Ana. Hello!", "Eu moro em Lisboa.", "我在上海工作。", "저는 민수입니다.", "Five", "Six"]
    for message in messages:
        client.chat(message, session_id=session_id, user_id=user_id)
    wait_for(lambda: bool(summaries(rows, session_id)), 20, "the summary")
    [(position, summary)] = summaries(rows, session_id)
    assert (position, summary.splitlines()) == (
        8, ["- My name is Ana.", "- Eu moro em Lisboa.", "- 我在上海工作。", "- 저는 민수입니다."],
    )  # fmt: skip
    facts = {content for (content,) in rows("SELECT content FROM memories WHERE user_id = %s", user_id)}
    assert facts == {"My name is Ana.", "Eu moro em Lisboa.", "我在上海工作。", "저는 민수입니다."}


def test_flushed_redis_changes_no_answer_and_is_filled_again(
    client: Client, other: LocalService, model: Model, rows: Rows, session_id: str, keys: Any
) -> None:
    summarized(client, rows, session_id)
    instances = [client, other.client]
    for number in range(7, 11):
        keys.flushall()
        instances[number % 2].chat(f"Message {number}", session_id=session_id)
        without = asked(model)
        assert without[:2] == list(TOLD)
        assert [text for role, text in without if role == "user"][-3:] == [f"Message {number - n}" for n in (2, 1, 0)]
        assert keys.hget(f"agent:session:{session_id}", "context")


def test_turn_reads_from_the_session_what_it_knows(
    client: Client, other: LocalService, model: Model, rows: Rows, session_id: str, keys: Any
) -> None:
    client.chat("Message 1", session_id=session_id)
    rows("UPDATE messages SET content = 'Changed' WHERE conversation_id = %s AND role = 'user'", session_id)
    other.client.chat("Message 2", session_id=session_id)
    assert [text for role, text in asked(model) if role == "user"] == ["Message 1", "Message 2"]
    keys.delete(f"agent:session:{session_id}")
    client.chat("Message 3", session_id=session_id)
    assert [text for role, text in asked(model) if role == "user"] == ["Changed", "Message 2", "Message 3"]


@pytest.mark.parametrize("left", ["older", "newer", "unreadable", "of another release"])
def test_session_that_is_wrong_is_not_believed(
    client: Client, model: Model, rows: Rows, session_id: str, keys: Any, left: str
) -> None:
    key = f"agent:session:{session_id}"
    client.chat("Message 1", session_id=session_id)
    older = keys.hget(key, "context")
    client.chat("Message 2", session_id=session_id)
    expected = ["Message 1", "Message 2", "Message 3"]
    if left == "newer":
        # The database was restored to before the second turn.
        rows("DELETE FROM messages WHERE conversation_id = %s AND position > 2", session_id)
        rows("UPDATE conversations SET message_count = 2 WHERE id = %s", session_id)
        expected = ["Message 1", "Message 3"]
    else:
        wrong = {"older": older, "unreadable": "[1, 4, ", "of another release": "[2, 4, 0, []]"}
        keys.hset(key, "context", wrong[left])
    client.chat("Message 3", session_id=session_id)
    assert [text for role, text in asked(model) if role == "user"] == expected


def test_user_sees_and_deletes_what_is_remembered(client: Client, rows: Rows, session_id: str) -> None:
    ana, eve = f"ana-{uuid.uuid4()}", f"eve-{uuid.uuid4()}"
    insert = "INSERT INTO memories (user_id, content, words) VALUES (%s, %s, '') RETURNING id"
    ids = [rows(insert, ana, f"Fact {number}")[0][0] for number in range(3)]

    def ask(method: str, user: str, **parameters: Any) -> Any:
        answer = client.request(method, "/api/memory", params=parameters, headers=bearer(token(user)))
        assert answer.status_code == 200, answer.text
        return answer.json()

    # A token speaks for its own user, whatever the request says.
    assert ask("GET", eve, user_id=ana) == {"user_id": eve, "memories": []}
    assert ask("DELETE", eve, user_id=ana, id=ids[0])["deleted"] == 0
    assert ask("DELETE", eve, user_id=ana)["deleted"] == 0
    shown = ask("GET", ana)["memories"]
    assert [(one["id"], one["content"]) for one in shown] == [(ids[n], f"Fact {n}") for n in (2, 1, 0)]
    assert ask("DELETE", ana, id=ids[1]) == {"user_id": ana, "deleted": 1}
    by_key = client.get("/api/memory", params={"user_id": ana}).json()["memories"]
    assert [one["id"] for one in by_key] == [ids[2], ids[0]]
    assert ask("DELETE", ana)["deleted"] == 2
    assert rows("SELECT 1 FROM memories WHERE user_id = %s", ana) == []
    query = "SELECT action, kind, owner_id FROM audit WHERE user_id = %s ORDER BY happened_at"
    wait_for(lambda: len(rows(query, ana)) == 4, 10, "the audit's rows")
    seen, deleted = ("GET /api/memory", "data", ana), ("DELETE /api/memory", "change", ana)
    assert rows(query, ana) == [seen, deleted, seen, deleted]


def test_key_has_to_say_whose_memory_is_meant(client: Client) -> None:
    for method in ("GET", "DELETE"):
        answer = client.request(method, "/api/memory")
        assert answer.status_code == 404
        assert answer.json()["type"] == "urn:agent:problem:user-unknown"


def test_ready_says_how_memories_are_found(client: Client, rows: Rows) -> None:
    memory = client.get("/ready").json()["checks"]["memory"]
    columns = rows("SELECT attname FROM pg_attribute WHERE attrelid = 'memories'::regclass")
    expected = {"search": "vector", "embeddings": "offline"} if ("embedding",) in columns else {"search": "text"}
    assert memory == {"status": "ok", **expected}
