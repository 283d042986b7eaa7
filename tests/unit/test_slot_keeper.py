"""What a host decides about a slot whose warm time is over, from the edges' figures."""

import importlib.machinery
import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "roles/agent/files/agentfleet-slot"


@pytest.fixture
def keeper(monkeypatch):
    monkeypatch.setattr("sys.argv", [str(SCRIPT), "agent", "blue", "agent1", "warm", "0"])
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
haproxy_server_current_sessions{proxy="agent",server="agent1-blue-1"} 3
haproxy_server_current_sessions{proxy="shop",server="agent1-blue-1"} 4
"""


def test_figures_are_those_of_the_service_on_this_host(keeper):
    assert keeper.slots_of(FIGURES, "agent", "agent1") == {"blue": (0, 3), "green": (200, 0)}
    assert keeper.slots_of(FIGURES, "agent", "agent-1") == {"blue": (50, 0), "green": (0, 0)}


def edge(keeper, blue, green, sessions=0):
    return {"blue": keeper.Slot(blue, sessions), "green": keeper.Slot(green, 9)}


@pytest.mark.parametrize(
    ("edges", "failed", "verdict"),
    [
        ([(0, 100)], False, "stop"),
        ([(100, 0)], False, "keep"),
        ([(0, 0)], False, "wait"),
        ([(5, 95)], False, "wait"),
        ([(0, 100), (100, 0)], False, "wait"),
        ([], False, "wait"),
        # A release that failed where nothing served before.
        ([(0, 0)], True, "stop"),
        ([(100, 0)], True, "keep"),
        ([(5, 95)], True, "wait"),
    ],
)
def test_a_slot_is_stopped_only_where_it_surely_serves_nobody(keeper, edges, failed, verdict):
    assert keeper.decide([edge(keeper, *weights) for weights in edges], "blue", failed, True)[0] == verdict


def test_what_is_under_way_may_end_as_long_as_there_is_time(keeper):
    edges = [edge(keeper, 0, 100, sessions=2), edge(keeper, 0, 100, sessions=1)]
    assert keeper.decide(edges, "blue", False, True) == ("wait", "3 requests and streams are under way")
    assert keeper.decide(edges, "blue", False, False)[0] == "stop"
