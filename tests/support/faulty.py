"""Appended to the reference app's main module: a release that misbehaves as the variable FAULT says.

errors   three of ten chats answer 500, from FAULT_AFTER seconds after the start on
slow     every chat takes a second longer
hang     chats answer after 40 seconds
"""

import asyncio
import os
import time

_fault, _after, _began = os.environ.get("FAULT", ""), float(os.environ.get("FAULT_AFTER", "0")), time.monotonic()
_app, _count = app, 0  # noqa: F821 - the module that this is appended to has it


async def app(scope, receive, send):
    global _count
    chats = scope["type"] == "http" and scope["path"].startswith("/api/chat")
    if not chats or not _fault or time.monotonic() - _began < _after:
        await _app(scope, receive, send)
        return
    _count += 1
    if _fault == "hang":
        await asyncio.sleep(40)
    if _fault == "errors" and _count % 10 < 3:
        await send({"type": "http.response.start", "status": 500, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        return
    if _fault == "slow":
        await asyncio.sleep(1)
    await _app(scope, receive, send)
