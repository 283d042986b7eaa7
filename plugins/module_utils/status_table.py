"""The fleet's status as lines for people. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ansible_collections.agentfleet.vm.plugins.module_utils import backup_view as backups
from ansible_collections.agentfleet.vm.plugins.module_utils.status import Host, Seen, compose, told
from ansible_collections.agentfleet.vm.plugins.module_utils.status_words import (
    duration,
    milliseconds,
    moment,
    percent,
    rate,
)

HEADINGS = (
    *("host", "groups", "os", "slot", "release", "state", "traffic", "errors", "p95", "disk free", "certificate"),
    "drift",
)


def table(fleet: str, hosts: Sequence[Host]) -> list[str]:
    """The status of a fleet."""
    document = compose(fleet, hosts)
    rows: list[tuple[str, ...]] = [HEADINGS]
    for host, shown in zip(hosts, document["hosts"], strict=True):
        rows += host_rows(host, shown)
    kept = backups.lines(told(hosts, "backup") or {})
    lines = [headline(document), *figure_line(document["figures"]), *under_way(document), *kept, "", *aligned(rows)]
    return [*lines, *alert_lines(document["alerts"]), *attention(hosts, document), *history_lines(document["history"])]


def figure_line(figures: Seen | None) -> Iterable[str]:
    if figures and figures["requests"]:
        told = f"{figures['requests']} requests in {duration(figures['seconds'])}"
        yield f"users  {told}, {rate(figures['error_rate'])} failed, p95 {milliseconds(figures['p95_seconds'])}"


def alert_lines(alerts: Sequence[Seen] | None) -> Iterable[str]:
    for alert in alerts or ():
        words = (alert["severity"], alert["name"], alert["host"], alert["summary"])
        yield f"alert  {'  '.join(word for word in words if word)}"


def attention(hosts: Sequence[Host], document: Seen) -> list[str]:
    """Why rows say so little, and what is not as it was left; the rest is told as the reason of the exit status."""
    found = []
    for host, shown in zip(hosts, document["hosts"], strict=True):
        lines = list(shown["attention"]) if host.unreachable else []
        lines += [f"drift: {line}" for line in shown["drift"] or ()]
        found += [f"  {host.name}: {line}" for line in lines]
    return ["", *found] if found else []


def under_way(document: Seen) -> Iterable[str]:
    lease, rollout = document["lease"], document["rollout"]
    if lease:
        yield f"lease  {lease['holder']}, {lease['work']}, {lease['ends_in']} s left unless renewed"
    if rollout:
        share = percent(rollout["share"])
        what = f"{rollout['kind']} of {rollout['release']}"
        yield f"under way  {what}: {rollout['phase']}, stage {rollout['stage']}, {share}"


def history_lines(history: Sequence[Seen]) -> list[str]:
    """The last deploys and rollbacks."""
    if not history:
        return []
    rows: list[tuple[str, ...]] = [("when (UTC)", "what", "outcome", "release", "strategy", "seconds", "by")]
    for entry in history:
        when = moment(float(entry["began_at"]))
        seconds = f"{float(entry['seconds']):.0f}"
        row = (when, entry["kind"], entry["outcome"], entry["release"], entry["strategy"], seconds, entry["by"])
        rows.append(tuple(str(word) for word in row))
    lines = aligned(rows)
    reason = str(history[-1].get("reason") or "") if history[-1]["outcome"] != "promoted" else ""
    return ["", *lines, *([f"  why: {reason}"] if reason else [])]


def headline(document: Seen) -> str:
    answered = document["traffic"]
    if answered is None:
        serving = "traffic not known"
    elif not answered:
        serving = "no traffic"
    else:
        serving = "traffic " + ", ".join(f"{percent(share)} {release}" for release, share in answered.items())
    return f"fleet {document['fleet']}   release {document['release'] or 'none yet'}   {serving}"


def host_rows(host: Host, shown: Seen) -> list[tuple[str, ...]]:
    groups = ",".join(host.groups)
    if host.unreachable or host.failed:
        state = "unreachable" if host.unreachable else "not observed"
        return [(host.name, groups, "", "", "", state, *[""] * (len(HEADINGS) - 6))]
    disk, days = host.seen.get("disk_free_percent"), host.seen.get("certificate_days")
    issuer = (host.seen.get("certificate") or {}).get("issuer")
    begin = (host.name, groups, str(host.seen.get("os") or ""))
    by = f" ({issuer})" if issuer else ""
    drift = f"{len(shown['drift'])} things" if shown["drift"] else ""
    end = ("" if disk is None else f"{disk} %", "" if days is None else f"{days} days{by}", drift)
    if shown["slots"] is None:
        return [(*begin, *[""] * (len(HEADINGS) - len(begin) - len(end)), *end)]
    rows: list[tuple[str, ...]] = []
    for slot, known in shown["slots"].items():
        share = "?" if known["share"] is None else percent(known["share"])
        served = (rate(known["error_rate"]), milliseconds(known["p95_seconds"])) if known["requests"] else ("", "")
        row = (slot, known["release"] or "", known["state"], share, *served)
        rows.append((*begin, *row, *end) if not rows else ("", "", "", *row, "", "", ""))
    return rows


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    used = [column for column, width in enumerate(widths) if any(row[column] for row in rows[1:])]
    return ["  ".join(row[column].ljust(widths[column]) for column in used).rstrip() for row in rows]
