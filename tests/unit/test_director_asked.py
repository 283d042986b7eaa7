"""What a playbook makes of an edge whose director is not there, or does not run."""

import json
import sys
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleError
from ansible_collections.agentfleet.vm.plugins.module_utils.director import command, control
from ansible_collections.agentfleet.vm.plugins.plugin_utils.director import NoDirector, asker


def answering(stdout="", stderr="", rc=0):
    return SimpleNamespace(_low_level_execute_command=lambda *_, **__: {"rc": rc, "stdout": stdout, "stderr": stderr})


def requested(tmp_path, monkeypatch, capsys, path):
    monkeypatch.setattr(command, "exchange", lambda do, **asked: control.exchange(do, tmp_path / path, **asked))
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(read=lambda: "{}"))
    assert command.main(["request", "lease"]) == 0
    return capsys.readouterr().out


def test_one_that_was_stopped_is_as_good_as_none(tmp_path, monkeypatch, capsys):
    """As an interrupted site.yml or teardown.yml leaves it, which another run is to finish."""
    said = requested(tmp_path, monkeypatch, capsys, "director.sock")
    with pytest.raises(NoDirector, match="no director runs here"):
        asker(answering(said))("lease")


def test_one_that_is_in_trouble_is_not(tmp_path, monkeypatch, capsys):
    (tmp_path / "director.sock").touch()
    said = requested(tmp_path, monkeypatch, capsys, "director.sock")
    assert "does not answer" in asker(answering(said))("lease")["error"]


def test_what_it_refuses_is_its_answer():
    assert asker(answering(json.dumps({"ok": False, "error": "held"})))("lease") == {"ok": False, "error": "held"}


def test_an_edge_without_it_is_told_from_one_that_says_nothing():
    with pytest.raises(NoDirector, match="run site"):
        asker(answering(rc=127))("lease")
    with pytest.raises(AnsibleError, match="cannot be asked"):
        asker(answering(stderr="broken", rc=1))("lease")
