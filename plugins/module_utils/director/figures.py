"""What the edge saw of each request, and its figures by server. Pure but for the clock that the caller passes.

HAProxy sends one JSON object a request when it ends. A request that never ends is not in them: those are counted from
HAProxy's own counters (`Overdue`).
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

# Requests are kept for as long as a verdict may look back.
KEEP_SECONDS = 1800
KEEP_REQUESTS = 200_000
NO_SERVER = "<NOSRV>"


@dataclass(frozen=True)
class Request:
    """One request as it ended.

    `server` is backend/server; `first` and `total` are seconds, `first` None where no answer began.
    """

    at: float
    server: str
    status: int
    first: float | None
    total: float
    end: str
    probe: bool = False
    provider: bool = False

    @property
    def failed(self) -> bool:
        """Whether the service is to blame: an error of its own, no answer, or one that it cut.

        Who hangs up is the client's business (C…), and an error of the model's provider is told apart by the service.
        """
        if self.provider or self.end.startswith("C"):
            return False
        return self.status >= 500 or self.status < 100 or self.end[:1] in ("S", "s", "P", "R", "I", "D", "U", "K")


def parse(line: bytes, now: float) -> Request | None:
    """One datagram of HAProxy's log; None where it is no request of a server."""
    try:
        raw = json.loads(line[line.index(b"{") :])
        server = str(raw["server"])
        if server == NO_SERVER:
            return None
        first = int(raw["first"])
        return Request(
            at=now,
            server=f"{raw['backend']}/{server}",
            status=int(raw["status"]),
            first=first / 1000 if first >= 0 else None,
            total=max(0, int(raw["total"])) / 1000,
            end=str(raw["end"]).replace("-", ""),
            probe=raw.get("probe") == "1",
            provider=raw.get("provider") not in ("", "-", "0", None),
        )
    except (ValueError, KeyError, TypeError):
        return None


@dataclass(frozen=True)
class Summary:
    """Figures of some servers over a time. `overdue` requests are neither answered nor given up yet."""

    answered: int = 0
    failed: int = 0
    overdue: int = 0
    provider: int = 0
    probes: int = 0
    p50: float | None = None
    p95: float | None = None

    @property
    def sample(self) -> int:
        return self.answered + self.overdue

    @property
    def error_rate(self) -> float | None:
        return (self.failed + self.overdue) / self.sample if self.sample else None

    def numbers(self) -> dict[str, Any]:
        """The figures for programs."""
        return {"requests": self.sample, "error_rate": self.error_rate, "p95_seconds": self.p95}

    def words(self) -> str:
        """The figures in a line."""
        if not self.sample:
            return "no requests"
        rate = 100 * (self.error_rate or 0.0)
        text = f"{self.sample} requests, {self.failed + self.overdue} failed ({rate:.2g} %)"
        if self.p95 is not None and self.p50 is not None:
            text += f", p50 {self.p50 * 1000:.0f} ms, p95 {self.p95 * 1000:.0f} ms"
        if self.overdue:
            text += f", {self.overdue} without an answer yet"
        if self.provider:
            text += f", {self.provider} errors of the model's provider"
        if self.probes:
            text += f", {self.probes} of them probes"
        return text


def percentile(ordered: list[float], share: float) -> float | None:
    """The value that SHARE of the sorted values do not exceed."""
    if not ordered:
        return None
    return ordered[min(len(ordered) - 1, max(0, -(-int(share * len(ordered) * 1000) // 1000) - 1))]


@dataclass
class Figures:
    """Every request of the last half hour."""

    requests: deque[Request] = field(default_factory=lambda: deque(maxlen=KEEP_REQUESTS))

    def add(self, request: Request) -> None:
        self.requests.append(request)
        while self.requests and self.requests[0].at < request.at - KEEP_SECONDS:
            self.requests.popleft()

    def summary(self, servers: Iterable[str], since: float, overdue: int = 0) -> Summary:
        """Figures of SERVERS since a moment; OVERDUE are requests that have no answer for too long."""
        wanted = set(servers)
        return summarize([request for request in self.since(since) if request.server in wanted], overdue)

    def grouped(self, since: float, group: Callable[[str], str]) -> dict[str, Summary]:
        """Figures by what GROUP says of a server, and under no name those of all; no name is left out."""
        requests: dict[str, list[Request]] = {}
        for request in self.since(since):
            if name := group(request.server):
                requests.setdefault(name, []).append(request)
        everything = [request for of_group in requests.values() for request in of_group]
        return {name: summarize(found) for name, found in {**requests, "": everything}.items()}

    def since(self, moment: float) -> Iterator[Request]:
        """The latest first."""
        for request in reversed(self.requests):
            if request.at < moment:
                return
            yield request


def summarize(requests: Iterable[Request], overdue: int = 0) -> Summary:
    """Figures of some requests.

    Who hung up before an answer began says nothing of the service.
    """
    seen = [request for request in requests if not (request.end.startswith("C") and request.first is None)]
    firsts = sorted(request.first for request in seen if request.first is not None and not request.provider)
    return Summary(
        answered=len(seen),
        failed=sum(request.failed for request in seen),
        overdue=overdue,
        provider=sum(request.provider for request in seen),
        probes=sum(request.probe for request in seen),
        p50=percentile(firsts, 0.5),
        p95=percentile(firsts, 0.95),
    )


@dataclass
class Overdue:
    """Requests that a server got and did not begin to answer within `seconds`, from HAProxy's own counters.

    Each reading holds how many requests a server was given and how many have an outcome, both since HAProxy started.
    Of those given before the limit, the ones without an outcome now are overdue; what lacked one at the first reading
    is an earlier release's.
    """

    seconds: float
    readings: deque[tuple[float, Mapping[str, tuple[int, int]]]] = field(default_factory=deque)
    lacking: Mapping[str, int] = field(default_factory=dict)

    def read(self, now: float, counters: Mapping[str, tuple[int, int]]) -> None:
        if self.readings and any(
            counters.get(server, (0, 0))[0] < given for server, (given, _ended) in self.readings[-1][1].items()
        ):
            # HAProxy was started anew: its counters begin at zero.
            self.readings.clear()
        if not self.readings:
            self.lacking = {server: given - ended for server, (given, ended) in counters.items()}
        self.readings.append((now, counters))
        while len(self.readings) > 1 and self.readings[1][0] <= now - self.seconds:
            self.readings.popleft()

    def of(self, servers: Iterable[str]) -> int:
        if not self.readings:
            return 0
        then, before = self.readings[0]
        now, after = self.readings[-1]
        if then > now - self.seconds:
            return 0
        return sum(
            max(0, before.get(name, (0, 0))[0] - after.get(name, (0, 0))[1] - self.lacking.get(name, 0))
            for name in servers
        )
