"""The service manager's protocol: ready, stopping, and a watchdog fed by the event loop."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator


def notify(state: str) -> bool:
    """Tell the service manager; without one there is nothing to tell."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
        connection.setblocking(False)
        connection.sendto(state.encode(), address)
    return True


def watchdog_seconds() -> float | None:
    """Half of the time after which the manager gives the process up."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    meant_for = os.environ.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if meant_for and meant_for != str(os.getpid()):
        return None
    return int(microseconds) / 2_000_000


@contextlib.asynccontextmanager
async def watchdog() -> AsyncIterator[None]:
    """Feed the watchdog from this event loop, so that a blocked loop is noticed."""
    seconds = watchdog_seconds()
    task = asyncio.create_task(_feed(seconds)) if seconds else None
    try:
        yield
    finally:
        if task:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


async def _feed(seconds: float) -> None:
    while True:
        # A full queue of the manager is its problem: the next beat tries again.
        with contextlib.suppress(OSError):
            notify("WATCHDOG=1")
        await asyncio.sleep(seconds)
