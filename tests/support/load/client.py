"""The load itself: what leaves when, from entering the context to leaving it."""

from __future__ import annotations

import asyncio
import itertools
import random
import ssl
import threading
import time
import uuid
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from .delay import delayed
from .kinds import Kind, Service, Timing, outcome_of
from .records import ANSWERED, REQUEST, SOCKET, STREAM, Count, Record, count, percentile, problems, window_of
from .seen import Seen
from .wire import Place, Pool


@dataclass
class Load:
    """RATE questions a second, and so many streams and WebSockets held open, until the context is left.

    Requests leave on schedule whether or not earlier ones came back, and are timed from when they were to leave: a
    service that stands still for a second shows as a second. Streams and WebSockets that are open at the end run to
    theirs. SEEN says what the service itself saw; without it nothing is known of duplicates.
    """

    base_url: str
    site: str
    tls: ssl.SSLContext | None
    key: str
    rate: float
    streams: int = 0
    sockets: int = 0
    lasting: tuple[float, float] = (20.0, 60.0)
    """How long a stream or a WebSocket lasts, in seconds: from, to."""
    words_per_second: float = 2.0
    """The model's pace; a stream is as long as its question."""
    round_trip: float = 0.0
    """Seconds added on the way to the service."""
    stall: float = 30.0
    """How long nothing may come."""
    seen: Seen | None = None
    path: str = "/api/chat"
    socket_path: str = "/ws"
    name: str = field(default_factory=lambda: f"load-{uuid.uuid4().hex[:8]}")
    records: list[Record] = field(default_factory=list)
    marks: list[tuple[float, str]] = field(default_factory=lambda: [(0.0, "before")])
    began_at: float = 0.0
    """By the wall's clock."""

    def __enter__(self) -> Load:
        self._sights: Counter[str] | None = None
        self._over = False
        self._numbers = itertools.count()
        self._random = random.Random(self.name)
        self._problem: BaseException | None = None
        self._runs = threading.Event()
        self._ended = threading.Condition()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        self._runs.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._thread.is_alive():
            # What failed meanwhile is not waited for.
            self._loop.call_soon_threadsafe(self._stop.set if kind is None else self._main.cancel)
        self._thread.join()
        if kind is not None:
            return
        if self._problem:
            raise self._problem
        if self.seen:
            self._sights = Counter(self.seen(self.name))

    def wait_for(self, number: int) -> None:
        """Go on when so many more have ended, whatever became of them."""
        enough = len(self.records) + number
        with self._ended:
            self._ended.wait_for(lambda: len(self.records) >= enough or self._over)

    def mark(self, name: str) -> None:
        """Begin a window: what is to leave from now on belongs to it, and what lasts and breaks from now on."""
        self.marks.append((time.monotonic() - self._zero, name))

    @property
    def sent(self) -> int:
        """Requests, streams and WebSockets that ended."""
        return len(self.records)

    @property
    def failures(self) -> list[str]:
        """A line for each that was not answered whole, or not done once; empty is a perfect load."""
        return problems(self.records, self._sights)

    def of(self, window: str | None = None, kind: str | None = None) -> list[Record]:
        return [
            record
            for record in self.records
            if kind in (None, record.kind) and window in (None, window_of(record.at, self.marks))
        ]

    def count(self, window: str | None = None, kind: str | None = None) -> Count:
        return count(self.of(window, kind), self._sights)

    def percentile(self, share: float, window: str | None = None, kind: str = REQUEST) -> float:
        """The seconds that SHARE of the answered ones stayed under; 1 is the slowest."""
        return percentile((record.seconds for record in self.of(window, kind) if record.outcome == ANSWERED), share)

    def _run(self) -> None:
        try:
            asyncio.run(self._drive())
        except asyncio.CancelledError:
            pass
        except BaseException as error:
            self._problem = error
        finally:
            self._runs.set()
            with self._ended:
                self._over = True
                self._ended.notify_all()

    async def _drive(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self._main: asyncio.Task[Any] | None = asyncio.current_task()
        parts = urlsplit(self.base_url)
        port = parts.port or (443 if self.tls else 80)
        async with delayed(parts.hostname or "", port, self.round_trip) as (host, port):
            place = Place(host, port, self.site, self.tls)
            pool = Pool(place)
            headers = [("Host", self.site), ("Authorization", f"Bearer {self.key}")]
            self._service = Service(place, pool, headers, self.stall)
            self._zero, self.began_at = time.monotonic(), time.time()
            self._runs.set()
            try:
                async with asyncio.TaskGroup() as group:
                    if self.rate:
                        group.create_task(self._send_requests(group))
                    for kind, number in ((STREAM, self.streams), (SOCKET, self.sockets)):
                        for place in range(number):
                            # Not all at once.
                            after = self.lasting[0] / 10 * place / number
                            group.create_task(self._keep_open(kind, after))
            finally:
                pool.close()

    async def _send_requests(self, group: asyncio.TaskGroup) -> None:
        began = self._loop.time()
        for number in itertools.count():
            due = began + number / self.rate
            if await self._stopped_by(due):
                return
            group.create_task(self._one(REQUEST, due, partial(self._service.request, self.path)))

    async def _keep_open(self, kind: str, after: float) -> None:
        """One stream or WebSocket after the other."""
        due = self._loop.time() + after
        while not await self._stopped_by(due):
            lasts = self._random.uniform(*self.lasting)
            if kind == STREAM:
                words = round(lasts * self.words_per_second)
                work: Kind = partial(self._service.stream, f"{self.path}/stream", words=words)
            else:
                work = partial(self._service.socket, self.socket_path, seconds=lasts)
            answered = await self._one(kind, due, work)
            # A model that is faster than expected is no reason for more streams, and a refusal none for a flood.
            now = self._loop.time()
            due = max(now, due + lasts) if answered else now + min(1, lasts)

    async def _stopped_by(self, moment: float) -> bool:
        """Wait until MOMENT, or the end of the load."""
        try:
            async with asyncio.timeout_at(moment):
                await self._stop.wait()
        except TimeoutError:
            pass
        return self._stop.is_set()

    async def _one(self, kind: str, due: float, work: Kind) -> bool:
        identity = f"{self.name}-{next(self._numbers)}"
        timing = Timing(due)
        outcome, detail = await outcome_of(work(identity, timing))
        left, ended = due - self._zero, time.monotonic() - self._zero
        with self._ended:
            self.records.append(Record(kind, identity, left, outcome, timing.seconds, ended, detail))
            self._ended.notify_all()
        return outcome == ANSWERED
