"""What users notice who are there for long: streams that are open while releases come and go."""

from __future__ import annotations

import json
from collections.abc import Iterator

import httpx
import pytest
from support.fleet import TOP, Fleet
from support.load import REQUEST, SOCKET, STREAM, load_on

WORDS_PER_SECOND = 2


@pytest.fixture
def paced(model_server: httpx.Client) -> Iterator[None]:
    """A model that answers word by word."""
    model_server.post("/_control", json={"tokens_per_second": WORDS_PER_SECOND}).raise_for_status()
    yield
    model_server.post("/_control", json={"reset": True}).raise_for_status()


@pytest.mark.soak
def test_streams_outlive_two_deploys_and_a_rollback(fleet: Fleet, paced: None) -> None:
    """The second deploy comes while streams of the release before are open in the slot that it needs.

    The way to the service is long, so that what closes a connection that is about to be used shows.
    """
    with load_on(fleet, 20, streams=10, words_per_second=WORDS_PER_SECOND, round_trip=0.05) as load:
        load.wait_for(100)
        for label in ("first", "second"):
            fleet.playbook("deploy", "-e", f"label={label}", "-e", "bake_seconds=0").ok()
        fleet.playbook("rollback").ok()
    assert load.failures == []
    assert load.count(kind=REQUEST).answered > 100
    # Those that were open at the begin, and those after them.
    assert load.count(kind=STREAM).answered > 10


@pytest.fixture
def own_app(fleet: Fleet) -> Iterator[list[str]]:
    """A ten-line app with a WebSocket, deployed by variables alone; the reference service comes back afterwards."""
    words = {
        "agent_source": str(TOP / "tests/support/small_app"),
        "agent_app": "main:app",
        "agent_migrate_command": "",
        "agent_smoke_requests": [{"path": "/health"}],
    }
    fleet.playbook("deploy", "-e", json.dumps(words)).ok()
    yield ["-e", json.dumps(words)]
    # Twice, for it has no metrics: those who look at every slot's would wonder.
    for label in ("after-own-app", "and-once-more"):
        fleet.playbook("deploy", "-e", f"label={label}").ok()


@pytest.mark.soak
def test_websockets_of_an_own_app_outlive_two_deploys(fleet: Fleet, own_app: list[str]) -> None:
    """The second deploy needs the slot in which conversations of the release before are still open."""
    with load_on(fleet, 10, sockets=6, lasting=(25, 40), seen=None) as load:
        load.wait_for(50)
        for label in ("first", "second"):
            run = fleet.playbook("deploy", "-e", f"label={label}", *own_app).ok()
    assert load.failures == []
    assert load.count(kind=SOCKET).answered >= 6
    assert "requests and streams under way" in run.stdout
