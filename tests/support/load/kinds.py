"""One request, one stream, one WebSocket: each says what became of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import wsproto
from wsproto.events import AcceptConnection, CloseConnection, Ping, RejectConnection, Request, TextMessage

from .records import ANSWERED, CUT, FAILED, REFUSED, STALLED
from .wire import Connection, Cut, Headers, Place, Pool, Refused

PING_SECONDS = 1.0


class Wrong(Exception):
    """An answer came, and it is not what was asked for."""


@dataclass
class Timing:
    """How long it took, as far as it came: what the kind counts, from when it was to leave."""

    due: float
    seconds: float = field(default=0.0)

    def note(self) -> None:
        self.seconds = asyncio.get_running_loop().time() - self.due


async def outcome_of(work: Awaitable[None]) -> tuple[str, str]:
    """What became of WORK, and why."""
    try:
        await work
    except Refused as error:
        return REFUSED, str(error)
    except Cut as error:
        return CUT, str(error)
    except Wrong as error:
        return FAILED, str(error)
    except TimeoutError:
        return STALLED, "nothing came"
    return ANSWERED, ""


@dataclass(frozen=True)
class Service:
    """What is talked to, and how long it may be silent."""

    place: Place
    pool: Pool
    headers: Headers
    stall: float

    async def request(self, path: str, identity: str, timing: Timing) -> None:
        """A question and its answer."""
        try:
            async with (
                asyncio.timeout_at(timing.due + self.stall),
                self.asked(path, identity, "") as (connection, status),
            ):
                body = b"".join([piece async for piece in connection.pieces()])
        finally:
            timing.note()
        if not 200 <= status < 300:
            raise Wrong(f"{status}: {body[:200].decode(errors='replace')}")

    async def stream(self, path: str, identity: str, timing: Timing, words: int) -> None:
        """A question of so many words, and the events of its answer, of which the last is `done`."""
        events = Events()
        try:
            async with asyncio.timeout_at(timing.due + self.stall) as silence:
                async with self.asked(path, identity, " word" * words) as (connection, status):
                    async for piece in connection.pieces():
                        if not events.names:
                            timing.note()
                        events.read(piece)
                        silence.reschedule(asyncio.get_running_loop().time() + self.stall)
        finally:
            if not events.names:
                timing.note()
        if status != 200:
            raise Wrong(f"{status}: {events.text[:200]}")
        events.judge()

    async def socket(self, path: str, identity: str, timing: Timing, seconds: float) -> None:
        """A WebSocket that echoes, asked once a second; SECONDS of it."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout_at(timing.due + self.stall):
            connection = await Connection.make(self.place)
            try:
                session = Session(connection)
                await session.open(self.place.site, path, self.headers)
            except BaseException:
                connection.close()
                raise
        try:
            timing.note()
            until, slowest, number = timing.due + seconds, timing.seconds, 0
            while loop.time() < until:
                echo = Timing(loop.time())
                async with asyncio.timeout(self.stall):
                    await session.echo(f"{identity} {number}")
                echo.note()
                timing.seconds = slowest = max(slowest, echo.seconds)
                number += 1
                await session.quiet(min(PING_SECONDS, max(0.0, until - loop.time())))
            async with asyncio.timeout(self.stall):
                await session.close()
        finally:
            connection.close()

    @asynccontextmanager
    async def asked(self, path: str, identity: str, more: str):
        """A connection that asked, and its answer's status; kept afterwards if it can be."""
        message = {"message": f"{identity} Is anybody there?{more}", "session_id": identity, "user_id": "load"}
        headers = [*self.headers, ("Content-Type", "application/json"), ("X-Session-Id", identity)]
        connection = await self.pool.take()
        try:
            yield connection, await connection.ask("POST", path, headers, json.dumps(message).encode())
        except BaseException:
            connection.close()
            raise
        self.pool.give(connection)


class Events:
    """Server-sent events, by name."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.text = ""
        self._rest = b""

    def read(self, piece: bytes) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            if line.startswith(b"event:"):
                self.names.append(line.removeprefix(b"event:").strip().decode(errors="replace"))
            elif line.strip():
                self.text = line.decode(errors="replace")
        if not self.names:
            self.text = (self.text + self._rest.decode(errors="replace"))[:1000]

    def judge(self) -> None:
        """Whole is what ends with one `done`."""
        if "error" in self.names:
            raise Wrong(f"event: error: {self.text[:200]}")
        if "done" not in self.names:
            raise Cut(f"ended after {len(self.names)} events without done")
        if self.names.count("done") > 1 or self.names[-1] != "done":
            raise Wrong(f"more after done: {self.names[-3:]}")


class Session:
    """A WebSocket whose other end echoes."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.wire = wsproto.WSConnection(wsproto.ConnectionType.CLIENT)
        self.events = iter(())
        self.text = ""

    async def open(self, site: str, path: str, headers: Headers) -> None:
        more = [(name.encode(), value.encode()) for name, value in headers if name != "Host"]
        await self._send(Request(host=site, target=path, extra_headers=more))
        event = await self._next()
        if not isinstance(event, AcceptConnection):
            raise Wrong(f"no WebSocket: {getattr(event, 'status_code', event)}")

    async def echo(self, text: str) -> None:
        await self._send(TextMessage(data=text))
        came = await self.message()
        if came != text:
            raise Wrong(f"{came!r} came for {text!r}")

    async def message(self) -> str:
        """The next whole message."""
        text = ""
        while True:
            event = await self._next()
            if isinstance(event, CloseConnection):
                raise Cut(f"closed by the other end: {event.code} {event.reason or ''}".rstrip())
            if isinstance(event, TextMessage):
                text += event.data
                if event.message_finished:
                    return text

    async def quiet(self, seconds: float) -> None:
        """Nothing may come now."""
        try:
            async with asyncio.timeout(seconds):
                came = await self.message()
        except TimeoutError:
            return
        raise Wrong(f"{came!r} came unasked")

    async def close(self) -> None:
        await self._send(CloseConnection(code=1000))
        while not isinstance(event := await self._next(), CloseConnection):
            if isinstance(event, TextMessage):
                raise Wrong(f"{event.data!r} came unasked")

    async def _send(self, event: wsproto.events.Event) -> None:
        await self.connection.send(self.wire.send(event))

    async def _next(self) -> wsproto.events.Event:
        while True:
            for event in self.events:
                if isinstance(event, Ping):
                    await self._send(event.response())
                    continue
                if isinstance(event, RejectConnection):
                    raise Wrong(f"no WebSocket: {event.status_code}")
                return event
            data = await self.connection.receive()
            if not data:
                raise Cut("the connection ended")
            try:
                self.wire.receive_data(data)
            except wsproto.utilities.RemoteProtocolError as error:
                raise Wrong(str(error)) from error
            self.events = self.wire.events()


Kind = Callable[[str, Timing], Awaitable[None]]
