"""maintenance.yml: users are told, releases go on, and nothing is left of it afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from support.fleet import Fleet

MESSAGE = 'Back at ten, "promised" <b>'


@pytest.fixture
def undone(fleet: Fleet) -> Iterator[None]:
    yield
    fleet.playbook("maintenance", "-e", "undo=true").ok()


def test_users_are_told_while_releases_go_on(fleet: Fleet, client: httpx.Client, undone: None) -> None:
    say = ("-e", json.dumps({"message": MESSAGE}))
    assert "would be in maintenance" in fleet.playbook("maintenance", "--check", *say).ok().stdout
    assert client.post("/api/chat", json={"message": "hello"}).status_code == 200

    assert "in maintenance" in fleet.playbook("maintenance", *say).ok().stdout
    answer = client.post("/api/chat", json={"message": "hello"})
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert answer.json()["detail"] == MESSAGE
    assert answer.headers["retry-after"] == "120"
    page = client.get("/", headers={"Accept": "text/html"})
    assert "Back at ten, &#34;promised&#34; &lt;b&gt;" in page.text
    assert client.get("/health").status_code == 200
    # The director tries the release through the edge, as ever.
    fleet.playbook("deploy", "-e", "label=maintained").ok()

    assert "in service again" in fleet.playbook("maintenance", "-e", "undo=true").ok().stdout
    assert client.post("/api/chat", json={"message": "hello"}).status_code == 200
