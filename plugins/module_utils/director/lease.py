"""The fleet's lease: one writer at a time, by the edge's clock, with a number that only grows. Pure.

Whoever writes shows the lease's generation, on the edge and on every host. So one who lost the lease without noticing,
a laptop that slept or a module that outlived its playbook, changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

SECONDS = 30.0


class LeaseError(Exception):
    """Who has the lease, and until when."""


@dataclass(frozen=True)
class Lease:
    """`expires` is 0 once it was given back."""

    generation: int = 0
    holder: str = ""
    work: str = ""
    stage: str = ""
    since: float = 0.0
    expires: float = 0.0

    def live(self, now: float) -> bool:
        return now < self.expires

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def words(self, now: float) -> str:
        stage = f", {self.stage}" if self.stage else ""
        return (
            f"{self.holder} has the lease for {self.work}{stage}; it ends in {self.expires - now:.0f} s unless renewed"
        )


def lease_from(raw: Mapping[str, Any]) -> Lease:
    return Lease(**raw)


def acquire(lease: Lease, holder: str, work: str, now: float, seconds: float = SECONDS) -> Lease:
    """A new lease; its generation passes every one before, even where the edge is new and its journal gone."""
    if lease.live(now):
        raise LeaseError(lease.words(now))
    return Lease(max(lease.generation + 1, int(now)), holder, work, "", now, now + seconds)


def renew(lease: Lease, generation: int, now: float, stage: str = "", seconds: float = SECONDS) -> Lease:
    """The same lease for longer; one that has lapsed is not renewed, for somebody may have looked in between."""
    check(lease, generation, now)
    return replace(lease, expires=now + seconds, stage=stage or lease.stage)


def release(lease: Lease, generation: int) -> Lease:
    """Give it back; what somebody else has stays theirs."""
    return replace(lease, expires=0.0) if lease.generation == generation else lease


def check(lease: Lease, generation: int, now: float) -> None:
    """Refuse a writer that does not have the lease now."""
    if generation != lease.generation:
        raise LeaseError(
            f"generation {generation} is no longer the fleet's: {lease.generation} is, since {lease.holder} began"
            f" {lease.work}; nothing was changed"
        )
    if not lease.live(now):
        raise LeaseError(
            f"the lease of {lease.holder} for {lease.work} lapsed {now - lease.expires:.0f} s ago; nothing was changed"
        )
