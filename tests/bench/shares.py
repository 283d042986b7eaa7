"""How the traffic moved, from the director's journal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Share:
    """From AT on, in seconds since the load began, the new release has SHARE of the traffic; LABEL is the stage's."""

    at: float
    share: float
    label: str


def shares(entries: Iterable[Mapping[str, Any]], began: float) -> list[Share]:
    """Each move since BEGAN, by the wall's clock. The new release is the first one that was rolled out since then."""
    rollouts: dict[str, Mapping[str, Any]] = {}
    new = ""
    moves: list[Share] = []
    for entry in entries:
        if entry["at"] < began:
            continue
        if entry["event"] == "rollout":
            rollouts[entry["rollout"]["id"]] = entry["rollout"]
            new = new or str(entry["rollout"]["release"])
        if entry["event"] != "state" or entry["id"] not in rollouts:
            continue
        rollout, state = rollouts[entry["id"]], entry["state"]
        if state["phase"] == "reverted":
            weights, label = rollout["before"], "reverted"
        elif state["phase"] == "baking":
            stage = rollout["stages"][state["stage"]]
            weights, label = stage["weights"], stage["label"] if rollout["kind"] == "deploy" else rollout["kind"]
        else:
            continue
        part = part_of(weights, rollout["slots"], new)
        if not moves or moves[-1].share != part:
            moves.append(Share(entry["at"] - began, part, label))
    return moves


def part_of(weights: Mapping[str, int], slots: Mapping[str, str], release: str) -> float:
    """The part of the traffic that goes to slots (host-blue …) with this release; weights are of instances."""
    mine = sum(weight for server, weight in weights.items() if slots.get(server.rpartition("-")[0]) == release)
    return mine / (sum(weights.values()) or 1)
