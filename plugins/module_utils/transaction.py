"""How far a plan has been carried out, and what is told of it. Pure: the playbook asks after every step."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_view import shares
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import first_line, judge, undo_of
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import host_and_slot

Progress = Mapping[str, Any]
Problem = tuple[str, str]

# Forward until a critical step fails, then back; stuck when the way back fails as well. Left is what the director
# has in hand and goes on with, when nobody can tell how it ended.
FORWARD, BACK, STUCK, LEFT = "forward", "back", "stuck", "left"

TITLES = {
    "overwrite": "Take the idle slots out of the traffic",
    "fetch": "Fetch the artifact from the edge",
    "store": "Keep the artifact on the edge",
    "install": "Install the release into the idle slots",
    "prepare": "Install the release into the idle slots, start them and wait until they are ready",
    "point": "Make a restore point in the database's log",
    "contract": "Note which migration the database will need its code to know",
    "migrate": "Migrate the database",
    "start": "Start the slots and wait until they are ready",
    "stop": "Stop what was started",
    "rollout": "Move the traffic",
    "retire": "Retire the old slots",
}


def begin(weights: Mapping[str, int]) -> dict[str, Any]:
    """The progress before the first step, and who has the traffic then."""
    return {
        "phase": FORWARD,
        "problems": [],
        "warnings": [],
        "undo": [],
        "weights": weights,
        "shipped": {},
        "outcome": "",
    }


def advance(
    progress: Progress,
    steps: Sequence[Mapping[str, Any]],
    number: int,
    results: Mapping[str, Any],
) -> dict[str, Any]:
    """The progress after step NUMBER of STEPS came to RESULTS on its hosts."""
    step = steps[number]
    after = dict(progress)
    after["weights"] = weights_after(results) or progress["weights"]
    after["shipped"] = {**progress["shipped"], **shipped(results)}
    after["outcome"] = outcome_of(results) or progress["outcome"]
    problems = judge(step, results)
    if not problems:
        return after
    if progress["phase"] == BACK:
        undone = [(host, f"what was begun is not undone: {first_line(text)}") for host, text in problems]
        return {**after, "phase": STUCK, "problems": [*progress["problems"], *undone]}
    if not step["critical"]:
        return {**after, "warnings": [*progress["warnings"], *problems]}
    problems = [*progress["problems"], *problems]
    if step["action"] == "rollout" and after["outcome"] in ("", "submitted", "promoted"):
        # The traffic may be on either side: nothing is stopped until somebody has looked.
        return {**after, "phase": LEFT, "problems": problems}
    return {**after, "phase": BACK, "problems": problems, "undo": undo_of(steps, number)}


def outcome_of(results: Mapping[str, Any]) -> str:
    """What the director said of its rollout: promoted, reverted, refused, submitted; nothing where it said nothing."""
    said = [
        str(result["outcome"]) for result in results.values() if isinstance(result, Mapping) and "outcome" in result
    ]
    return said[0] if said else ""


def weights_after(results: Mapping[str, Any]) -> dict[str, int]:
    """The weights that the edge read back, if it did."""
    for result in results.values():
        if isinstance(result, Mapping) and isinstance(result.get("weights"), Mapping):
            return {str(server): int(weight) for server, weight in result["weights"].items()}
    return {}


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
        hosts = [f"{host} {slot}" for host, slot in step["slots"].items()] or [step["floor"]] * bool(step["floor"])
        hosts = hosts or step["hosts"]
        lines.append(f"  {TITLES[step['action']]}: {', '.join(hosts)}")
        for stage in step["stages"]:
            moved = ", ".join(f"{slot} {percent} %" for slot, percent in shares(stage["weights"]).items())
            lines.append(f"    {stage['label']}: {moved}")
    if plan["left_out"]:
        lines.append(f"  left out, for they cannot be reached: {', '.join(plan['left_out'])}")
    return lines


def result_lines(
    plan: Mapping[str, Any],
    progress: Progress,
    releases: Mapping[str, Mapping[str, str | None]],
    seconds: float,
) -> list[str]:
    """What the fleet serves now; RELEASES are those of the slots as they were observed before."""
    now: dict[str, dict[str, str | None]] = {host: dict(slots) for host, slots in releases.items()}
    if progress["phase"] == FORWARD:
        for host, slot in plan["targets"].items():
            now.setdefault(host, {})[slot] = plan["release"]
    lines = [f"{headline(plan, progress)} ({seconds:.0f} s)"]
    served = shares(progress["weights"])
    for place, percent in served.items():
        host, slot = host_and_slot(place)
        release = now.get(host, {}).get(slot) or "nothing that is known"
        lines.append(f"  {host}  {slot}  {release}  {percent} %")
    if not served:
        lines.append("  no slot has traffic")
    if progress["shipped"]:
        sent = ", ".join(f"{host} {size // 1024} KB" for host, size in sorted(progress["shipped"].items()))
        lines.append(f"  sent: {sent}")
    if plan["left_out"]:
        lines.append(f"  without {', '.join(plan['left_out'])}, which cannot be reached: site.yml brings them in later")
    lines += [f"  but {host}: {text}" for host, text in progress["warnings"]]
    return lines


def headline(plan: Mapping[str, Any], progress: Progress) -> str:
    release = plan["release"]
    if progress["outcome"] == "submitted" and progress["phase"] == FORWARD:
        return f"release {release} is being rolled out by the director; see: ansible-playbook playbooks/status.yml"
    return {
        FORWARD: f"release {release} serves",
        BACK: f"release {release} was not deployed; what was begun is undone",
        STUCK: f"release {release} was not deployed, and undoing it failed; run it again when that is mended",
        LEFT: f"release {release}: the director has it in hand; run it again to pick it up",
    }[str(progress["phase"])]


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
