"""What most likely keeps an app from running, from words that these programs really say."""

from __future__ import annotations

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.advice import Said, advise

APP = "shop.main:app"
CASES = {
    "module": ('ERROR:    Error loading ASGI app. Could not import module "shop.mian".', "has no module shop.mian"),
    "attribute": ('ERROR:    Error loading ASGI app. Attribute "api" not found in module "shop.main".', "has no api"),
    "package": ("ModuleNotFoundError: No module named 'httpx'", "imports httpx, which is not among its dependencies"),
    "part of a package": ("ModuleNotFoundError: No module named 'google.genai'", "imports google, which"),
    "uvicorn": ("/opt/shop/slots/blue-1/venv/bin/python: No module named uvicorn", "imports uvicorn, which"),
    "itself": ("ModuleNotFoundError: No module named 'shop.prices'", "no module shop.prices: is it committed?"),
    "variable": ("    key = os.environ['STRIPE_KEY']\nKeyError: 'STRIPE_KEY'", "wants the variable STRIPE_KEY"),
    "settings": (
        "pydantic_core._pydantic_core.ValidationError: 1 validation error for Settings\nSTRIPE_KEY\n  Field required "
        "[type=missing, input_value={}, input_type=dict]",
        "wants the variable STRIPE_KEY",
    ),
    "port": (
        "ERROR:    [Errno 98] error while attempting to bind on address ('10.0.0.21', 8100): address already in use",
        "port 8100 is taken on this host (ss -ltnp)",
    ),
    "syntax": ("    type Price = int\n         ^^^^^\nSyntaxError: invalid syntax", "Debian 12 has 3.11"),
    "newer library": (
        "ImportError: cannot import name 'override' from 'typing' (/usr/lib/python3.11)",
        "Debian 12 has",
    ),
    "uv and Python": (
        "Because the current Python version (3.11.2) does not satisfy Python>=3.12 and numpy==2.3 depends on it",
        "Debian 12 has 3.11",
    ),
    "disk": ("OSError: [Errno 30] Read-only file system: 'uploads/1.pdf'", "may not write uploads/1.pdf"),
    "permission": ("PermissionError: [Errno 13] Permission denied: '/var/shop'", "may not write /var/shop"),
    "compiler": ("error: Failed to build `psycopg2==2.9.10`\n  The build backend returned", "psycopg2 has no wheel"),
    "hash": ("  Hash mismatch for `h11==0.16.0`", "is not the one that was locked"),
}


@pytest.mark.parametrize(("lines", "told"), CASES.values(), ids=CASES)
def test_what_programs_say_is_understood(lines: str, told: str) -> None:
    before = "Traceback (most recent call last):\n  File '/opt/shop/releases/1/shop/main.py', line 3, in <module>\n"
    advice = advise(Said(app=APP, port=8100, lines=before + lines))
    assert told in advice
    assert "\n" not in advice


def test_what_a_unit_and_the_answers_tell() -> None:
    assert "agent_memory_max" in advise(Said(app=APP, results=("success", "oom-kill")))
    assert "agent_notify: false" in advise(Said(app=APP, unannounced=True))
    assert "the app has no /ready" in advise(Said(app=APP, answers={"blue-1": '404 {"detail":"Not Found"}'}))


def test_nothing_is_guessed() -> None:
    assert advise(Said(app=APP, lines="RuntimeError: the shop is closed", answers={"blue-1": "503 starting"})) == ""
