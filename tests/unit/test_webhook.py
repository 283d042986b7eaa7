"""Telling people: what the message says; a webhook that is slow, gone or rude holds nothing up and shows nothing."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.notice import ended, started
from ansible_collections.agentfleet.vm.plugins.plugin_utils.webhook import send

FACTS = {
    "fleet": "production",
    "service": "agent",
    "kind": "deploy",
    "release": "2.0-000000000002",
    "previous": "1.0-000000000001",
    "who": "ann@laptop",
}
TOP = Path(__file__).resolve().parents[2]
TOKEN = "a-token-that-nobody-may-see"


def progress(phase: str, outcome: str = "", *problems: tuple[str, str]) -> dict[str, Any]:
    return {"phase": phase, "outcome": outcome, "problems": problems}


def test_the_start_says_who_deploys_what() -> None:
    told = started(FACTS)
    assert told["text"] == ("production: deploy of agent 2.0-000000000002 by ann@laptop begins after 1.0-000000000001")
    assert {**FACTS, "event": "start", "outcome": "", "reason": "", "seconds": 0.0}.items() <= told.items()
    assert started({**FACTS, "previous": ""})["text"].endswith("ann@laptop begins")


@pytest.mark.parametrize(
    ("phase", "said", "event", "outcome"),
    [
        ("forward", "promoted", "end", "promoted"),
        ("forward", "", "end", "promoted"),
        ("forward", "submitted", "end", "submitted"),
        ("back", "reverted", "revert", "reverted"),
        ("back", "", "revert", "undone"),
        ("stuck", "", "end", "stuck"),
        ("left", "submitted", "end", "left"),
    ],
)
def test_the_end_says_what_it_came_to(phase: str, said: str, event: str, outcome: str) -> None:
    told = ended(FACTS, progress(phase, said), 41.23)
    assert (told["event"], told["outcome"], told["seconds"], told["reason"]) == (event, outcome, 41.2, "")


def test_a_revert_says_why_in_a_line() -> None:
    told = ended(FACTS, progress("back", "reverted", ("edge1", "the director went back: fail\nmore"), ("", "x")), 7)
    assert told["reason"] == "edge1: the director went back: fail; x"
    assert told["text"].endswith("by ann@laptop went back (7 s): edge1: the director went back: fail; x")


class Webhook:
    """A server that keeps what it gets and answers as ACT does."""

    def __init__(self, act: Callable[[BaseHTTPRequestHandler], None]) -> None:
        self.got: list[dict[str, Any]] = []
        got = self.got

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                act(self)

            def log_message(self, *_arguments: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}/{TOKEN}"


@pytest.fixture
def webhook() -> Iterator[Callable[[Callable[[BaseHTTPRequestHandler], None]], Webhook]]:
    running: list[Webhook] = []

    def make(act: Callable[[BaseHTTPRequestHandler], None]) -> Webhook:
        running.append(Webhook(act))
        return running[-1]

    yield make
    for one in running:
        one.server.shutdown()
        one.server.server_close()


def answer(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(status)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return act


def test_a_webhook_gets_the_message(webhook: Callable[..., Webhook]) -> None:
    there = webhook(answer(204))
    assert send(there.url, {**started(FACTS), "reason": "Grüße"}) == ""
    assert there.got == [{**started(FACTS), "reason": "Grüße"}]


@pytest.mark.parametrize("status", [301, 307, 403, 500])
def test_what_it_does_not_take_is_told(webhook: Callable[..., Webhook], status: int) -> None:
    there = webhook(answer(status, Location="http://127.0.0.1:9/elsewhere"))
    assert send(there.url, {}) == f"it answered {status}"


def test_one_that_trickles_or_hangs_is_left(webhook: Callable[..., Webhook]) -> None:
    enough = threading.Event()

    def trickle(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "1000000")
        handler.end_headers()
        while not enough.wait(0.05):
            handler.wfile.write(b".")

    there = webhook(trickle)
    assert send(there.url, {}, seconds=0.3) == "no answer within 0.3 s"
    enough.set()
    hangs_up = webhook(lambda handler: handler.connection.close())
    problem = send(hangs_up.url, {}, seconds=5)
    assert problem
    assert TOKEN not in problem


PLAY = """
- hosts: localhost
  gather_facts: false
  tasks:
    - agentfleet.vm.webhook:
        url: "{{ fleet_webhook_url }}"
        message: {event: start, text: "It begins"}
      no_log: true
    - debug:
        msg: it goes on
"""


@pytest.mark.parametrize("check", [False, True])
def test_a_playbook_tells_once_goes_on_and_shows_no_token(
    webhook: Callable[..., Webhook], tmp_path: Path, check: bool
) -> None:
    there = webhook(answer(500))
    (tmp_path / "play.yml").write_text(PLAY)
    (tmp_path / "url.yml").write_text(json.dumps({"fleet_webhook_url": there.url}))
    words = ["-i", "localhost,", "-c", "local", str(tmp_path / "play.yml"), "-vvv", "-e", f"@{tmp_path / 'url.yml'}"]
    done = subprocess.run(
        [str(Path(sys.executable).with_name("ansible-playbook")), *words, *(["--check"] if check else [])],
        cwd=TOP,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0
    assert "it goes on" in done.stdout
    assert TOKEN not in done.stdout + done.stderr
    assert ("was not told of the start: it answered 500" in done.stderr + done.stdout) is not check
    assert there.got == ([] if check else [{"event": "start", "text": "It begins"}])


def test_one_that_is_gone_or_no_address_shows_no_token() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{held.getsockname()[1]}/{TOKEN}"
        problem = send(gone, {})
    assert problem == "ConnectionRefusedError"
    for wrong in (f"ftp://example.com/{TOKEN}", TOKEN, f"http:///{TOKEN}", f"http://127.0.0.1:9 9/{TOKEN}", ""):
        problem = send(wrong, {})
        assert problem
        assert TOKEN not in problem
