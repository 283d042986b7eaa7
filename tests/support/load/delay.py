"""A longer way to a service: what passes through is the same, later."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

Ends = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def delayed(host: str, port: int, round_trip: float) -> AsyncIterator[tuple[str, int]]:
    """An address that leads to HOST and PORT, with a round trip longer by so many seconds."""
    if not round_trip:
        yield host, port
        return
    under_way: set[asyncio.Task[None]] = set()

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        # Streams of Python 3.11 complain about a handler that was cancelled.
        with suppress(asyncio.CancelledError):
            await join((reader, writer), host, port, round_trip)

    server = await asyncio.start_server(pass_on, "127.0.0.1", 0, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[:2]
    finally:
        server.close()
        for task in list(under_way):
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def join(client: Ends, host: str, port: int, round_trip: float) -> None:
    """Carry a client's connection to its end."""
    # What the client took for an established connection is one only now.
    await asyncio.sleep(round_trip)
    try:
        service = await asyncio.open_connection(host, port)
    except OSError:
        reset(client[1])
        return
    try:
        async with asyncio.TaskGroup() as both:
            both.create_task(carry(client[0], service[1], round_trip / 2))
            both.create_task(carry(service[0], client[1], round_trip / 2))
    finally:
        for _, writer in (client, service):
            writer.transport.abort()


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """One direction, until it ends; an end and a reset arrive as late as everything else."""
    loop = asyncio.get_running_loop()
    # None stands for a reset, nothing for the end.
    waiting: asyncio.Queue[tuple[float, bytes | None]] = asyncio.Queue()

    async def read() -> None:
        data: bytes | None = b"begin"
        while data:
            try:
                data = await reader.read(65536)
            except OSError:
                data = None
            waiting.put_nowait((loop.time() + delay, data))

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        while True:
            due, data = await waiting.get()
            await asyncio.sleep(due - loop.time())
            if data is None or writer.is_closing():
                reset(writer)
                return
            try:
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()
            except OSError:
                return


def reset(writer: asyncio.StreamWriter) -> None:
    """End a connection as a service does that went away."""
    if not writer.is_closing():
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
