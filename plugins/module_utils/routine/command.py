"""agentfleet-routine: what one looks at each day, week and month, on each host by itself. A timer calls it."""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import (
    backup_view,
    certificate,
    disk,
    host_facts,
    host_view,
    systemd,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.routine import judge
from ansible_collections.agentfleet.vm.plugins.module_utils.routine.judge import UNKNOWN, Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import SLOTS, Service

SETTINGS = Path("/etc/agentfleet/routine")
STATE = Path("/var/lib/agentfleet/routine")
FIGURES = Path("/var/lib/prometheus/node-exporter/agentfleet_routine.prom")
CONSOLE = "/usr/local/lib/agentfleet/agentfleet-console"
# The reference service's; another that has none is not asked further.
COSTS = "python -m agent_service.cli costs --json"
POSTGRES_LOGS = Path("/var/log/postgresql")
# A routine that is younger than this is not due; somewhat less than its time, so that none slips by a day.
DUE_SECONDS = {"daily": 0.0, "weekly": 6.5 * judge.DAY, "monthly": 29.5 * judge.DAY}
MONTH_SECONDS = 31 * judge.DAY
WEEK_SECONDS = 7 * judge.DAY
BATCH = 500

Settings = Mapping[str, Any]
Check = Callable[[Settings], Iterable[Finding]]
TROUBLES = (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError, systemd.CommandError)


def look_at_host(_wanted: Settings) -> Iterable[Finding]:
    yield judge.disks(host_facts.disks())
    yield judge.memory(int(host_facts.memory()["memory_free_percent"]))
    yield judge.units(host_facts.failed_units())
    yield judge.clock(host_facts.clock())


def look_at_agent(wanted: Settings) -> Iterable[Finding]:
    service = service_of(wanted)
    seen = host_view.of_agent(service)
    yield judge.instances(service.name, seen["instances"])
    yield judge.drift(service.name, seen["drift"])


def look_at_edge(wanted: Settings) -> Iterable[Finding]:
    found = certificate.read(Path(wanted["certificate"]))
    yield judge.certificate(str(wanted["service"]), found.days_left(time.time()) if found else None)


def look_at_backups(_wanted: Settings) -> Iterable[Finding]:
    seen = host_view.backup_of(host_view.BACKUPS)
    yield judge.backups(list(backup_view.problems(seen)), backup_view.ages(seen) if seen else "")


def read_backups(_wanted: Settings) -> Iterable[Finding]:
    done = subprocess.run(["agentfleet-backup", "verify"], capture_output=True, text=True, check=False)
    yield judge.verified(done.returncode, (done.stdout + done.stderr).strip().splitlines())


def look_at_statistics(_wanted: Settings) -> Iterable[Finding]:
    unit = "postgres-analyze.service"
    shown = systemd.show([unit], "Result", "ExecMainExitTimestampMonotonic").get(unit, {})
    ended = int(shown.get("ExecMainExitTimestampMonotonic") or 0) / 1e6
    at = time.time() - time.clock_gettime(time.CLOCK_MONOTONIC) + ended if ended else None
    yield judge.analyze(str(shown.get("Result")), at, time.time())


def look_at_slow_queries(_wanted: Settings) -> Iterable[Finding]:
    since = time.time() - WEEK_SECONDS
    logs = [
        path for path in sorted(POSTGRES_LOGS.glob("*.log*")) if path.suffix != ".gz" and path.stat().st_mtime > since
    ]
    lines = (line for path in logs for line in path.read_text(errors="replace").splitlines())
    yield from judge.slow(judge.slow_statements(lines))


def look_at_updates(_wanted: Settings) -> Iterable[Finding]:
    shown = systemd.run("apt-get", "--simulate", "-o", "Debug::NoLocking=1", "upgrade").decode(errors="replace")
    yield from judge.updates(shown, Path("/run/reboot-required").exists())


def look_at_costs(wanted: Settings) -> Iterable[Finding]:
    """Asked of one host: all have the same database."""
    if not wanted["first_agent"]:
        return
    service = str(wanted["service"])
    before = time.strftime("%Y-%m", time.gmtime(time.time() - MONTH_SECONDS))
    documents = []
    for options in ("", f" --month {before}"):
        words = [CONSOLE, service, "shell", "-c", f"{COSTS}{options}"]
        done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
        if done.returncode:
            said = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            yield Finding(f"{service}: costs", UNKNOWN, f"the service tells none: {said[:200]}")
            return
        documents.append(json.loads(done.stdout[done.stdout.index("{") :]))
    yield judge.costs(service, *documents)


def look_at_dependencies(wanted: Settings) -> Iterable[Finding]:
    service, name = service_of(wanted), f"{wanted['service']}: dependencies"
    running = [slot for slot in SLOTS if (service.slot(slot) / "release").exists()]
    locks = {(service.slot(slot) / "release/requirements.txt").resolve() for slot in running}
    packages = sorted({one for lock in locks if lock.exists() for one in judge.pinned(lock.read_text())})
    source = str(wanted["advisories"])
    if not packages:
        yield Finding(name, UNKNOWN, "no release here has a lock")
    elif not source:
        yield Finding(name, UNKNOWN, "nobody is asked: routine_advisories is empty")
    else:
        try:
            yield judge.holes(str(wanted["service"]), packages, advisories(source, packages))
        except (OSError, ValueError, KeyError, urllib.error.URLError) as error:
            yield Finding(name, UNKNOWN, f"not looked at: {source} cannot be reached ({error})")


def advisories(source: str, packages: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """What OSV knows of each package."""
    found: list[dict[str, Any]] = []
    for start in range(0, len(packages), BATCH):
        queries = [
            {"package": {"name": name, "ecosystem": "PyPI"}, "version": version}
            for name, version in packages[start : start + BATCH]
        ]
        request = urllib.request.Request(
            f"{source.rstrip('/')}/v1/querybatch",
            json.dumps({"queries": queries}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=20) as answer:
            found += json.loads(answer.read())["results"]
    return found


# For each routine what every host is asked, and what those with a part of the fleet are: of the host itself once, and
# of the rest for each service.
ANY = ""
CHECKS: Mapping[str, Sequence[tuple[str, Check]]] = {
    "daily": ((ANY, look_at_host), ("agent", look_at_agent), ("edge", look_at_edge), ("backup", look_at_backups)),
    "weekly": (("postgres", look_at_statistics), ("postgres", look_at_slow_queries)),
    "monthly": (
        (ANY, look_at_updates),
        ("agent", look_at_costs),
        ("agent", look_at_dependencies),
        ("backup", read_backups),
    ),
}
OF_SERVICE = ("agent", "edge")


def service_of(wanted: Settings) -> Service:
    name = str(wanted["service"])
    return Service(name, Path("/opt") / name)


def carry_out(routine: str, services: Sequence[Settings]) -> dict[str, Any]:
    """One routine; a check that cannot be made is a finding of its own, and keeps no other from being made."""
    began = time.time()
    findings: list[Finding] = []
    for part, check in CHECKS[routine]:
        concerned = [wanted for wanted in services if part == ANY or part in wanted["parts"]]
        for wanted in concerned if part in OF_SERVICE else concerned[:1]:
            try:
                findings += check(wanted)
            except TROUBLES as error:
                what = check.__name__.removeprefix("look_at_").replace("_", " ")
                findings.append(Finding(what, UNKNOWN, f"could not be looked at: {error or type(error).__name__}"))
    return {
        "routine": routine,
        "host": socket.gethostname(),
        "at": began,
        "seconds": round(time.time() - began, 1),
        "findings": [asdict(one) for one in findings],
    }


def results(directory: Path = STATE) -> dict[str, dict[str, Any]]:
    """The newest of each routine."""
    found = {}
    for routine in CHECKS:
        try:
            known = json.loads((directory / f"{routine}.json").read_text())
        except (OSError, ValueError):
            continue
        if isinstance(known, dict):
            found[routine] = known
    return found


def figures(known: Mapping[str, Mapping[str, Any]]) -> str:
    """The results as node exporter's textfile collector reads them."""
    lines = [
        "# HELP agentfleet_routine_timestamp_seconds When the routine last ran.",
        "# TYPE agentfleet_routine_timestamp_seconds gauge",
    ]
    lines += [
        f'agentfleet_routine_timestamp_seconds{{routine="{name}"}} {one["at"]:.0f}' for name, one in known.items()
    ]
    lines += [
        "# HELP agentfleet_routine_findings What its last run came to.",
        "# TYPE agentfleet_routine_findings gauge",
    ]
    for name, one in known.items():
        for level in judge.LEVELS:
            number = sum(finding["level"] == level for finding in one["findings"])
            lines.append(f'agentfleet_routine_findings{{routine="{name}",level="{level}"}} {number}')
    lines += [
        "# HELP agentfleet_routine_drift Whether something is not as it was put there.",
        "# TYPE agentfleet_routine_drift gauge",
    ]
    daily: Sequence[Mapping[str, Any]] = known.get("daily", {}).get("findings") or ()
    for finding in daily:
        if str(finding["check"]).endswith(": drift"):
            what = "" if finding["level"] == judge.OK else label(str(finding["text"]))
            lines.append(f'agentfleet_routine_drift{{what="{what}"}} {int(bool(what))}')
    return "\n".join(lines) + "\n"


def label(text: str) -> str:
    """A text as the value of a label."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ")


def due(known: Mapping[str, Mapping[str, Any]], now: float) -> list[str]:
    return [name for name, seconds in DUE_SECONDS.items() if now - float(known.get(name, {}).get("at", 0)) >= seconds]


def main(words: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="agentfleet-routine", description=__doc__)
    parser.add_argument("routine", choices=[*CHECKS, "due"], help="which to carry out; due: those whose time has come")
    chosen = parser.parse_args(words).routine
    services = [json.loads(path.read_text()) for path in sorted(SETTINGS.glob("*.json"))]
    STATE.mkdir(parents=True, exist_ok=True)
    for routine in due(results(), time.time()) if chosen == "due" else [chosen]:
        document = carry_out(routine, services)
        disk.write(STATE / f"{routine}.json", json.dumps(document, ensure_ascii=False, indent=1).encode(), 0o644)
    if FIGURES.parent.is_dir():
        disk.write(FIGURES, figures(results()).encode(), 0o644)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
