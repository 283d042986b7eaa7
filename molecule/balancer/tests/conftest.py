"""Both slots of each host are up and blue serves, whatever the test before left."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from slots import install, move, start


@pytest.fixture
def name(host):
    return host.backend.get_hostname()


@pytest.fixture
def blue(name):
    return f"{name}-blue-1"


@pytest.fixture
def green(name):
    return f"{name}-green-1"


@pytest.fixture(autouse=True)
def both_slots_up_and_blue_serving(host, address, blue, green):
    install(host)
    for server in (blue, green):
        start(host, server, address)
    host.run_expect([0], "systemctl is-active -q haproxy || systemctl restart haproxy")
    move(host, {blue: 100, green: 0})
