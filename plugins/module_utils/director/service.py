"""The director as a service: its sockets, its signals, and systemd."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils.director.answers import REFUSALS, answer, standing
from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Director, Places


async def serve_one(director: Director, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One request a connection: a line of JSON each way."""
    try:
        line = await asyncio.wait_for(reader.readline(), 30)
        if not line.strip():
            return
        try:
            reply = {"ok": True, **await answer(director, json.loads(line))}
        except REFUSALS as error:
            missing = f"the request lacks {error}" if isinstance(error, KeyError) else str(error)
            reply = {"ok": False, "error": missing, **standing(director, error)}
        writer.write(json.dumps(reply, ensure_ascii=False).encode() + b"\n")
        await writer.drain()
    except (OSError, TimeoutError):
        return
    finally:
        writer.close()


def notify(message: str) -> None:
    """Tell systemd."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.connect("\0" + address[1:] if address.startswith("@") else address)
        channel.sendall(message.encode())


async def watchdog() -> None:
    microseconds = int(os.environ.get("WATCHDOG_USEC", "0"))
    while microseconds:
        notify("WATCHDOG=1")
        await asyncio.sleep(microseconds / 3e6)


@contextlib.contextmanager
def requests_socket(path: Path) -> Iterator[socket.socket]:
    """Where HAProxy sends a datagram a request."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        channel.bind(str(path))
        # HAProxy writes as its own user.
        path.chmod(0o666)
        yield channel


def drain_socket(director: Director, channel: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        while True:
            director.received(channel.recv(65536))


async def serve(places: Places) -> None:
    """Run until told to end; what is under way goes on at the next start."""
    director = Director(places)
    loop = asyncio.get_running_loop()
    ending = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ending.set)
    with requests_socket(places.requests) as channel:
        loop.add_reader(channel, drain_socket, director, channel)
        places.control.parent.mkdir(parents=True, exist_ok=True)
        places.control.unlink(missing_ok=True)
        old = os.umask(0o177)
        server = await asyncio.start_unix_server(
            lambda reader, writer: serve_one(director, reader, writer), str(places.control), limit=1 << 22
        )
        os.umask(old)
        tasks = [asyncio.create_task(director.run()), asyncio.create_task(watchdog())]
        notify("READY=1")
        stopping = asyncio.create_task(ending.wait())
        await asyncio.wait([*tasks, stopping], return_when=asyncio.FIRST_COMPLETED)
        server.close()
        for task in tasks:
            if task.done():
                # Neither ends by itself: what ended it is why the director ends.
                task.result()
            task.cancel()
    director.journal.close()
