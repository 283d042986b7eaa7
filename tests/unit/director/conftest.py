"""A director with its journal and a fake HAProxy; time goes on only when a test says so."""

import sys
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Director, Places

sys.path.insert(0, str(Path(__file__).parents[2] / "support"))
from fake_haproxy import FakeHaproxy, FakeServer

SERVERS = ("agent1-blue-1", "agent1-green-1", "agent2-blue-1", "agent2-green-1")
CONFIG = "backend agent\n" + "".join(f"    server {name} 10.0.0.1:8100 weight 0\n" for name in SERVERS)


class Clock:
    def __init__(self):
        self.now = 1_800_000_000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def places(tmp_path):
    (tmp_path / "haproxy.cfg").write_text(CONFIG)
    (tmp_path / "key").write_text("secret\n")
    return Places(
        directory=tmp_path / "director",
        store=tmp_path / "store",
        control=tmp_path / "director.sock",
        requests=tmp_path / "requests.sock",
        runtime=str(tmp_path / "haproxy.sock"),
        state_file=str(tmp_path / "server-state"),
        config=str(tmp_path / "haproxy.cfg"),
        route_key=tmp_path / "key",
        figures=tmp_path / "director.prom",
    )


@pytest.fixture
def haproxy(places):
    servers = {name: FakeServer(100 if "blue" in name else 0) for name in SERVERS}
    with FakeHaproxy(places.runtime, "agent", servers) as running:
        yield running


@pytest.fixture
def director(places, haproxy, clock):
    return Director(places, clock)
