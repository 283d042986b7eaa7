"""An app of one's own, as small as it can be: what a service must have to be deployed, and windows to test through."""

import asyncio
import json
import os
import pathlib
import socket
import time


def tell_systemd(state):
    if path := os.environ.get("NOTIFY_SOCKET"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
            notify.sendto(state, path)


async def keep_alive():
    while True:
        tell_systemd(b"WATCHDOG=1")
        await asyncio.sleep(1)


async def echo(receive, send):
    while (event := await receive())["type"] != "websocket.disconnect":
        if event["type"] == "websocket.connect":
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "websocket.send", "text": event["text"]})


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await receive()
        tell_systemd(b"READY=1")
        scope["state"]["alive"] = asyncio.create_task(keep_alive())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        return await send({"type": "lifespan.shutdown.complete"})
    if scope["type"] == "websocket":
        return await echo(receive, send)
    if scope["path"] == "/hang":
        time.sleep(600)
    credentials = pathlib.Path(os.environ["CREDENTIALS_DIRECTORY"])
    answer = {
        "release": os.environ["AGENT_RELEASE"],
        "slot": os.environ["AGENT_SLOT"],
        "greeting": os.environ.get("GREETING"),
        "secrets": {path.name: len(path.read_text()) for path in sorted(credentials.iterdir())},
    }
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": json.dumps(answer).encode()})
