"""A server that misbehaves as the first word of the path says, and knows what it was asked.

/answer                          as it should be: an answer, a stream, a WebSocket that echoes
/fail /cut /stall                a 500; the connection ended in the middle; nothing comes
/twice                           as it should be, and done twice
/hold                            nobody is answered before HELD have asked
/close                           answered, and the connection closed without a word
/short/stream /more/stream /error/stream     a stream without done, with two, with an error
"""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType

import wsproto
from wsproto.events import AcceptConnection, CloseConnection, Request, TextMessage

HELD = 10


class BadServer:
    """On a port of its own, from entering the context to leaving it."""

    def __enter__(self) -> BadServer:
        self.seen: list[str] = []
        self.connections = 0
        self.port = 0
        self._asked = threading.Condition()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join()

    def wait_for(self, number: int) -> None:
        """Until so many questions came."""
        with self._asked:
            assert self._asked.wait_for(lambda: len(self.seen) >= number, timeout=60), f"only {len(self.seen)} came"

    def look(self, prefix: str) -> list[str]:
        """What it was asked, for a load's `seen`."""
        return [identity for identity in self.seen if identity.startswith(prefix)]

    async def _serve(self) -> None:
        self._loop, self._end, self._enough = asyncio.get_running_loop(), asyncio.Event(), asyncio.Event()
        self._writers: set[asyncio.StreamWriter] = set()
        server = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for writer in self._writers:
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                await writer.drain()
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; whether the connection stays."""
        raw = await reader.readuntil(b"\r\n\r\n")
        first, *lines = raw.decode().split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        way, _, rest = first.split()[1].removeprefix("/").partition("/")
        if headers.get("upgrade"):
            await self._socket(way, raw, reader, writer)
            return False
        question = json.loads(await reader.readexactly(int(headers.get("content-length", 0))))["message"]
        self._note(question.split()[0], 2 if way == "twice" else 1)
        if way == "hold":
            await self._enough.wait()
        if way == "stall":
            await self._end.wait()
        if way == "fail":
            writer.write(b"HTTP/1.1 500 Oh\r\nContent-Length: 9\r\n\r\nno chance")
        elif rest == "stream":
            return self._stream(way, writer)
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n" + (b"half" if way == "cut" else b"an answer"))
        return way not in ("cut", "close")

    def _note(self, identity: str, times: int) -> None:
        with self._asked:
            self.seen += [identity] * times
            self._asked.notify_all()
        if len(self.seen) >= HELD:
            self._enough.set()

    def _stream(self, way: str, writer: asyncio.StreamWriter) -> bool:
        token, done, error = "event: token\ndata: {}\n\n", "event: done\ndata: {}\n\n", "event: error\ndata: {}\n\n"
        events = {"cut": token, "short": token, "more": token + done + done, "error": token + error}.get(
            way, token + done
        )
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for piece in (events[:9], events[9:]):
            writer.write(b"%x\r\n%s\r\n" % (len(piece), piece.encode()))
        if way != "cut":
            writer.write(b"0\r\n\r\n")
        return way != "cut"

    async def _socket(self, way: str, raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        wire = wsproto.WSConnection(wsproto.ConnectionType.SERVER)
        data = raw
        while data:
            wire.receive_data(data)
            for event in wire.events():
                if isinstance(event, Request):
                    if way == "fail":
                        writer.write(b"HTTP/1.1 503 Oh\r\nContent-Length: 0\r\n\r\n")
                        return
                    writer.write(wire.send(AcceptConnection()))
                elif isinstance(event, TextMessage):
                    self._note(event.data.split()[0], 1)
                    if way == "cut":
                        writer.write(wire.send(CloseConnection(code=1012)))
                        return
                    for _ in range({"stall": 0, "twice": 2}.get(way, 1)):
                        writer.write(wire.send(TextMessage(data=event.data)))
                elif isinstance(event, CloseConnection):
                    writer.write(wire.send(event.response()))
                    return
            data = await reader.read(65536)
