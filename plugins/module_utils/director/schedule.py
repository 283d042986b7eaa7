"""Schedules of weights: how traffic moves from the slots that serve to the slots that shall. Pure.

A strategy is a row of `STRATEGIES` and nothing else: every deploy makes the wanted slots ready first, whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

# Weights of the two slots of a host add up to this, so that every host keeps its part of the traffic.
FULL = 100
CANARY_STEPS = (5, 25, 50, 100)

Weights = Mapping[str, int]


class ScheduleError(Exception):
    """One line for the user: which option is wrong, and what it may be."""


@dataclass(frozen=True)
class Host:
    """One host of a move: the servers that shall serve, and those of its other slot that serve now."""

    name: str
    new: tuple[str, ...]
    old: tuple[str, ...] = ()

    def split(self, percent: int) -> dict[str, int]:
        """Weights that give PERCENT of this host's part to what is new."""
        return {**dict.fromkeys(self.old, FULL - percent), **dict.fromkeys(self.new, percent)}


@dataclass(frozen=True)
class Stage:
    """One move of traffic: what it is called, and the weight of every server of the hosts."""

    label: str
    weights: Weights


def at_once(hosts: Sequence[Host], _steps: Sequence[int], _batch: int) -> list[Stage]:
    return [stage(f"{FULL} %", hosts, lambda _host: FULL)]


def host_by_host(hosts: Sequence[Host], _steps: Sequence[int], batch: int) -> list[Stage]:
    stages = []
    for begin in range(0, len(hosts), batch):
        moved = {host.name for host in hosts[: begin + batch]}
        label = ", ".join(host.name for host in hosts[begin : begin + batch])
        stages.append(stage(label, hosts, lambda host, moved=moved: FULL if host.name in moved else 0))  # type: ignore[misc]
    return stages


def share_by_share(hosts: Sequence[Host], steps: Sequence[int], _batch: int) -> list[Stage]:
    return [stage(f"{percent} %", hosts, lambda _host, percent=percent: percent) for percent in steps]  # type: ignore[misc]


def stage(label: str, hosts: Sequence[Host], percent: Callable[[Host], int]) -> Stage:
    return Stage(label, {server: weight for host in hosts for server, weight in host.split(percent(host)).items()})


STRATEGIES: Mapping[str, Callable[[Sequence[Host], Sequence[int], int], list[Stage]]] = {
    "rolling": host_by_host,
    "blue_green": at_once,
    "canary": share_by_share,
}


def schedule(strategy: str, hosts: Sequence[Host], steps: Sequence[int] = CANARY_STEPS, batch: int = 1) -> list[Stage]:
    """The stages of STRATEGY over HOSTS; the last one has all traffic on what is new.

    Where nothing serves yet there is nobody to protect: all at once.
    """
    if strategy not in STRATEGIES:
        raise ScheduleError(f"strategy={strategy} is unknown; allowed: {', '.join(STRATEGIES)}")
    if batch < 1:
        raise ScheduleError(f"batch={batch}: at least one host moves at a time")
    ascending = list(steps) == sorted(set(steps)) and bool(steps)
    if not ascending or steps[0] < 1 or steps[-1] != FULL:
        shown = ",".join(str(step) for step in steps)
        raise ScheduleError(f"steps={shown}: percents from 1 that rise to {FULL} are wanted, like 5,25,50,100")
    if not any(host.old for host in hosts):
        return at_once(hosts, steps, batch)
    return STRATEGIES[strategy](hosts, steps, batch)


def share(weights: Weights, servers: Sequence[str]) -> float:
    """The part of the traffic that SERVERS get."""
    total = sum(weights.values())
    return sum(weights.get(server, 0) for server in servers) / total if total else 0.0
