"""What HAProxy says and is told at its runtime socket: parsing, decisions and the few commands.

The balancer's host has a copy of this file beside the program that keeps weights over a restart, so it imports
the standard library only.
"""

from __future__ import annotations

import csv
import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

SOCKET = "/run/haproxy/admin.sock"
STATE_FILE = "/var/lib/haproxy/server-state"
CONFIG = "/etc/haproxy/haproxy.cfg"

OPERATIONAL = {0: "down", 1: "starting", 2: "up", 3: "stopping"}
# Bits of srv_admin_state, whoever set them: an operator, the configuration, a tracked server or a name that is gone.
MAINTENANCE, DRAIN = 0x67, 0x18
# Columns of a state file, by the name that its second line gives them.
BACKEND, SERVER, PORT, TLS = "be_name", "srv_name", "srv_port", "srv_use_ssl"
STATE_VERSION = "1"
SERVER_LINE = re.compile(r"^\s*server\s+(\S+)\s+\S+:(\d+)(?:\s+(.*))?$")
BACKEND_LINE = re.compile(r"^(backend|listen)\s+(\S+)|^([a-z]+)\b")


class HaproxyError(Exception):
    """One line for the user: what is wrong, and what mends it."""


@dataclass(frozen=True)
class Server:
    """One server of a backend, as HAProxy sees it now."""

    name: str
    weight: int
    state: str
    check: str
    ready: bool
    sessions: int

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Move:
    """Weights to set, in this order: first those that rise, then those that fall."""

    raises: tuple[tuple[str, int], ...]
    lowers: tuple[tuple[str, int], ...]

    @property
    def steps(self) -> tuple[tuple[str, int], ...]:
        return self.raises + self.lowers

    def __bool__(self) -> bool:
        return bool(self.steps)


def parse_states(text: str) -> list[dict[str, str]]:
    """Rows of `show servers state`."""
    lines = [line for line in text.splitlines() if line.strip()]
    if len(lines) < 2 or lines[0].strip() != STATE_VERSION or not lines[1].startswith("# "):
        raise HaproxyError(f"HAProxy's servers state has an unknown form: {text.strip()[:80]!r}")
    columns = lines[1][2:].split()
    rows = [line.split(" ") for line in lines[2:]]
    if any(len(row) != len(columns) for row in rows):
        raise HaproxyError("HAProxy's servers state is cut off")
    return [dict(zip(columns, row, strict=True)) for row in rows]


def parse_stats(text: str) -> dict[str, dict[str, str]]:
    """Rows of `show stat` by server name."""
    lines = [line for line in text.splitlines() if line.strip()]
    if not lines or not lines[0].startswith("# "):
        raise HaproxyError(f"HAProxy's statistics have an unknown form: {text.strip()[:80]!r}")
    rows = csv.DictReader([lines[0][2:], *lines[1:]])
    return {row["svname"]: row for row in rows}


def passed_check(status: str, code: str) -> bool:
    """Whether the last health check was made by this process and passed.

    After a restart HAProxy repeats the status of the state file, without the code of an answer, until it has checked.
    """
    status = status.removeprefix("* ")
    return status in ("L4OK", "L6OK") or (status.startswith("L7OK") and code not in ("", "0"))


def servers_of(backend: str, states: str, stats: str) -> dict[str, Server]:
    """Every server of BACKEND from both tables."""
    figures = parse_stats(stats)
    found = {}
    for row in parse_states(states):
        if row[BACKEND] != backend:
            continue
        name = row[SERVER]
        figure = figures.get(name, {})
        state = state_of(int(row["srv_op_state"]), int(row["srv_admin_state"]))
        found[name] = Server(
            name=name,
            weight=int(row["srv_uweight"]),
            state=state,
            check=describe_check(figure),
            # One that is drained answers its checks; it keeps the weight that it will have again.
            ready=state in ("up", "drain")
            and passed_check(figure.get("check_status", ""), figure.get("check_code", "")),
            sessions=int(figure.get("scur") or 0),
        )
    return found


def counters_of(stats: str) -> dict[str, tuple[int, int]]:
    """By server, how many requests it was given since HAProxy started, and how many of those have an outcome.

    An outcome is the beginning of an answer, of whatever status, or that none will come.
    """
    counters = {}
    for name, row in parse_stats(stats).items():
        outcomes = ("hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other")
        counters[name] = (int(row.get("stot") or 0), sum(int(row.get(column) or 0) for column in outcomes))
    return counters


def state_of(operational: int, admin: int) -> str:
    if admin & MAINTENANCE:
        return "maintenance"
    return "drain" if admin & DRAIN else OPERATIONAL.get(operational, "down")


def describe_check(figure: Mapping[str, str]) -> str:
    """The last health check in words: L7OK 200, L4CON Connection refused."""
    status = figure.get("check_status", "").removeprefix("* ")
    detail = figure.get("check_code", "") if status.startswith("L7") else figure.get("last_chk", "")
    return f"{status} {detail}".strip()


def plan_move(wanted: Mapping[str, int], servers: Mapping[str, Server]) -> Move:
    """What to set, so that at no moment the backend is left with less than both its shares."""
    changes = [(name, weight) for name, weight in sorted(wanted.items()) if servers[name].weight != weight]
    return Move(
        raises=tuple((name, weight) for name, weight in changes if weight > servers[name].weight),
        lowers=tuple((name, weight) for name, weight in changes if weight < servers[name].weight),
    )


def configured(config: str) -> dict[tuple[str, str], dict[str, str]]:
    """What a configuration says of each server, by backend and name, in a state file's columns."""
    servers = {}
    backend = ""
    for line in config.splitlines():
        section = BACKEND_LINE.match(line)
        server = SERVER_LINE.match(line)
        if section:
            backend = section[2] or ""
        elif server and backend:
            encrypted = "ssl" in (server[3] or "").split()
            servers[backend, server[1]] = {PORT: server[2], TLS: str(int(encrypted))}
    return servers


def fit_state(states: str, config: str) -> str:
    """STATES for a process that will start with CONFIG.

    HAProxy takes a server's port, and whether requests go to it by TLS, from the state file even where the
    configuration has another (its checks go by the configuration), and ignores the whole file, with every weight, for
    one bad line.
    """
    rows = parse_states(states)
    servers = configured(config)
    kept = [row | servers[key] for row in rows if (key := (row[BACKEND], row[SERVER])) in servers]
    columns = states.splitlines()[1]
    lines = [" ".join(row[column] for column in columns[2:].split()) for row in kept]
    return "\n".join([STATE_VERSION, columns, *lines]) + "\n"


class Runtime:
    """The runtime socket."""

    def __init__(self, path: str = SOCKET, timeout: float = 5.0) -> None:
        self.path = path
        self.timeout = timeout

    def ask(self, command: str) -> str:
        """Answer to one command."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
                connection.settimeout(self.timeout)
                connection.connect(self.path)
                connection.sendall(command.encode() + b"\n")
                answer = b""
                while piece := connection.recv(65536):
                    answer += piece
        except TimeoutError as error:
            raise HaproxyError(f"HAProxy does not answer at {self.path}; see: systemctl status haproxy") from error
        except OSError as error:
            raise HaproxyError(
                f"HAProxy cannot be reached at {self.path} ({error.strerror}); start it with: systemctl restart haproxy"
            ) from error
        return answer.decode(errors="replace")

    def servers(self, backend: str) -> dict[str, Server]:
        return self.observe(backend)[0]

    def observe(self, backend: str) -> tuple[dict[str, Server], dict[str, tuple[int, int]]]:
        """The servers, and the counters of each."""
        states = self.ask(f"show servers state {backend}")
        if "Can't find backend" in states:
            raise HaproxyError(
                f"HAProxy has no backend {backend}; write it with: ansible-playbook playbooks/site.yml --limit edge"
            )
        stats = self.ask(f"show stat {backend} 4 -1")
        return servers_of(backend, states, stats), counters_of(stats)

    def worker(self) -> str:
        """The process that answers; each configuration has its own."""
        found = re.search(r"^Pid: (\d+)$", self.ask("show info"), re.MULTILINE)
        if not found:
            raise HaproxyError("HAProxy does not say which process it is")
        return found[1]

    def set_weight(self, backend: str, server: str, weight: int) -> None:
        answer = self.ask(f"set weight {backend}/{server} {weight}").strip()
        if answer:
            raise HaproxyError(f"HAProxy refused weight {weight} of {backend}/{server}: {answer}")

    def set_state(self, backend: str, server: str, state: str) -> None:
        answer = self.ask(f"set server {backend}/{server} state {state}").strip()
        if answer:
            raise HaproxyError(f"HAProxy refused state {state} of {backend}/{server}: {answer}")


def move(runtime: Runtime, backend: str, wanted: Mapping[str, int], state_file: str, config: str) -> list[str]:
    """Make the weights what is WANTED and keep them for HAProxy's next start; the servers that were changed.

    Servers that the backend does not have are left out: their hosts are gone.
    """
    with locked(state_file):
        servers = runtime.servers(backend)
        known = {name: weight for name, weight in wanted.items() if name in servers}
        steps = plan_move(known, servers).steps
        for name, weight in steps:
            runtime.set_weight(backend, name, weight)
        save_state(runtime, state_file, config)
    return [name for name, _weight in steps]


def save_state(runtime: Runtime, state_file: str, config: str) -> bool:
    """Keep every weight for the next start; whether the file was changed."""
    text = fit_state(runtime.ask("show servers state"), Path(config).read_text())
    return replace_state(state_file, text)


def reload(
    runtime: Runtime,
    signal_master: Callable[[], None],
    seconds: float,
    clock: Callable[[], float] = time.monotonic,
    pause: Callable[[float], None] = time.sleep,
) -> None:
    """Have a new process read the configuration; an error when the old one goes on instead.

    A configuration can pass HAProxy's own check and still not start: too few open files, an address that is taken.
    """
    before = answering(runtime)
    signal_master()
    until = clock() + seconds
    while answering(runtime) in (before, None):
        if clock() >= until:
            raise HaproxyError("HAProxy did not take its new configuration; see: journalctl -u haproxy -n 20")
        pause(0.05)


def answering(runtime: Runtime) -> str | None:
    try:
        return runtime.worker()
    except HaproxyError:
        return None


def fit_state_file(state_file: str, config: str) -> bool:
    """Make a kept state right for the configuration of now; whether the file was changed."""
    path = Path(state_file)
    if not path.exists():
        return False
    return replace_state(state_file, fit_state(path.read_text(), Path(config).read_text()))


def replace_state(state_file: str, text: str) -> bool:
    """Write whole or not at all."""
    path = Path(state_file)
    if path.exists() and path.read_text() == text:
        return False
    unfinished = path.with_name(path.name + ".new")
    with unfinished.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    return True


@contextmanager
def locked(state_file: str) -> Iterator[None]:
    """One at a time moves traffic or keeps its state."""
    lock = Path(state_file).with_name(Path(state_file).name + ".lock")
    try:
        file = lock.open("w")
    except OSError as error:
        raise HaproxyError(
            f"{lock} cannot be written ({error.strerror}); install the balancer with:"
            " ansible-playbook playbooks/site.yml --limit edge"
        ) from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
