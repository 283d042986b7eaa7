"""What people are told of a deploy or rollback, as one JSON object for a webhook. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.plan import first_line
from ansible_collections.agentfleet.vm.plugins.module_utils.transaction import BACK, FORWARD, LEFT, STUCK

START, END, REVERT = "start", "end", "revert"
WORDS = {
    "promoted": "succeeded",
    "submitted": "is the director's now, which goes on by itself",
    "reverted": "went back",
    "undone": "failed before it had any traffic",
    STUCK: "failed, and so did undoing it",
    LEFT: "cannot be followed any more; the director goes on by itself",
}


def started(facts: Mapping[str, Any]) -> dict[str, Any]:
    """FACTS are fleet, service, kind, release, previous and who."""
    after = f" after {facts['previous']}" if facts["previous"] else ""
    return message(facts, START, f"begins{after}", outcome="", reason="", seconds=0.0)


def ended(facts: Mapping[str, Any], progress: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The end of what `started` told of, or that it went back."""
    outcome = outcome_of(progress)
    reason = "; ".join(
        f"{host}: {first_line(text)}" if host else first_line(text) for host, text in progress["problems"]
    )
    text = f"{WORDS[outcome]} ({seconds:.0f} s)" + (f": {reason}" if reason else "")
    event = REVERT if outcome in ("reverted", "undone") else END
    return message(facts, event, text, outcome=outcome, reason=reason, seconds=round(seconds, 1))


def outcome_of(progress: Mapping[str, Any]) -> str:
    phase, said = str(progress["phase"]), str(progress["outcome"])
    if phase == FORWARD:
        return "submitted" if said == "submitted" else "promoted"
    if phase == BACK:
        return "reverted" if said == "reverted" else "undone"
    return phase


def message(facts: Mapping[str, Any], event: str, text: str, **rest: Any) -> dict[str, Any]:
    """`text` is what chat programs show; the rest is for programs."""
    named = {name: str(facts[name]) for name in ("fleet", "service", "kind", "release", "previous", "who")}
    line = f"{named['fleet']}: {named['kind']} of {named['service']} {named['release']} by {named['who']} {text}"
    return {"event": event, "text": line, **named, **rest}
