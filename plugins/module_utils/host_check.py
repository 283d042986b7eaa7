"""Judges a bare host before anything changes: what one shell script reported about it. Pure.

The host needs no Python for this; a POSIX shell is enough.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import GREEN_OFFSET, WORKER_OFFSET

SUPPORTED = {"debian": ("12", "13")}
PYTHON_MINIMUM = (3, 11)
CLOCK_TOLERANCE = 300
# What `systemctl stop` ends a listener by.
UNITS = (".service", ".socket")
# Tells the report's lines from whatever a login or sudo prints.
MARK = "preflight:"
# Written by the roles balancer and edge, a file for each service.
PARTS = "/etc/haproxy/agentfleet/2-*.cfg /etc/nginx/agentfleet/*.conf"
# So many of the addresses that clash are told.
SHOWN = 3
DISK_PATHS = ("/", "/opt", "/var")

# No single quotes in here: the whole text is one quoted argument, twice over under sudo.
SCRIPT = r"""
LC_ALL=C; PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin; export LC_ALL PATH
python=@PYTHON@
say() { printf "@MARK@ %s %s\n" "$1" "$2"; }
say uid "$(id -u)"
say time "$(date +%s)"
say machine "$(uname -m)"
[ -d /run/systemd/system ] && say booted systemd
if command -v systemctl >/dev/null; then say systemd "$(systemctl --version | head -n 1)"; fi
if [ -r /etc/os-release ]; then
  while read -r line; do case $line in ID=*|VERSION_ID=*|PRETTY_NAME=*) say os "$line";; esac; done </etc/os-release
fi
if command -v "$python" >/dev/null; then
  say python "$("$python" -c "import platform; print(platform.python_version())" 2>&1 | tail -n 1)"
  if "$python" -c "import apt_pkg" 2>/dev/null; then say apt yes; fi
fi
for path in @PATHS@; do
  probe=$path
  while [ ! -d "$probe" ]; do probe=$(dirname "$probe"); done
  say disk "$path $(df -Pk "$probe" | tail -n 1)"
done
unit() {
  held=$(grep -o "[^/]*[.]\(service\|scope\)$" "/proc/$1/cgroup" | tail -n 1)
  case $held in docker-*.scope)
    name=${held#docker-}
    name=$(docker container inspect --format "{{.Name}}" "${name%.scope}" 2>/dev/null) && held=container:${name#/};;
  esac
  say unit "$1 $(cat "/proc/$1/comm") $held"
}
if command -v ss >/dev/null; then
  sockets=$(ss -Hltnp)
  printf "%s\n" "$sockets" | while read -r line; do say socket "$line"; done
  for pid in $(printf "%s\n" "$sockets" | grep -o "pid=[0-9]*" | sort -u); do unit "${pid#pid=}"; done
else
  inodes=
  for table in /proc/net/tcp /proc/net/tcp6; do
    [ -r "$table" ] || continue
    while read -r _ address _ state _ _ _ _ _ inode _; do
      if [ "$state" = 0A ]; then say inode "$inode $address"; inodes="$inodes -e socket:\[$inode\]"; fi
    done <"$table"
  done
  if [ -n "$inodes" ]; then
    find /proc/[0-9]*/fd -lname "socket:*" -printf "%p %l\n" 2>/dev/null | grep $inodes |
      while IFS="/ " read -r _ _ pid _ _ link; do say owner "$pid $link"; unit "$pid"; done
  fi
fi
# What systemd listens on for others has its name here.
if command -v systemctl >/dev/null; then
  systemctl list-sockets --full --no-legend 2>/dev/null |
    while read -r address name _; do say opened "$address $name"; done
fi
for file in @PARTS@; do
  [ -r "$file" ] || continue
  name=$(basename "${file%.*}")
  grep -E "^ *(bind|server|server_name) " "$file" | while read -r line; do say service "${name#2-} $line"; done
done
say end .
"""


@dataclass(frozen=True)
class Listener:
    """One listening TCP port and who holds it; names are empty where the host would not say."""

    port: int
    process: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Disk:
    """The file system that holds `path`."""

    path: str
    mount: str
    free_mb: int


@dataclass(frozen=True)
class Held:
    """What a service has on an edge: its balancer's port, the name of its site, the addresses of its instances, and
    whether it reaches them over TLS, if it has any.
    """

    port: int = 0
    site: str = ""
    addresses: frozenset[str] = frozenset()
    encrypted: bool | None = None


@dataclass(frozen=True)
class Report:
    """What the script said."""

    uid: int = -1
    time: int = 0
    machine: str = ""
    booted: bool = False
    systemd: int = 0
    os: Mapping[str, str] = field(default_factory=dict)
    python: str = ""
    apt: bool = False
    disks: tuple[Disk, ...] = ()
    listeners: tuple[Listener, ...] = ()
    services: Mapping[str, Held] = field(default_factory=dict)


# What shows figures on the hosts of a monitored fleet, by group, and its usual port.
EXPORTERS = (
    ("all", "node", 9100),
    ("edge", "nginx", 9113),
    ("redis", "redis", 9121),
    ("postgres", "postgres", 9187),
    ("monitoring", "blackbox", 9115),
)


@dataclass(frozen=True)
class Claim:
    """A port that a host's groups need, for what, by which variable it is moved, and who may hold it already."""

    port: int
    purpose: str
    variable: str
    processes: tuple[str, ...] = ()
    units: tuple[str, ...] = ()


@dataclass(frozen=True)
class Access:
    """How a host is reached, for lines that tell a person what to try."""

    address: str
    port: int
    user: str
    ssh: str
    ansible: str

    def raw(self, command: str) -> str:
        return f"{self.ansible} -b -m ansible.builtin.raw -a {shlex.quote(command)}"


def script(python: str, paths: Iterable[str]) -> str:
    words = {
        "@PYTHON@": shlex.quote(python),
        "@PATHS@": " ".join(map(shlex.quote, paths)),
        "@MARK@": MARK,
        "@PARTS@": PARTS,
    }
    return re.sub("@[A-Z]+@", lambda found: words[found[0]], SCRIPT)


def parse(text: str) -> Report | None:
    """The report in the script's output, or nothing when it did not run to its end."""
    said: dict[str, list[str]] = {}
    for line in text.splitlines():
        mark, _, rest = line.strip().partition(" ")
        if mark != MARK:
            continue
        key, _, value = rest.partition(" ")
        said.setdefault(key, []).append(value.strip())
    if "end" not in said:
        return None
    first: dict[str, str] = {key: values[0] for key, values in said.items()}
    version = re.search(r"systemd (\d+)", first.get("systemd", ""))
    return Report(
        uid=int(first.get("uid") or -1),
        time=int(first.get("time") or 0),
        machine=first.get("machine", ""),
        booted="booted" in said,
        systemd=int(version[1]) if version else 0,
        os=_os_release(said.get("os", [])),
        python=first.get("python", ""),
        apt="apt" in said,
        disks=tuple(_disks(said.get("disk", []))),
        listeners=tuple(_listeners(said)),
        services=_services(said.get("service", [])),
    )


def claims(groups: Collection[str], values: Mapping[str, Any], monitored: bool = False) -> list[Claim]:
    """The ports of a host in these groups, of a fleet that is MONITORED or not."""
    name = str(values.get("agent_name", "agent"))
    wanted = []
    for group, exporter, default in EXPORTERS if monitored else ():
        if group in (*groups, "all"):
            port, program = number(values, f"exporters_{exporter}_port", default), f"prometheus-{exporter}-exporter"
            # The kernel keeps 15 letters of a process's name.
            holder = ((program[:15],), (f"{program}.service",))
            wanted.append(Claim(port, f"the {exporter} exporter", f"exporters_{exporter}_port", *holder))
    if "edge" in groups:
        wanted += [Claim(port, "Nginx", "", ("nginx",), ("nginx.service",)) for port in (80, 443)]
        for variable, default in (("balancer_port", 8080), ("balancer_metrics_port", 8405)):
            port = number(values, variable, default)
            wanted.append(Claim(port, "HAProxy", variable, ("haproxy",), ("haproxy.service",)))
        port = number(values, "edge_metrics_port", 8406)
        wanted.append(Claim(port, "Nginx", "edge_metrics_port", ("nginx",), ("nginx.service",)))
    if "postgres" in groups:
        port = number(values, "postgres_port", 5432)
        wanted.append(Claim(port, "PostgreSQL", "postgres_port", ("postgres",), ("postgresql@",)))
    if "redis" in groups:
        port = number(values, "redis_port", 6379)
        wanted.append(Claim(port, "Redis", "redis_port", ("redis-server", "valkey-server"), ("redis", "valkey")))
    if "agents" in groups:
        first, instances = number(values, "agent_port", 8100), number(values, "agent_instances", 1)
        for slot, offset in (("blue", 0), ("green", GREEN_OFFSET)):
            for instance in range(instances):
                port = first + offset + instance
                purpose = f"{name}@{slot}-{instance + 1}.service"
                wanted.append(Claim(port, purpose, "agent_port", (), (f"{name}@", f"container:{name}-{slot}-")))
                worker = (f"{name}-worker@", f"container:{name}-worker-{slot}-")
                wanted.append(Claim(port + WORKER_OFFSET, f"the worker of {purpose}", "agent_port", (), worker))
    if "monitoring" in groups:
        port = number(values, "prometheus_port", 9090)
        units = ("prometheus.service", "agentfleet-prometheus.")
        wanted.append(Claim(port, "Prometheus", "prometheus_port", ("prometheus",), units))
        port, program = number(values, "alertmanager_port", 9093), "prometheus-alertmanager"
        wanted.append(Claim(port, "Alertmanager", "alertmanager_port", (program[:15],), (f"{program}.service",)))
        port = number(values, "logs_port", 6514)
        wanted.append(Claim(port, "the log of all hosts", "logs_port", (), ("agentfleet-logs-store.service",)))
    if "monitoring" in groups and values.get("grafana_repository", "its own"):
        port = number(values, "grafana_port", 3000)
        wanted.append(Claim(port, "Grafana", "grafana_port", ("grafana",), ("grafana-server.service",)))
    return wanted


def judge_host(
    host: str,
    report: Report,
    wanted: Iterable[Claim],
    minimum_free_mb: int,
    now: int,
    check_mode: bool,
    inventory: str,
    access: Access,
) -> list[Finding]:
    """All that keeps this host from becoming one of the fleet."""
    if report.uid != 0:
        return [Finding(f"user {access.user} did not become root (uid {report.uid})", _root_mend(access), host)]
    judged = [
        _judge_system(report, inventory),
        _judge_python(report, check_mode, access),
        _judge_clock(report, now, access),
        *_judge_disks(report.disks, minimum_free_mb, access),
        *(_judge_port(claim, report.listeners, access) for claim in wanted),
    ]
    return [Finding(text, mend, host) for text, mend in filter(None, judged)]


def judge_services(host: str, name: str, wants: Held, services: Mapping[str, Held]) -> list[Finding]:
    """What service NAME wants on this edge and another service has."""
    findings = []
    for other, has in services.items():
        if other == name:
            continue
        taken = sorted(wants.addresses & has.addresses)
        for clash, variable in (
            (f"port {wants.port} of the balancer" if wants.port == has.port else "", "balancer_port"),
            (f"the name {wants.site}" if wants.site and wants.site == has.site else "", "edge_server_name"),
            (", ".join(taken[:SHOWN]), "agent_port"),
        ):
            if clash:
                text = f"service '{other}' has {clash}, which '{name}' wants as well"
                findings.append(Finding(text, f"Set another {variable} in the variables of '{name}'", host))
    return findings


def judge_encryption(host: str, name: str, wants: Held, services: Mapping[str, Held]) -> list[Finding]:
    """Instances start with or without TLS, and the edge would speak to those that run as to those that will."""
    has = services.get(name, Held()).encrypted
    if has is None or has == wants.encrypted:
        return []
    text = (
        f"the instances of '{name}' serve {'with' if has else 'without'} TLS, and fleet_tls wants the opposite:"
        " users would get 503 from now until the next deploy"
    )
    mend = (
        "Do both in one go: site.yml -e fleet_tls_change=true, then deploy.yml; or set fleet_tls: " + str(has).lower()
    )
    return [Finding(text, mend, host)]


def judge_silence(host: str, stderr: str, access: Access) -> Finding:
    """The script gave no report: what the shell or sudo said instead."""
    reason = _last_line(stderr) or "no answer from its shell"
    return Finding(f"user {access.user} cannot work as root: {reason}", _root_mend(access), host)


def judge_connection(host: str, error: str, access: Access) -> Finding:
    """The host was not reached: ssh's own reason and the command to try by hand."""
    reason = (
        re.sub(r"^(.*via ssh: )?(ssh: connect to host \S+ port \d+: )?", "", _last_line(error)) or "no reason given"
    )
    text = f"unreachable at {access.address} port {access.port}: {reason}"
    if "host key verification failed" in reason.lower():
        return Finding(text, f"Compare its key and accept it: {access.ssh}", host)
    return Finding(text, f"Try: {access.ssh}", host)


Judged = tuple[str, str]


def _judge_system(report: Report, inventory: str) -> Judged | None:
    ident, version = report.os.get("ID", ""), report.os.get("VERSION_ID", "")
    name = report.os.get("PRETTY_NAME") or f"{ident} {version}".strip() or "an unknown system"
    wanted = " or ".join(f"{known.title()} {' or '.join(versions)}" for known, versions in SUPPORTED.items())
    if version not in SUPPORTED.get(ident, ()):
        return f"runs {name}; the fleet needs {wanted}", f"Reinstall it, or take it out of {inventory}"
    if not report.booted:
        return f"{name} is not booted by systemd (a container?)", f"Boot it by systemd, or take it out of {inventory}"
    return None


def _judge_python(report: Report, check_mode: bool, access: Access) -> Judged | None:
    install = "apt-get update && apt-get install -y"
    if not report.python:
        return "has no Python", f"Install it: {access.raw(f'{install} python3')}"
    numbers = re.match(r"(\d+)\.(\d+)", report.python)
    if numbers is None:
        return f"its Python does not run: {report.python}", f"Mend it: {access.raw(f'{install} --reinstall python3')}"
    if (int(numbers[1]), int(numbers[2])) < PYTHON_MINIMUM:
        return f"has Python {report.python}; 3.11 or later is needed", f"Install it: {access.raw(f'{install} python3')}"
    # A real run installs it by itself; a check must not.
    if check_mode and not report.apt:
        return "has no python3-apt, which --check needs", f"Install it: {access.raw(f'{install} python3-apt')}"
    return None


def _judge_clock(report: Report, now: int, access: Access) -> Judged | None:
    off = report.time - now
    if not report.time or abs(off) <= CLOCK_TOLERANCE:
        return None
    text = f"its clock is {abs(off)} s {'ahead of' if off > 0 else 'behind'} this machine's"
    return text, f"Set it, here or there: {access.raw('timedatectl set-ntp true; timedatectl')}"


def _judge_disks(disks: Sequence[Disk], minimum_free_mb: int, access: Access) -> list[Judged]:
    short: dict[str, Disk] = {}
    for disk in disks:
        if disk.free_mb < minimum_free_mb:
            short.setdefault(disk.mount, disk)
    return [
        (
            f"{disk.free_mb} MB free on {disk.mount}; fleet_minimum_free_mb wants {minimum_free_mb}",
            f"Make room; what is large: {access.raw(f'du -xhd2 {shlex.quote(disk.mount)} | sort -h | tail')}",
        )
        for disk in short.values()
    ]


def _judge_port(claim: Claim, listeners: Iterable[Listener], access: Access) -> Judged | None:
    for listener in listeners:
        if listener.port != claim.port or _is_ours(claim, listener):
            continue
        holder = f"'{listener.process}'" if listener.process else "an unknown process"
        unit = f" ({listener.unit})" if listener.unit else ""
        text = f"port {claim.port} is held by {holder}{unit}, and {claim.purpose} needs it"
        if listener.unit.endswith(UNITS):
            stop = access.raw(f"systemctl disable --now {shlex.quote(listener.unit)}")
        else:
            stop = access.raw(f"ss -ltnp sport = :{claim.port}")
        return text, f"{'Stop' if 'systemctl' in stop else 'Find'} it: {stop}" + (
            f" (or set another {claim.variable})" if claim.variable else ""
        )
    return None


def _is_ours(claim: Claim, listener: Listener) -> bool:
    if listener.unit.startswith(claim.units):
        return True
    # Without a unit's name only the program's is left to go by.
    return not listener.unit.endswith(UNITS) and listener.process in claim.processes


def _root_mend(access: Access) -> str:
    return f"Try: {access.ssh} sudo -n true (a sudo password: --ask-become-pass)"


def number(values: Mapping[str, Any], name: str, otherwise: int) -> int:
    # A value of a wrong type has its own line already.
    try:
        return int(values.get(name, otherwise))
    except (TypeError, ValueError):
        return otherwise


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""


def _os_release(lines: Iterable[str]) -> dict[str, str]:
    pairs = (line.partition("=") for line in lines)
    return {key: value.strip().strip("\"'") for key, _, value in pairs}


def _disks(lines: Iterable[str]) -> Iterable[Disk]:
    for line in lines:
        found = re.match(r"(\S+) .*?\s\d+\s+-?\d+\s+(-?\d+)\s+\S+\s+(/.*)$", line)
        if found:
            yield Disk(found[1], found[3], int(found[2]) // 1024)


def _services(lines: Iterable[str]) -> dict[str, Held]:
    found: dict[str, Held] = {}
    for line in lines:
        name, word, *rest = line.rstrip(";").split()
        held = found.get(name, Held())
        if word == "bind":
            held = replace(held, port=int(rest[0].rpartition(":")[2]))
        elif word == "server_name":
            held = replace(held, site=rest[0])
        elif len(rest) > 1:
            held = replace(held, addresses=held.addresses | {rest[1]}, encrypted="ssl" in rest)
        found[name] = held
    return found


def _listeners(said: Mapping[str, list[str]]) -> Iterable[Listener]:
    found = (re.match(r"\S*:(\d+) (\S+\.socket)$", line) for line in said.get("opened", []))
    opened = {int(one[1]): one[2] for one in found if one}
    for listener in _held(said):
        # systemd itself is no service: what it listens for tells whose port that is.
        unit = opened.get(listener.port, listener.unit) if listener.process == "systemd" else listener.unit
        yield replace(listener, unit=unit)


def _held(said: Mapping[str, list[str]]) -> Iterable[Listener]:
    units: dict[str, tuple[str, str]] = {}
    for line in said.get("unit", []):
        pid, process, unit = (*line.split(" ", 2), "", "")[:3]
        units[pid] = (process, unit)
    for line in said.get("socket", []):
        found = re.search(r":(\d+)\s", line)
        if found:
            holder = re.search(r"pid=(\d+)", line)
            yield Listener(int(found[1]), *units.get(holder[1] if holder else "", ("", "")))
    owners = {
        inode: pid for pid, inode in re.findall(r"(?m)^(\d+) socket:\[(\d+)\]$", "\n".join(said.get("owner", [])))
    }
    for line in said.get("inode", []):
        inode, _, address = line.partition(" ")
        yield Listener(int(address.rpartition(":")[2], 16), *units.get(owners.get(inode, ""), ("", "")))
