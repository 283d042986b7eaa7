"""What a host decides about a slot whose warm time is over, from the edges' figures."""

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "roles/agent/files/agentfleet-slot"


@pytest.fixture
def keeper(monkeypatch):
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "agent", "blue", "agent1"])
    monkeypatch.setattr("subprocess.run", lambda *_words, **_options: None)
    loader = importlib.machinery.SourceFileLoader("agentfleet_slot", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("agentfleet_slot", loader))
    with pytest.raises(SystemExit):
        loader.exec_module(module)
    return module


FIGURES = """# HELP haproxy_server_weight Server's effective weight
haproxy_server_weight{proxy="agent",server="agent1-blue-1"} 0
haproxy_server_weight{proxy="agent",server="agent1-green-1"} 100
haproxy_server_weight{proxy="agent",server="agent1-green-2"} 100
haproxy_server_weight{proxy="agent",server="agent-1-blue-1"} 50
haproxy_server_weight{proxy="shop",server="agent1-blue-1"} 7
"""


def test_weights_are_those_of_the_service_on_this_host(keeper):
    assert keeper.weights(FIGURES, "agent", "agent1") == {"blue": 0, "green": 200}
    assert keeper.weights(FIGURES, "agent", "agent-1") == {"blue": 50, "green": 0}


@pytest.mark.parametrize(
    ("edges", "verdict"),
    [
        ([{"blue": 0, "green": 100}], "stop"),
        ([{"blue": 100, "green": 0}], "keep"),
        ([{"blue": 0, "green": 0}], "wait"),
        ([{"blue": 5, "green": 95}], "wait"),
        ([{"blue": 0, "green": 100}, {"blue": 100, "green": 0}], "wait"),
        ([], "wait"),
    ],
)
def test_a_slot_is_stopped_only_where_the_other_surely_serves(keeper, edges, verdict):
    assert keeper.decide(edges, "blue") == verdict
