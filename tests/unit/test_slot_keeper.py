"""What a host decides about a slot whose warm time is over, from the edges' figures."""

import importlib.machinery
import importlib.util
import subprocess
import time
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


class Host:
    """What the host answers to the keeper's commands; who ran is in `said`."""

    def __init__(self, keeper, monkeypatch, tmp_path, refused=""):
        self.active = ["agent@blue-1.service", "agent-worker@blue-1.service"]
        self.refused = refused
        self.said = []
        self.releases = {"blue": "new-000000000002", "green": "old-000000000001"}
        monkeypatch.setattr(keeper, "release_of", lambda _service, slot: self.releases[slot])
        monkeypatch.setattr(keeper.subprocess, "run", self.run)
        monkeypatch.setattr(keeper, "slots_of", lambda *_words: edge(keeper, 0, 100))
        self.metrics = tmp_path / "metrics"
        self.metrics.write_text("")
        self.keeper = keeper

    def run(self, words, **_options):
        self.said.append(" ".join(words))
        if words[1] == "list-units":
            shown = [unit for unit in self.active if unit.startswith(words[-1].removesuffix("-*.service"))]
            return subprocess.CompletedProcess(words, 0, stdout="\n".join(shown), stderr="")
        if words[0] == self.keeper.CONSOLE:
            return subprocess.CompletedProcess(words, bool(self.refused), stdout="3 jobs moved\n", stderr=self.refused)
        if words[1] == "stop":
            self.active = [unit for unit in self.active if unit not in words]
        return subprocess.CompletedProcess(words, 0)

    def decides(self, until):
        self.keeper.main("agent", "blue", "agent1", "failed", str(until), f"file://{self.metrics}#")
        return self.said


@pytest.fixture
def host(keeper, monkeypatch, tmp_path):
    return Host(keeper, monkeypatch, tmp_path)


def test_what_waits_for_its_worker_goes_to_the_other_slots_release_before_it_ends(host, capsys):
    said = host.decides(time.time() + 60)
    moved = next(line for line in said if "hand-over" in line)
    assert "--slot blue " in moved
    assert moved.endswith("--from new-000000000002 --to old-000000000001")
    assert said.index(moved) < said.index("systemctl stop agent-worker@blue-1.service agent@blue-1.service")
    assert "3 jobs moved" in capsys.readouterr().out


def test_a_worker_goes_on_with_what_the_other_release_does_not_know_while_there_is_time(host, capsys):
    host.refused = "old does not know what waits for new: shout (2)"
    assert not any(" stop " in line for line in host.decides(time.time() + 60))
    assert "it goes on running" in capsys.readouterr().out
    assert any(" stop " in line for line in host.decides(time.time() - 1))
    assert "goes on waiting: old does not know" in capsys.readouterr().out


@pytest.mark.parametrize("green", ["", "new-000000000002"])
def test_nothing_is_handed_over_where_there_is_no_other_release(host, green):
    host.releases["green"] = green
    said = host.decides(time.time() + 60)
    assert not any("hand-over" in line for line in said)
    assert "systemctl stop agent-worker@blue-1.service agent@blue-1.service" in said


def test_a_service_without_workers_hands_nothing_over(host):
    host.active = ["agent@blue-1.service"]
    assert not any("hand-over" in line for line in host.decides(time.time() + 60))
