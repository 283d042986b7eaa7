"""Many server-sent streams at a time from one client, each read to its end."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass

# Opened one after the other, as clients come: what is tried is how many are open, not how many come at once.
OPENING = 50


@dataclass
class Outcome:
    whole: int = 0
    failed: int = 0
    most_open: int = 0
    seconds: float = 0
    reason: str = ""


def open_streams(port: int, key: str, number: int, pieces: int) -> Outcome:
    return asyncio.run(_open_streams(port, key, number, pieces))


async def _open_streams(port: int, key: str, number: int, pieces: int) -> Outcome:
    outcome = Outcome()
    open_now = 0
    opening = asyncio.Semaphore(OPENING)

    async def one(position: int) -> None:
        nonlocal open_now
        body = json.dumps({"message": f"How is our cash flow this month, until invoice {position}?"})
        async with opening:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"POST /api/chat/stream HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n"
                f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                f"{body}".encode()
            )
            head = await reader.readuntil(b"\r\n\r\n")
        try:
            assert head.startswith(b"HTTP/1.1 200 "), head
            open_now += 1
            outcome.most_open = max(outcome.most_open, open_now)
            try:
                received = await reader.read()
            finally:
                open_now -= 1
            # The pieces alone, for the last event has the whole text as well.
            assert received.partition(b"event: done")[0].count(b"piece") == pieces
            assert received.count(b"event: done") == 1
            outcome.whole += 1
        except (AssertionError, OSError) as error:
            outcome.failed += 1
            outcome.reason = str(error)[:200]
        finally:
            writer.close()

    began = time.monotonic()
    await asyncio.gather(*(one(position) for position in range(number)))
    outcome.seconds = time.monotonic() - began
    return outcome
