"""An app of one's own that has a mistake in it: one line names it with what mends it, and users notice nothing."""

from __future__ import annotations

import json
import secrets
from pathlib import Path

import pytest
from support.deploys import serving
from support.fleet import TOP, Fleet, Result

LOCK = (TOP / "tests/support/small_app/requirements.txt").read_text()
HEAD = """
import os, socket

def tell(state):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
        notify.sendto(state, os.environ["NOTIFY_SOCKET"])
"""
APP = """
PATHS = {"/health", "/ready"}

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        tell(b"READY=1")
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    status = 200 if scope["path"] in PATHS else 404
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": b"{}"})
"""
GOOD = {"shop/__init__.py": "", "shop/main.py": HEAD + APP, "requirements.txt": LOCK}
NEWER = '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.12"\n'

# What is wrong, by files of the app or variables of the deploy; and what is told of it.
SEEN_BEFORE: dict[str, tuple[dict[str, str | None], dict[str, object], str]] = {
    "nothing says what it needs": (
        {"requirements.txt": None},
        {},
        "has no requirements.txt, and no pyproject.toml with dependencies: make one that names what it imports, and",
    ),
    "no uvicorn": (
        {"requirements.txt": LOCK.partition("uvicorn==")[0]},
        {},
        "uvicorn, which runs the app, is not among its dependencies: add it to them, and commit that",
    ),
    "wrong module": (
        {},
        {"agent_app": "shop.mian:app"},
        "agent_app is shop.mian:app, and the release has no shop/mian.py; did you mean shop.main:app?",
    ),
    "no migration": (
        {},
        {"agent_migrate_command": "alembic upgrade head"},
        'the release has no alembic.ini: commit it, or set agent_migrate_command: "" for an app without migrations',
    ),
    "a secret among the files": (
        {"shop/.env": "KEY=1"},
        {},
        "shop/.env looks like a secret: take it out, and give secrets in agent_secrets",
    ),
    "another Python": (
        {"pyproject.toml": NEWER},
        {},
        "and the release wants >=3.12 (pyproject.toml): reinstall the host with another Debian, or set agent_runtime",
    ),
}
SEEN_ON_THE_HOST: dict[str, tuple[dict[str, str | None], dict[str, object], str]] = {
    "wrong attribute": (
        {},
        {"agent_app": "shop.main:application"},
        "agent_app is shop.main:application, and module shop.main has no application",
    ),
    "missing package": (
        {"shop/main.py": "import httpx\n" + HEAD + APP},
        {},
        "the app imports httpx, which is not among its dependencies: add what provides it to requirements.txt",
    ),
    "missing variable": (
        {"shop/main.py": HEAD + 'KEY = os.environ["STRIPE_KEY"]\n' + APP},
        {},
        "the app wants the variable STRIPE_KEY: set it in agent_environment; a secret goes to agent_secrets",
    ),
    "writes beside its code": (
        {"shop/main.py": HEAD + 'open("shop.db", "w")\n' + APP},
        {},
        "the app may not write shop.db: its releases are read-only",
    ),
    "no /ready": (
        {"shop/main.py": (HEAD + APP).replace(', "/ready"', "")},
        {},
        "the app has no /ready: add it, with status 200 once it can serve",
    ),
    "no word to systemd": (
        {"shop/main.py": (HEAD + APP).replace('tell(b"READY=1")', "pass")},
        {},
        "it answers, and does not tell systemd that it is ready: set agent_notify: false, or send READY=1",
    ),
    "no /health": (
        {"shop/main.py": (HEAD + APP).replace('"/health", ', "")},
        {},
        "GET /health at agent1-",
    ),
}


def committed(fleet: Fleet, directory: Path, files: dict[str, str | None]) -> Path:
    for name, text in {**GOOD, **files}.items():
        if text is not None:
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    git = ("git", "-C", str(directory))
    fleet.run(*git, "init", "--quiet").ok()
    fleet.run(*git, "add", "--all").ok()
    who = ("-c", "user.name=Test", "-c", "user.email=test@example.com")
    fleet.run(*git, *who, "commit", "--quiet", "--message", "The shop").ok()
    return directory


def deployed(fleet: Fleet, app: Path, words: dict[str, object]) -> Result:
    own = {
        "agent_source": str(app),
        "agent_app": "shop.main:app",
        "agent_migrate_command": "",
        "agent_smoke_requests": [{"path": "/health"}],
        "bake_seconds": 0,
        "label": "shop",
    }
    return fleet.playbook("deploy", "-e", json.dumps({**own, **words}))


def refused(fleet: Fleet, tmp_path: Path, files: dict[str, str | None], words: dict[str, object], told: str) -> Result:
    before = serving(fleet)
    result = deployed(fleet, committed(fleet, tmp_path / "shop", files), words)
    assert result.returncode != 0
    lines = [line for line in result.stdout.splitlines() if told in line]
    assert lines, result.stdout[-4000:]
    assert serving(fleet) == before
    return result


@pytest.mark.soak
@pytest.mark.parametrize(("files", "words", "told"), SEEN_BEFORE.values(), ids=SEEN_BEFORE)
def test_what_is_seen_in_the_files_is_refused_before_anything_changes(
    fleet: Fleet, stable: str, tmp_path: Path, files: dict[str, str | None], words: dict[str, object], told: str
) -> None:
    result = refused(fleet, tmp_path, files, words, told)
    assert set(result.changed().values()) == {0}


@pytest.mark.soak
@pytest.mark.parametrize(("files", "words", "told"), SEEN_ON_THE_HOST.values(), ids=SEEN_ON_THE_HOST)
def test_what_is_seen_when_it_starts_is_told_and_undone(
    fleet: Fleet, stable: str, tmp_path: Path, files: dict[str, str | None], words: dict[str, object], told: str
) -> None:
    refused(fleet, tmp_path, files, words, told)


def test_one_mistake_of_each_kind(fleet: Fleet, stable: str, tmp_path: Path) -> None:
    refused(fleet, tmp_path / "1", *SEEN_BEFORE["wrong module"])
    refused(fleet, tmp_path / "2", *SEEN_ON_THE_HOST["missing package"])


def test_a_deploy_says_which_variable_gives_slots_another_identity(fleet: Fleet, stable: str, app: Path) -> None:
    key = secrets.token_hex(20)
    words = {"agent_source": str(app), "label": "stable", "agent_log_level": "debug", "agent_model_key": key}
    told = fleet.playbook("deploy", "--check", "-e", json.dumps(words)).ok().stdout
    [line] = [line for line in told.splitlines() if " changes " in line]
    assert line.split("changes", 1)[1].strip() == "variable AGENT_LOG_LEVEL (new value), secret model_key (new value)"
    assert key not in told
