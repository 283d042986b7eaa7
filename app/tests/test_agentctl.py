import json
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from access import bearer
from servers import Postgres, free_port, wait_for
from service import APP, LocalService, agentctl, database_environment

from agent_service.cli import COMMANDS
from agent_service.commands import moment
from agent_service.guard.keys import KeyRing, parse_keys
from agent_service.guard.tiers import DEFAULT_TIERS

Run = Callable[[dict[str, Any]], LocalService]


def test_key_that_was_made_opens_the_service(run: Run, base_settings: dict[str, Any]) -> None:
    made = agentctl("key", "shop", "--tier", "pro")
    assert made.returncode == 0, made.stderr
    key, line = (text.strip() for text in made.stdout.splitlines() if text.startswith("    "))
    assert KeyRing(parse_keys(line, DEFAULT_TIERS)).find(key.encode()) is not None
    assert key not in line
    client = run({**base_settings, "api_keys": line}).client
    answer = client.post("/api/chat", json={"message": "Hi"}, headers=bearer(key))
    assert answer.status_code == 200
    assert answer.headers["ratelimit-limit"] == "1000"
    assert agentctl("key", "shop").stdout != made.stdout


@pytest.mark.parametrize("name", ["Shop", "main", "token", "a b", ""])
def test_names_that_no_key_has(name: str) -> None:
    refused = agentctl("key", name)
    assert refused.returncode == 2
    assert "lower case letters" in refused.stderr


def test_audit_is_read_by_user_key_kind_and_time(
    offline: LocalService, postgres: Postgres, database: str, session_id: str
) -> None:
    user = f"user-{uuid.uuid4()}"
    body = {"message": "Hi", "session_id": session_id}
    assert offline.client.post("/api/chat", json={**body, "user_id": user}).status_code == 200
    assert offline.client.post("/api/chat", json={**body, "user_id": "eve"}).status_code == 403
    where = database_environment(postgres.port, database)

    def read(*arguments: str) -> list[dict[str, Any]]:
        done = agentctl("audit", "--json", *arguments, **where)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    wait_for(lambda: len(read("--user", user)) == 2, 20, "the audit rows")
    rows = read("--since", "1h", "--user", user, "--key", "main")
    assert [(row["kind"], row["status"], row["user_id"]) for row in rows] == [
        ("change", 200, user),
        ("data", 403, "eve"),
    ]
    assert {row["owner_id"] for row in rows} == {user}
    assert len(read("--user", user, "--kind", "data")) == 1
    assert len(read("--user", user, "--limit", "1")) == 1
    assert read("--user", user, "--until", "1h") == []
    text = agentctl("audit", "--user", user, **where).stdout.splitlines()
    assert len(text) == 2
    assert text[1].endswith(f"data   403 main/eve POST /api/chat from=127.0.0.1 conversation={session_id} of={user}")


def test_database_that_does_not_answer_is_one_line() -> None:
    done = agentctl("audit", **database_environment(free_port(), "nobody"))
    assert done.returncode == 1
    assert done.stderr.startswith("The database cannot be used: ")
    assert "Traceback" not in done.stderr


def test_moments() -> None:
    assert moment("2026-01-31T08:00") == datetime(2026, 1, 31, 8, tzinfo=UTC)
    assert moment("2026-01-31T08:00+02:00") == datetime(2026, 1, 31, 6, tzinfo=UTC)
    assert abs(moment("2d") - (datetime.now(UTC) - timedelta(days=2))) < timedelta(minutes=1)
    refused = agentctl("audit", "--since", "yesterday")
    assert refused.returncode == 2
    assert "use 30m, 12h, 7d" in refused.stderr


def test_help_names_every_command() -> None:
    shown = agentctl("--help").stdout
    modules = {path.stem for path in (APP / "src/agent_service/commands").glob("[!_]*.py")}
    assert modules == COMMANDS.keys()
    assert all(name in shown for name in COMMANDS)
