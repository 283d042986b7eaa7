"""How far a plan has been carried out, and what is told of it. Pure: the playbook asks after every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_view import shares
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import first_line, judge, undo_of

Progress = Mapping[str, Any]
Problem = tuple[str, str]

# Forward until a critical step fails, then back; stuck when the way back fails as well.
FORWARD, BACK, STUCK = "forward", "back", "stuck"

TITLES = {
    "traffic": "Move the traffic",
    "fetch": "Fetch the artifact from the edge",
    "store": "Keep the artifact on the edge",
    "install": "Install the release into the idle slots",
    "migrate": "Migrate the database",
    "start": "Start the slots and wait until they are ready",
    "stop": "Stop what was started",
    "record": "Note the release as the current one",
    "retire": "Retire the old slots",
}


def begin(weights: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """The progress before the first step, and who has the traffic then, by edge."""
    return {"phase": FORWARD, "problems": [], "warnings": [], "undo": [], "weights": weights, "shipped": {}}


def advance(
    progress: Progress,
    steps: Sequence[Mapping[str, Any]],
    number: int,
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """The progress after step NUMBER of STEPS came to RESULTS on its hosts."""
    step = steps[number]
    after = dict(progress)
    after["weights"] = {**progress["weights"], **weights_after(results)}
    after["shipped"] = {**progress["shipped"], **shipped(results)}
    problems = judge(step, results)
    if not problems:
        return after
    if progress["phase"] == BACK:
        undone = [(host, f"what was begun is not undone: {first_line(text)}") for host, text in problems]
        return {**after, "phase": STUCK, "problems": [*progress["problems"], *undone]}
    if not step["critical"]:
        return {**after, "warnings": [*progress["warnings"], *problems]}
    undo = undo_of(steps, number)
    return {**after, "phase": BACK, "problems": [*progress["problems"], *problems], "undo": undo}


def weights_after(results: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    return {
        host: {str(server): int(weight) for server, weight in result["after"].items()}
        for host, result in results.items()
        if isinstance(result, Mapping) and isinstance(result.get("after"), Mapping)
    }


def shipped(results: Mapping[str, Any]) -> dict[str, int]:
    return {
        host: int(result["shipped_bytes"])
        for host, result in results.items()
        if isinstance(result, Mapping) and result.get("shipped_bytes")
    }


def plan_lines(plan: Mapping[str, Any]) -> list[str]:
    """The plan as a person reads it."""
    if plan["verdict"] == "refused":
        return [f"{host or 'fleet'}: {text}" for host, text in plan["problems"]]
    if plan["verdict"] == "nothing":
        return [f"release {plan['release']} serves already; there is nothing to do"]
    lines = [f"plan for release {plan['release']}:"]
    for step in plan["steps"]:
        hosts = ", ".join(f"{host} {step['slots'][host]}" if step["slots"] else host for host in step["hosts"])
        lines.append(f"  {TITLES[step['action']]}: {hosts}")
        for slot, percent in traffic_of(step).items():
            lines.append(f"    {slot}: {percent} %")
    return lines


def traffic_of(step: Mapping[str, Any]) -> dict[str, int]:
    """Percent of the traffic by slot, which a traffic step leads to."""
    return shares(next(iter(step["servers"].values()), {}))


def result_lines(
    plan: Mapping[str, Any],
    progress: Progress,
    releases: Mapping[str, Mapping[str, str | None]],
    seconds: float,
) -> list[str]:
    """What the fleet serves now; RELEASES are those of the slots as they were observed before."""
    now: dict[str, dict[str, str | None]] = {host: dict(slots) for host, slots in releases.items()}
    succeeded = progress["phase"] == FORWARD
    if succeeded:
        for host, slot in plan["targets"].items():
            now.setdefault(host, {})[slot] = plan["release"]
    lines = [f"{headline(plan, progress)} ({seconds:.0f} s)"]
    for edge, weights in sorted(progress["weights"].items()):
        served = shares(weights)
        for place, percent in served.items():
            host, _, slot = place.rpartition("-")
            release = now.get(host, {}).get(slot) or "nothing that is known"
            lines.append(f"  {host}  {slot}  {release}  {percent} % of {edge}")
        if not served:
            lines.append(f"  {edge} has no slot to send traffic to")
    if progress["shipped"]:
        sent = ", ".join(f"{host} {size // 1024} KB" for host, size in sorted(progress["shipped"].items()))
        lines.append(f"  sent: {sent}")
    lines += [f"  but {host}: {text}" for host, text in progress["warnings"]]
    return lines


def headline(plan: Mapping[str, Any], progress: Progress) -> str:
    if progress["phase"] == FORWARD:
        return f"release {plan['release']} serves"
    if progress["phase"] == BACK:
        return f"release {plan['release']} was not deployed; what was begun is undone"
    return f"release {plan['release']} was not deployed, and undoing it failed; run it again when that is mended"


def told_by(problems: Iterable[Problem], hosts: Sequence[str]) -> dict[str, str]:
    """What each of HOSTS, which are the play's, ends with; the first one speaks for whom the play does not have.

    Hosts that fail together mostly fail alike: the first is told in full, the others in a line.
    """
    told: dict[str, str] = {}
    for host, text in problems:
        name = host if host in hosts else hosts[0]
        detail = text if not told else first_line(text)
        line = detail if not host or detail.startswith(host) else f"{host}: {detail}"
        told[name] = f"{told[name]}\n{line}" if name in told else line
    return told
