"""HTTP/1.1 over connections that are kept, with every way a connection can end told apart."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import h11

Headers = list[tuple[str, str]]


class Refused(Exception):
    """No connection was made."""


class Cut(Exception):
    """The connection ended before the answer did."""


@dataclass(frozen=True)
class Place:
    """Where to connect to, and the name that TLS and the Host header go by."""

    host: str
    port: int
    site: str
    tls: ssl.SSLContext | None


class Connection:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http = h11.Connection(h11.CLIENT)
        self.idle_since = time.monotonic()

    @classmethod
    async def make(cls, place: Place) -> Connection:
        try:
            name = place.site if place.tls else None
            return cls(*await asyncio.open_connection(place.host, place.port, ssl=place.tls, server_hostname=name))
        except OSError as error:
            raise Refused(f"{type(error).__name__}: {error}") from error

    def usable(self) -> bool:
        """Whether the next request may go over it, as far as can be known here."""
        return not (self.reader.at_eof() or self.reader.exception() or self.writer.is_closing())

    async def send(self, data: bytes) -> None:
        try:
            self.writer.write(data)
            await self.writer.drain()
        except OSError as error:
            raise Cut(f"{type(error).__name__}: {error}") from error

    async def receive(self) -> bytes:
        """What comes next; nothing is the end."""
        try:
            return await self.reader.read(65536)
        except OSError as error:
            raise Cut(f"{type(error).__name__}: {error}") from error

    async def ask(self, method: str, path: str, headers: Headers, body: bytes) -> int:
        """Send a request; its answer's status. Read the answer to its end with pieces()."""
        head = h11.Request(method=method, target=path, headers=[*headers, ("Content-Length", str(len(body)))])
        whole = self.http.send(head) + self.http.send(h11.Data(data=body)) + self.http.send(h11.EndOfMessage())
        await self.send(whole)
        while True:
            event = await self._event()
            if isinstance(event, h11.Response):
                return event.status_code

    async def pieces(self) -> AsyncIterator[bytes]:
        """The answer's body as it comes."""
        while True:
            event = await self._event()
            if isinstance(event, h11.Data):
                yield bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                return

    async def _event(self) -> h11.Event:
        while True:
            try:
                event = self.http.next_event()
                if event is h11.NEED_DATA:
                    self.http.receive_data(await self.receive())
                    continue
            except h11.RemoteProtocolError as error:
                raise Cut(str(error)) from error
            if isinstance(event, h11.ConnectionClosed):
                raise Cut("closed without an answer")
            assert isinstance(event, h11.Event)
            return event

    def again(self) -> bool:
        """Get ready for another request; false where the answer does not allow one."""
        if self.http.our_state is not h11.DONE or self.http.their_state is not h11.DONE:
            return False
        self.http.start_next_cycle()
        self.idle_since = time.monotonic()
        return self.usable()

    def close(self) -> None:
        self.writer.transport.abort()


class Pool:
    """Connections that are kept for the next request.

    The one that was idle longest goes first, so that none is spared what a restart does to idle connections.
    """

    def __init__(self, place: Place, keep_seconds: float = 30) -> None:
        self.place = place
        self.keep_seconds = keep_seconds
        self.idle: deque[Connection] = deque()

    async def take(self) -> Connection:
        while self.idle:
            connection = self.idle.popleft()
            if connection.usable() and time.monotonic() - connection.idle_since < self.keep_seconds:
                return connection
            connection.close()
        return await Connection.make(self.place)

    def give(self, connection: Connection) -> None:
        """Keep it for the next request if its answer came to its end, else close it."""
        if connection.again():
            self.idle.append(connection)
        else:
            connection.close()

    def close(self) -> None:
        while self.idle:
            self.idle.pop().close()
