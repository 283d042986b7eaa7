"""Whether a release may have more of the traffic: pass, fail or no-data, with the figures that say so. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.figures import Summary

PASS, FAIL, NO_DATA = "pass", "fail", "no-data"
EARLY_SAMPLES = 3


@dataclass(frozen=True)
class Policy:
    """What a release must keep to. Times in seconds, rates and shares from 0 to 1."""

    # Requirements' D8: error rate under 1 %, 95 of 100 answers begun within 2 s.
    error_rate: float = 0.01
    p95_seconds: float = 2.0
    # Slower than the stable slots by this factor, with `p95_seconds` exceeded as well, is a failure.
    slower_than_stable: float = 1.5
    minimum_sample: int = 20
    # A request without the beginning of an answer for so long counts as failed.
    overdue_seconds: float = 30.0
    # A server that shall serve may be down for so long: one failed check is no verdict.
    down_seconds: float = 5.0
    accept_no_data: bool = False
    # How long a stage waits for figures after its bake.
    hold_seconds: float = 60.0
    move_seconds: float = 30.0


@dataclass(frozen=True)
class Measured:
    """A condition that Prometheus was asked for: `value` is None where there is no answer, `problem` what is wrong."""

    name: str
    limit: float
    value: float | None
    problem: str = ""

    @property
    def words(self) -> str:
        if self.value is None:
            return f"{self.name} not measured"
        return f"{self.name} {self.value:.3g} (limit {self.limit:.3g})"


@dataclass(frozen=True)
class Verdict:
    """What it came to, why, and from which figures."""

    kind: str
    reason: str
    figures: Mapping[str, str] = field(default_factory=dict)

    def words(self) -> str:
        shown = "; ".join(f"{name}: {text}" for name, text in self.figures.items())
        return f"{self.kind}: {self.reason}" + (f" [{shown}]" if shown else "")

    def to_dict(self) -> dict[str, Any]:
        return {"kind": self.kind, "reason": self.reason, "figures": dict(self.figures)}


def judge(
    candidate: Summary,
    stable: Summary,
    policy: Policy,
    measured: Sequence[Measured] = (),
    down: Sequence[str] = (),
    early: bool = False,
) -> Verdict:
    """The verdict on a candidate, against the stable slots in the same minutes.

    An EARLY one, before a stage is over, leaves latency until the sample says more than how a cold process begins.
    """
    figures = {"new": candidate.words()}
    if stable.sample:
        figures["old"] = stable.words()
    if measured:
        figures["measured"] = ", ".join(condition.words for condition in measured)

    def verdict(kind: str, reason: str) -> Verdict:
        return Verdict(kind, reason, figures)

    if down:
        return verdict(FAIL, f"{', '.join(down)} does not answer its health check")
    over = [condition for condition in measured if condition.value is not None and condition.value > condition.limit]
    wrong = [f"{condition.name} cannot be asked: {condition.problem}" for condition in measured if condition.problem]
    if wrong:
        return verdict(FAIL, "; ".join(wrong))
    if over:
        return verdict(FAIL, "; ".join(f"{condition.words} is over its limit" for condition in over))
    if candidate.sample < policy.minimum_sample:
        return verdict(NO_DATA, f"{candidate.sample} of at least {policy.minimum_sample} requests")
    rate = candidate.error_rate or 0.0
    if rate > policy.error_rate:
        return verdict(FAIL, f"{100 * rate:.2g} % of its requests failed, {100 * policy.error_rate:.2g} % may")
    cold = early and candidate.sample < EARLY_SAMPLES * policy.minimum_sample
    if too_slow(candidate, stable, policy) and not cold:
        return verdict(
            FAIL,
            f"95 of 100 answers begin within {candidate.p95:.2f} s, over {policy.p95_seconds:g} s"
            + (f" and {policy.slower_than_stable:g} × the old release's {stable.p95:.2f} s" if stable.p95 else ""),
        )
    return verdict(PASS, "error rate and latency are within their limits")


def too_slow(candidate: Summary, stable: Summary, policy: Policy) -> bool:
    """Over the threshold and worse than the stable slots, which may be slow as well for a reason that both share."""
    if candidate.p95 is None or candidate.p95 <= policy.p95_seconds:
        return False
    if stable.p95 is None or stable.sample < policy.minimum_sample:
        return True
    return candidate.p95 > stable.p95 * policy.slower_than_stable
