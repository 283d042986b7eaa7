"""A model that costs its machine next to nothing: one canned answer in the provider's wire protocol, later if wanted.

    python model.py PORT

POST …/chat/completions   the answer, plain or streamed; of a tool that is demanded, its call
POST /_control            {"latency": seconds, "pieces": of a stream, "pause": seconds between them}
GET  /_count              how many answers were asked for
"""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import uvloop

BASE = {"id": "completion-1", "created": 1, "model": "deepseek-v4-flash"}
USAGE = {"prompt_tokens": 150, "completion_tokens": 40, "total_tokens": 190}
TEXT = "Your balance stays positive until the end of the month, if the two open invoices are paid in time."
# As agent-squad's classifier wants it.
ARGUMENTS = json.dumps({"userinput": "…", "selected_agent": "cashflow", "confidence": 0.9})
CALL = {"id": "call_1", "type": "function", "function": {"name": "analyzePrompt", "arguments": ARGUMENTS}}


def response(document: Any) -> bytes:
    body = json.dumps(document).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def completion(message: dict[str, Any], reason: str) -> bytes:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "logprobs": None, "finish_reason": reason}
    return response({**BASE, "object": "chat.completion", "choices": [choice], "usage": USAGE})


def chunk(delta: dict[str, Any], reason: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
    event = {**BASE, "object": "chat.completion.chunk", "choices": [choice], **more}
    return encoded(f"data: {json.dumps(event)}\n\n".encode())


def encoded(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


ANSWER = completion({"content": TEXT}, "stop")
CLASSIFIED = completion({"content": None, "tool_calls": [CALL]}, "tool_calls")
STREAM_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk(
    {"role": "assistant", "content": ""}
)
STREAM_PIECE = chunk({"content": "piece "})
STREAM_END = chunk({"content": ""}, "stop", usage=USAGE) + encoded(b"data: [DONE]\n\n") + encoded(b"")

state: dict[str, float] = {"latency": 0, "pieces": 20, "pause": 0, "count": 0}


class Server(asyncio.Protocol):
    def __init__(self) -> None:
        self._received = b""

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return
        _, _, length = head.lower().partition(b"content-length:")
        wanted = int(length.split(b"\r\n", 1)[0] or 0)
        if len(rest) >= wanted:
            self._received = rest[wanted:]
            self._answer(head.split(b" ", 2)[1], rest[:wanted])

    def _answer(self, path: bytes, body: bytes) -> None:
        if not path.endswith(b"/chat/completions"):
            if path == b"/_control":
                state.update(json.loads(body))
            self._transport.write(response({"data": [], **state}))
            return
        state["count"] += 1
        if b'"stream":true' in body:
            asyncio.get_running_loop().create_task(self._stream())
            return
        answer = CLASSIFIED if b'"tool_choice":{' in body else ANSWER
        if state["latency"]:
            asyncio.get_running_loop().call_later(state["latency"], self._transport.write, answer)
        else:
            self._transport.write(answer)

    async def _stream(self) -> None:
        await asyncio.sleep(state["latency"])
        self._transport.write(STREAM_HEAD)
        for _ in range(int(state["pieces"])):
            await asyncio.sleep(state["pause"])
            self._transport.write(STREAM_PIECE)
        self._transport.write(STREAM_END)


async def main(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Server, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1])))
