"""Renewing the lease from the controller: an answer that does not come holds up nothing."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.agentfleet.vm.plugins.plugin_utils.director import attempt


def test_what_the_director_says_is_told() -> None:
    assert attempt(lambda: {"ok": True}) is True
    assert attempt(lambda: {"ok": False, "error": "generation 7 is no longer the fleet's"}) is False


@pytest.mark.parametrize("error", [AnsibleConnectionFailure("no route to host"), OSError("gone"), KeyError("ok")])
def test_whatever_fails_is_no_answer(error: Exception) -> None:
    def ask() -> dict[str, object]:
        raise error

    assert attempt(ask) is None


def test_what_does_not_answer_in_time_is_ended_with_all_that_it_began(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def ask() -> dict[str, object]:
        helper = os.fork()
        if helper:
            pids.write_text(f"{os.getpid()} {helper}")
        signal.pause()
        return {"ok": True}

    assert attempt(ask, seconds=1.0) is None
    asker, helper = (Path(f"/proc/{pid}/stat") for pid in pids.read_text().split())
    assert not asker.exists()
    end = time.monotonic() + 20
    while lives(helper):
        assert time.monotonic() < end
        time.sleep(0.05)


def lives(process: Path) -> bool:
    """Whether it runs; somebody else's child may still wait to be buried."""
    try:
        return process.read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    except (FileNotFoundError, ProcessLookupError):
        return False
