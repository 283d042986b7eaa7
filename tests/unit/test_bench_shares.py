"""How the traffic moved, as the bench's plots show it."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "bench"))
from shares import Share, shares

SLOTS = {"a1-blue": "old", "a1-green": "new"}


def weights(blue: int, green: int) -> dict[str, int]:
    return {"a1-blue-1": blue, "a1-green-1": green}


def rollout(name: str, kind: str, release: str, *stages: tuple[str, int, int]) -> dict[str, object]:
    made = [{"label": label, "weights": weights(blue, green)} for label, blue, green in stages]
    return {"id": name, "kind": kind, "release": release, "slots": SLOTS, "stages": made, "before": weights(100, 0)}


def state(at: float, name: str, phase: str, stage: int = 0) -> dict[str, object]:
    return {"event": "state", "at": at, "id": name, "state": {"phase": phase, "stage": stage}}


DEPLOY = rollout("d", "deploy", "new", ("5 %", 95, 5), ("100 %", 0, 100))
JOURNAL = [
    {"event": "rollout", "at": 10.0, "rollout": rollout("x", "deploy", "other", ("100 %", 0, 100))},
    state(11.0, "x", "baking"),
    {"event": "lease", "at": 101.0},
    {"event": "rollout", "at": 102.0, "rollout": DEPLOY},
    state(103.0, "d", "baking", 0),
    state(104.0, "d", "moving", 1),
    state(105.0, "d", "baking", 1),
]


def test_stages_and_the_way_back() -> None:
    back = {"event": "rollout", "at": 120.0, "rollout": rollout("r", "rollback", "old", ("100 %", 100, 0))}
    assert shares([*JOURNAL, state(106.0, "d", "promoted", 1), back, state(121.0, "r", "baking")], 100.0) == [
        Share(3.0, 0.05, "5 %"),
        Share(5.0, 1.0, "100 %"),
        Share(21.0, 0.0, "rollback"),
    ]


def test_reverted_by_itself() -> None:
    assert shares([*JOURNAL, state(106.0, "d", "reverted", 1)], 100.0)[-1] == Share(6.0, 0.0, "reverted")
