"""What is looked at on a host when something is wrong, what of it must not leave the host, what it means. Pure."""

from __future__ import annotations

import base64
import html
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, quote_plus

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.identity import HIDDEN, SHORTEST_SECRET

# A line of a key is a secret by itself; a shorter one may be in any text.
SHORTEST_LINE = 8
CERTIFICATE_DAYS = 14
DISK_PERCENT = 90
MEMORY_PERCENT = 10
# Percent of five minutes in which something waited for memory.
PRESSURE = 10.0
RESTARTS = 3

_NAME = r"(?:passw(?:or)?d|passphrase|pwd|secret|token(?!s)|credential|(?:api|model|access|private)[_-]?key)"
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # A key, whole or cut off at either line.
    (re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|\Z)", re.S), HIDDEN),
    (re.compile(r"\$ANSIBLE_VAULT;[^\n]*(?:\n[^\n]*?[0-9a-f]{40,}[^\n]*)*"), HIDDEN),
    (re.compile(r"([a-z][a-z0-9+.-]*://)[^\s/@:\"'<>]*:[^\s\"'<>]*@", re.I), rf"\1{HIDDEN}@"),
    (re.compile(r"(\bauthorization[\"']?\s*[:=]\s*[\"']?)(?:[a-z]+\s+)?[^\s\"',;]+", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"(\b(?:bearer|basic)\s+)[a-z0-9._~+/=-]{8,}", re.I), rf"\1{HIDDEN}"),
    (
        re.compile(rf"({_NAME}[\w-]*[\"']?\s*[:=]\s*)(?:\"(?:[^\"\\]|\\.)*\"|'(?:[^'\\]|\\.)*'|[^\s,;&\"'}}]+)", re.I),
        rf"\1{HIDDEN}",
    ),
    # As SQL and command lines have it.
    (re.compile(rf"({_NAME}\s+)(?:\"[^\"]*\"|'[^']*')", re.I), rf"\1{HIDDEN}"),
    (re.compile(rf"(--?[\w-]*{_NAME}[\w-]*\s+)(?!-)\S+", re.I), rf"\1{HIDDEN}"),
    (re.compile(r"\b(?:sk|pk|rk)[-_][A-Za-z0-9_-]{12,}"), HIDDEN),
    (re.compile(r"\b(?:gh[pousr]_[A-Za-z0-9]{20,}|github_pat_\w{20,}|xox[a-z]-[\w-]{10,}|AKIA[A-Z0-9]{16})"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), HIDDEN),
)


def forms_of(secret: str) -> set[str]:
    """A secret as texts may have it: itself, its lines, in JSON, in a URL, in a page, encoded."""
    forms = {
        secret,
        secret.strip(),
        *(line.strip() for line in secret.splitlines() if len(line.strip()) >= SHORTEST_LINE),
    }
    for form in tuple(forms):
        forms |= {quote(form, safe=""), quote(form), quote_plus(form), html.escape(form)}
        forms |= {json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1]}
        forms |= {base64.b64encode(form.encode()).decode().rstrip("=")}
    return {form for form in forms if len(form) >= SHORTEST_SECRET}


def redact(text: str, secrets: Iterable[str]) -> str:
    """TEXT without any of SECRETS, and without what looks like one."""
    # What is put in a secret's place is part of no other one, so that none comes to be by it.
    for form in sorted({form for secret in secrets for form in forms_of(secret)}, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    for pattern, instead in _PATTERNS:
        text = pattern.sub(instead, text)
    return text


def redact_all(value: Any, secrets: Collection[str]) -> Any:
    """The same for every text in a document."""
    if isinstance(value, str):
        return redact(value, secrets)
    if isinstance(value, Mapping):
        return {redact(str(name), secrets): redact_all(item, secrets) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [redact_all(item, secrets) for item in value]
    return value


def secret_variables(environment: Mapping[str, str]) -> list[str]:
    """Values of variables whose names say that they should have been secrets."""
    telling = re.compile(_NAME, re.I)
    return [value for name, value in environment.items() if telling.search(name) and value]


@dataclass(frozen=True)
class Section:
    """What is run for one part of the page, in this order; one that fails leaves the others."""

    name: str
    title: str
    commands: tuple[tuple[str, ...], ...]


PACKAGES = (
    *("nginx", "haproxy", "postgresql-15", "postgresql-17", "postgresql-client", "redis-server", "docker.io", "ufw"),
    *(
        "prometheus",
        "prometheus-alertmanager",
        "prometheus-node-exporter",
        "certbot",
        "pgbackrest",
        "systemd",
        "openssh-server",
        "python3",
        "openssl",
    ),
)
UNITS = {
    "edge": ("nginx.service", "haproxy.service", "agentfleet-director.service"),
    "postgres": ("postgresql@*.service",),
    "redis": ("redis-server.service",),
    "monitoring": (
        "prometheus.service",
        "agentfleet-prometheus.socket",
        "prometheus-alertmanager.service",
        "agentfleet-logs-store.service",
        "grafana-server.service",
    ),
}


def units_of(groups: Iterable[str], service: str) -> list[str]:
    """The units that matter on a host of these groups."""
    members = set(groups)
    own = [f"{service}{kind}@*.service" for kind in ("", "-worker", "-migrate")] if "agents" in members else []
    timers = [f"agentfleet-certificate-{service}.*"] if "edge" in members else []
    return [*own, *(unit for group, units in UNITS.items() if group in members for unit in units), *timers]


def sections(groups: Iterable[str], service: str) -> list[Section]:
    """What is looked at on a host of these groups."""
    members = set(groups)
    units = units_of(members, service)
    named = [f"--unit={unit}" for unit in units]
    # Of more lines since a moment than are asked for, systemd's journalctl otherwise gives the oldest.
    newest = ("journalctl", "--no-pager", "--quiet", "--output=short-iso", "--reverse", "--since=-24h")
    found = [
        Section(
            "system",
            "System",
            (("uptime",), ("uname", "-a"), ("cat", "/etc/os-release"), ("systemctl", "is-system-running")),
        ),
        Section(
            "processes",
            "Processes by processor and by memory",
            tuple(
                ("ps", "-eo", "pid,user:16,pcpu,pmem,rss,nlwp,etime,comm", f"--sort=-{by}") for by in ("pcpu", "rss")
            ),
        ),
        Section(
            "memory",
            "Memory",
            (("free", "-m"), ("cat", "/proc/pressure/memory", "/proc/pressure/cpu", "/proc/pressure/io")),
        ),
        Section("disk", "Disks", (("df", "-hT"), ("df", "-hi"))),
        Section(
            "network",
            "Addresses and routes",
            (("ip", "-brief", "address"), ("ip", "route"), ("cat", "/etc/resolv.conf", "/etc/hosts")),
        ),
        Section("ports", "Ports", (("ss", "-lntup"), ("ss", "-s"))),
        Section("failed", "Failed units", (("systemctl", "--no-pager", "--failed", "--full"),)),
        Section("errors", "Errors of the last day, newest first", ((*newest, "--priority=err", "--lines=200"),)),
        Section("clock", "Clock", (("timedatectl",),)),
        Section("firewall", "Firewall", (("ufw", "status", "verbose"),)),
        Section(
            "versions",
            "Versions",
            (
                ("uname", "-r"),
                ("dpkg-query", "--show", "--showformat=${Package} ${Version} ${db:Status-Abbrev}\\n", *PACKAGES),
            ),
        ),
    ]
    if units:
        found += [
            Section(
                "units", "Units of the fleet", (("systemctl", "--no-pager", "--full", "--lines=0", "status", *units),)
            ),
            Section("journal", "What they wrote last, newest first", ((*newest, "--lines=300", *named),)),
        ]
    if "agents" in members:
        root = f"/opt/{service}"
        found.append(
            Section(
                "releases",
                "Releases and slots",
                (
                    (
                        "ls",
                        "-l",
                        f"{root}/releases",
                        f"{root}/venvs",
                        f"{root}/slots",
                        f"{root}/slots/blue",
                        f"{root}/slots/green",
                    ),
                ),
            )
        )
    if "edge" in members:
        found += [
            Section("director", "Director", (("agentfleet-director", "status"), ("agentfleet-director", "history"))),
            Section("nginx", "Nginx", (("nginx", "-t"), ("tail", "-n", "100", "/var/log/nginx/error.log"))),
            Section(
                "answers",
                "Answers that were errors",
                (("grep", "-hE", '"status": ?"?5[0-9][0-9]', "/var/log/nginx/access.log"),),
            ),
        ]
    if "postgres" in members:
        asked = "SELECT state, wait_event_type, count(*), max(now() - state_change) FROM pg_stat_activity GROUP BY 1, 2"
        sizes = "SELECT datname, pg_size_pretty(pg_database_size(datname)) FROM pg_database"
        psql = ("runuser", "-u", "postgres", "--", "psql", "--no-psqlrc", "--command")
        found.append(Section("postgres", "PostgreSQL", (("pg_lsclusters",), (*psql, asked), (*psql, sizes))))
    if "redis" in members:
        found.append(Section("redis", "Redis", (("tail", "-n", "100", "/var/log/redis/redis-server.log"),)))
    return found


Facts = Mapping[str, Any]


def findings(host: str, facts: Facts, service: str) -> list[Finding]:
    """What a host's facts mean, with what mends it. Null stands for what is not known."""
    found: list[Finding] = []

    def say(text: str, mend: str) -> None:
        found.append(Finding(text, mend, host))

    for disk in facts.get("disks") or ():
        path = disk["path"]
        mend = f"du -xh --max-depth=2 {path} | sort -h | tail; apt-get clean; journalctl --vacuum-size=200M"
        if disk["used"] > DISK_PERCENT:
            say(f"{path} is {disk['used']} % full", mend)
        if (disk["inodes"] or 0) > DISK_PERCENT:
            say(f"{path} has used {disk['inodes']} % of its inodes", mend)
    for unit in facts.get("failed_units") or ():
        say(f"{unit} has failed", f"journalctl -u {unit} -n 50, then systemctl restart {unit}")
    for unit, times in sorted((facts.get("restarts") or {}).items()):
        if times >= RESTARTS:
            say(
                f"{unit} was restarted {times} times",
                f"journalctl -u {unit} -n 50; or ansible-playbook playbooks/rollback.yml",
            )
    for kill in facts.get("oom") or ():
        say(
            f"memory ran out: {kill}",
            "raise agent_memory_max, or give the host more memory; then ansible-playbook playbooks/deploy.yml",
        )
    memory = facts.get("memory_free_percent")
    if memory is not None and memory < MEMORY_PERCENT:
        say(
            f"{memory} % of the memory is free",
            "ps -eo rss,comm --sort=-rss | head; lower agent_instances or add memory",
        )
    elif (facts.get("memory_pressure") or 0) > PRESSURE:
        say(f"processes waited for memory in {facts['memory_pressure']} % of the last five minutes", "see: free -m")
    if facts.get("clock_synchronized") is False:
        say("its clock is not synchronized", "systemctl restart systemd-timesyncd; timedatectl timesync-status")
    found += _of_agent(host, facts, service)
    found += _of_edge(host, facts)
    return found


def _of_agent(host: str, facts: Facts, service: str) -> list[Finding]:
    found = []
    slots = facts.get("slots")
    if slots is not None and not any(slot["state"] == "running" for slot in slots.values()):
        found.append(
            Finding(f"no slot of {service} runs", f"ansible-playbook playbooks/site.yml --limit {host},edge", host)
        )
    for name, slot in sorted((slots or {}).items()):
        if slot["state"] in ("failed", "damaged"):
            units = f"'{service}@{name}-*'"
            found.append(Finding(f"slot {name} is {slot['state']}", f"journalctl -u {units} -n 50", host))
    for probe in facts.get("probes") or ():
        if probe["status"] != 200:
            said = f"{probe['status']} {probe['said']}" if probe["status"] else probe["said"]
            mend = f"journalctl -u {probe['unit']} -n 50; on the data host: systemctl status postgresql redis-server"
            found.append(Finding(f"{probe['path']} of {probe['unit']} says {said}".strip(), mend, host))
    return found


def _of_edge(host: str, facts: Facts) -> list[Finding]:
    found = []

    def say(text: str, mend: str) -> None:
        found.append(Finding(text, mend, host))

    for problem in facts.get("problems") or ():
        say(problem, "systemctl restart agentfleet-director haproxy; journalctl -u agentfleet-director -n 50")
    if facts.get("edge") and not facts.get("problems") and not facts.get("release"):
        say("there is no current release", "ansible-playbook playbooks/deploy.yml")
    for server in facts.get("servers_down") or ():
        say(
            f"{server['name']} should answer and is {server['state']} ({server['check'] or 'no check yet'})",
            "see that host below",
        )
    certificate = facts.get("certificate")
    if certificate and certificate["days"] < CERTIFICATE_DAYS:
        say(f"the certificate ends in {certificate['days']} days", "ansible-playbook playbooks/site.yml --limit edge")
    if certificate and certificate.get("problem"):
        say(f"no new certificate: {certificate['problem']}", "ansible-playbook playbooks/site.yml --limit edge")
    site = facts.get("site")
    if site and site["status"] != 200:
        said = f"{site['status']} {site['said']}" if site["status"] else site["said"]
        say(f"https://{site['name']}/health says {said}".strip(), "systemctl status nginx haproxy; nginx -t")
    for line in facts.get("backups") or ():
        # Why it failed may have such a sign as well.
        text, _then, mend = line.rpartition("; ")
        say(text or line, mend.partition(": ")[2] if text else "ansible-playbook playbooks/drill.yml")
    dns = facts.get("dns")
    if dns and not dns["addresses"]:
        say(
            f"{dns['name']} does not resolve",
            f"add an address record of {dns['name']} for this host where its zone is kept",
        )
    elif dns and not set(dns["addresses"]) & set(dns["own"]):
        text = f"{dns['name']} leads to {', '.join(dns['addresses'])}, which is not this host"
        say(text, f"correct the address record of {dns['name']}, unless a proxy of yours is there")
    return found


def fleet_findings(results: Mapping[str, Facts], service: str) -> list[Finding]:
    """The findings of all hosts, the gravest kind first: who cannot be asked, then in the order of the hosts."""
    silent = [
        Finding(
            f"{'cannot be reached' if result.get('unreachable') else 'could not be looked at'}: {result.get('why')}",
            f"ansible {host} -m ansible.builtin.ping, then the provider's console",
            host,
        )
        for host, result in results.items()
        if "facts" not in result
    ]
    told = [
        finding for host, result in results.items() for finding in findings(host, result.get("facts") or {}, service)
    ]
    return [*silent, *told]


def finding_lines(found: Sequence[Finding]) -> list[str]:
    if not found:
        return ["nothing that needs attention was found"]
    return [f"{finding.host}: {finding.text}\n    {finding.mend}" for finding in found]
