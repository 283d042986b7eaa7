"""What the routine makes of what it sees: a finding each, with what mends it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OK, NOTICE, PROBLEM, UNKNOWN = "ok", "notice", "problem", "unknown"
LEVELS = (PROBLEM, UNKNOWN, NOTICE, OK)
DISK_NOTICE, DISK_PROBLEM = 80, 90
MEMORY_PERCENT = 10
CERTIFICATE_NOTICE, CERTIFICATE_PROBLEM = 21, 7
ANALYZE_DAYS = 8
SLOWEST = 5
# A month that costs so much more than the one before is worth a look, from so many USD on.
COST_RATIO, COST_MINIMUM = 1.5, 1.0
DAY = 86400


@dataclass(frozen=True)
class Finding:
    """What a check came to."""

    check: str
    level: str
    text: str
    mend: str = ""


def disks(found: Iterable[Mapping[str, Any]]) -> Finding:
    """The fullest file system, by space or by files."""
    parts = [(int(disk[kind]), disk["path"], kind) for disk in found for kind in ("used", "inodes") if disk[kind]]
    if not parts:
        return Finding("disk", UNKNOWN, "no file system could be read")
    most, path, kind = max(parts)
    level = PROBLEM if most >= DISK_PROBLEM else NOTICE if most >= DISK_NOTICE else OK
    what = "files" if kind == "inodes" else "space"
    return Finding("disk", level, f"{most} % of the {what} on {path} is taken", "df -h; du -xh / | sort -h | tail")


def memory(free: int) -> Finding:
    level = PROBLEM if free < MEMORY_PERCENT else OK
    return Finding("memory", level, f"{free} % is free", "systemd-cgtop -m")


def units(failed: Sequence[str]) -> Finding:
    if not failed:
        return Finding("units", OK, "none failed")
    return Finding("units", PROBLEM, f"failed: {', '.join(failed)}", f"systemctl status {failed[0]}")


def clock(synchronized: bool | None) -> Finding:
    if synchronized is None:
        return Finding("clock", OK, "it is the host's of this container")
    return Finding(
        "clock",
        OK if synchronized else PROBLEM,
        "set by the network" if synchronized else "not set by the network",
        "timedatectl timesync-status",
    )


def drift(service: str, lines: Sequence[str]) -> Finding:
    """What was changed by hand stays until the next deploy writes it anew."""
    if not lines:
        return Finding(f"{service}: drift", OK, "everything is as it was put there")
    return Finding(f"{service}: drift", NOTICE, "; ".join(lines), "ansible-playbook playbooks/deploy.yml")


def instances(service: str, found: Sequence[Mapping[str, Any]]) -> Finding:
    running = [one for one in found if one["state"] == "active"]
    ill = [f"{one['name']}: {one['health']}" for one in running if one["health"] not in ("ok", None)]
    name = f"{service}: health"
    if ill:
        return Finding(name, PROBLEM, "; ".join(ill), f"journalctl -u '{service}@*' -n 50")
    return Finding(name, OK, f"{len(running)} running")


def certificate(service: str, days: int | None) -> Finding:
    name = f"{service}: certificate"
    if days is None:
        return Finding(name, UNKNOWN, "there is none", "ansible-playbook playbooks/site.yml --limit edge")
    level = PROBLEM if days < CERTIFICATE_PROBLEM else NOTICE if days < CERTIFICATE_NOTICE else OK
    return Finding(name, level, f"{days} days are left", "ansible-playbook playbooks/site.yml --limit edge")


def backups(lines: Sequence[str], ages: str) -> Finding:
    if lines:
        return Finding("backups", PROBLEM, "; ".join(lines))
    return Finding("backups", OK, ages or "none yet")


def verified(status: int, lines: Sequence[str]) -> Finding:
    if status == 0:
        return Finding("backups read back", OK, lines[-1] if lines else "all of them")
    return Finding(
        "backups read back", PROBLEM, "; ".join(lines[-3:]) or f"exit status {status}", "agentfleet-backup verify"
    )


def analyze(result: str, at: float | None, now: float) -> Finding:
    mend = "systemctl start postgres-analyze.service"
    if at is None:
        return Finding("statistics", NOTICE, "ANALYZE has not run since the host started", mend)
    days = (now - at) / DAY
    if result != "success":
        return Finding("statistics", PROBLEM, f"the last ANALYZE failed ({result})", mend)
    return Finding("statistics", NOTICE if days > ANALYZE_DAYS else OK, f"ANALYZE ran {days:.0f} days ago", mend)


_SLOW = re.compile(r"duration: ([0-9.]+) ms +(?:statement|execute [^:]*|parse [^:]*|bind [^:]*): (.*)")
_LITERALS = (
    (re.compile(r"'(?:[^']|'')*'"), "?"),
    (re.compile(r"\b\d+(?:\.\d+)?\b"), "?"),
    (re.compile(r"\s+"), " "),
)


def slow_statements(log: Iterable[str]) -> dict[str, list[float]]:
    """Milliseconds by statement, without the values in it: those are users' words."""
    found: dict[str, list[float]] = {}
    for line in log:
        match = _SLOW.search(line)
        if match:
            statement = match[2]
            for pattern, instead in _LITERALS:
                statement = pattern.sub(instead, statement)
            found.setdefault(statement.strip()[:160], []).append(float(match[1]))
    return found


def slow(found: Mapping[str, Sequence[float]]) -> list[Finding]:
    """The statements that took the most time of a week together."""
    if not found:
        return [Finding("slow queries", OK, "none in the log")]
    worst = sorted(found.items(), key=lambda item: -sum(item[1]))[:SLOWEST]
    return [
        Finding(
            "slow queries",
            NOTICE,
            f"{len(times)} times, {sum(times) / 1000:.1f} s together, {max(times) / 1000:.1f} s at most: {statement}",
            "EXPLAIN (ANALYZE, BUFFERS) on a copy: restore.yml -e into=look",
        )
        for statement, times in worst
    ]


def updates(simulated: str, reboot: bool) -> list[Finding]:
    """From what `apt-get --simulate upgrade` says."""
    packages = re.findall(r"^Inst (\S+) .*?\(\S+ ([^)]*)", simulated, re.MULTILINE)
    safety = [name for name, source in packages if re.search(r"security", source, re.IGNORECASE)]
    found = [Finding("updates", OK, "none")]
    if packages:
        words = f"{len(packages)} packages" + (
            f", of which {len(safety)} for security: {', '.join(safety[:8])}" if safety else ""
        )
        found = [Finding("updates", PROBLEM if safety else NOTICE, words, "ansible-playbook playbooks/patch.yml")]
    if reboot:
        found.append(Finding("reboot", NOTICE, "an upgrade waits for one", "ansible-playbook playbooks/patch.yml"))
    return found


def costs(service: str, now: Mapping[str, Any], before: Mapping[str, Any]) -> Finding:
    """This month beside the one before."""
    name = f"{service}: costs"
    spent, earlier = float(now["spent_usd"]), float(before["spent_usd"])
    projected = None if now["projected_usd"] is None else float(now["projected_usd"])
    words = f"{spent:.2f} USD this month, {earlier:.2f} the month before"
    if projected is not None:
        words += f", {projected:.2f} projected"
    dear = projected is not None and projected >= COST_MINIMUM and projected > COST_RATIO * earlier > 0
    return Finding(name, NOTICE if dear else OK, words, "agentctl costs --by agent, in console.yml")


_PINNED = re.compile(r"^([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[[^]]*\])?==([^\s;\\]+)", re.MULTILINE)


def pinned(lock: str) -> list[tuple[str, str]]:
    """Name and version of each package of a lock."""
    return [(name, version) for name, version in _PINNED.findall(lock)]


def holes(service: str, packages: Sequence[tuple[str, str]], answers: Sequence[Mapping[str, Any]]) -> Finding:
    """From what the advisories' source answers, in the order of the packages."""
    known = [
        f"{name} {version} ({', '.join(sorted(str(one['id']) for one in answer.get('vulns') or ()))})"
        for (name, version), answer in zip(packages, answers, strict=True)
        if answer.get("vulns")
    ]
    name = f"{service}: dependencies"
    if known:
        return Finding(name, PROBLEM, f"known holes: {'; '.join(known)}", "raise them in the lock, then deploy.yml")
    return Finding(name, OK, f"{len(packages)} packages, none with a known hole")
