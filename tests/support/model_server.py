#!/usr/bin/env python3
"""A local server that speaks DeepSeek's wire protocol: it repeats the question, and is slow or fails on command.

    python tests/support/model_server.py --host 127.0.0.1 --port 8900 --key KEY

POST /chat/completions, /v1/chat/completions   as DeepSeek's, plain or streamed
POST /v1/messages                              as Anthropic's, plain or streamed, without tools
GET  /models, /v1/models                       as DeepSeek's
POST /_control                                 change the behaviour (see Behaviour); {"reset": true} goes back first
GET  /_requests                                what arrived; DELETE forgets it
GET  /_usage                                   tokens of all answers so far, by model
"""

from __future__ import annotations

import argparse
import dataclasses
import hmac
import json
import re
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODELS = ("deepseek-v4-flash", "deepseek-v4-pro")
KEPT_REQUESTS = 5000


@dataclasses.dataclass
class Behaviour:
    """What /_control changes. The `*_next` counters count down with each completion asked for."""

    latency_seconds: float = 0
    """Wait before the first byte."""
    tokens_per_second: float = 0
    """Pace of a stream; 0 is as fast as it goes."""
    fail_next: int = 0
    """How many completions to refuse with `status`."""
    status: int = 500
    retry_after: str = ""
    """The Retry-After header of refusals."""
    cut_after_tokens: int = -1
    """Drop the connection of a stream after so many tokens; -1 is never."""
    cut_cleanly: bool = False
    """End the cut stream as HTTP ends a body, so that only its contents are missing."""
    garbage: bool = False
    """Answer 200 with a page instead of JSON."""
    empty: bool = False
    """Answer without any text."""
    finish_reason: str = "stop"
    answer: str | None = None
    """This text instead of the repeated question."""
    cached_tokens: int = 0
    """How many of the input tokens came from the provider's cache."""
    tool_call: dict[str, Any] | None = None
    """{"name", "arguments"}: ask for this tool until its result is in the messages."""
    tool_text: str = ""
    """What to say before the tool is called."""
    tool_rounds: int = 1
    """How many results of it to ask for."""
    choice: dict[str, Any] | None = None
    """The arguments for a tool that the request demands; without them it is answered with text."""


class State:
    def __init__(self, key: str) -> None:
        self.key = key
        self.lock = threading.Lock()
        self.behaviour = Behaviour()
        self.requests: deque[dict[str, Any]] = deque(maxlen=KEPT_REQUESTS)
        self.completions = 0
        self.usage: dict[str, dict[str, int]] = {}

    def control(self, changes: dict[str, Any]) -> dict[str, Any]:
        known = {field.name for field in dataclasses.fields(Behaviour)}
        with self.lock:
            start = Behaviour() if changes.pop("reset", False) else self.behaviour
            if unknown := set(changes) - known:
                raise ValueError(f"unknown: {', '.join(sorted(unknown))}; known: {', '.join(sorted(known))}")
            self.behaviour = dataclasses.replace(start, **changes)
            return dataclasses.asdict(self.behaviour)

    def begin(self, path: str, body: dict[str, Any], authorized: bool) -> tuple[int, Behaviour, bool]:
        """Note a request; say its number, how to behave, and whether to refuse it."""
        with self.lock:
            self.completions += 1
            self.requests.append({"path": path, "authorized": authorized, "body": body, "time": time.time()})
            fail = authorized and self.behaviour.fail_next > 0
            if fail:
                self.behaviour.fail_next -= 1
            return self.completions, dataclasses.replace(self.behaviour), fail

    def count(self, model: str, asked: int, answered: int) -> None:
        """Add what an answer has in tokens, as it tells the client."""
        with self.lock:
            so_far = self.usage.setdefault(model, {"calls": 0, "input": 0, "output": 0})
            for name, more in (("calls", 1), ("input", asked), ("output", answered)):
                so_far[name] += more


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "".join(part.get("text", "") for part in content if isinstance(part, dict))


def compose(messages: list[dict[str, Any]]) -> str:
    """Repeat the newest question, and say which turn of the conversation it is."""
    questions = [text_of(message) for message in messages if message.get("role") == "user"]
    return f"({len(questions)}) You said: {questions[-1] if questions else ''}"


def choose_tool(body: dict[str, Any], messages: list[dict[str, Any]], behaviour: Behaviour) -> dict[str, Any] | None:
    """The tool to ask for, if any: the one that is demanded, or the one that a test wants called."""
    demanded = body.get("tool_choice")
    if isinstance(demanded, dict):
        name = demanded["function"]["name"]
        return None if behaviour.choice is None else {"name": name, "arguments": behaviour.choice}
    last = max((at for at, message in enumerate(messages) if message.get("role") == "user"), default=0)
    results = sum(message.get("role") == "tool" for message in messages[last:])
    return behaviour.tool_call if results < behaviour.tool_rounds else None


def split(text: str) -> list[str]:
    """Pieces of a few characters that join to the text, whatever its script."""
    return re.findall(r"\s*\S{1,4}|\s+", text)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: Server

    def do_GET(self) -> None:
        match self.path.removeprefix("/v1"):
            case "/models":
                if self._authorized():
                    data = [{"id": name, "object": "model", "owned_by": "deepseek"} for name in MODELS]
                    self._json(200, {"object": "list", "data": data})
                else:
                    self._refuse(401, "Authentication Fails")
            case "/_requests":
                with self.server.state.lock:
                    kept = list(self.server.state.requests)
                self._json(200, {"count": len(kept), "requests": kept})
            case "/_usage":
                with self.server.state.lock:
                    self._json(200, self.server.state.usage)
            case _:
                self._refuse(404, "Not found")

    def do_DELETE(self) -> None:
        if self.path != "/_requests":
            self._refuse(404, "Not found")
            return
        with self.server.state.lock:
            self.server.state.requests.clear()
        self._json(200, {"count": 0})

    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"{}")
            if not isinstance(body, dict):
                raise ValueError("the body is not an object")
            match self.path.removeprefix("/v1"):
                case "/_control":
                    self._json(200, self.server.state.control(body))
                case "/chat/completions":
                    self._complete(body, self._answer)
                case "/messages":
                    self._complete(body, self._answer_as_anthropic)
                case _:
                    self._refuse(404, "Not found")
        except ValueError as error:
            self._refuse(400, str(error))
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def _complete(
        self, body: dict[str, Any], answer: Callable[[dict[str, Any], list[dict[str, Any]], Behaviour, int], None]
    ) -> None:
        authorized = self._authorized()
        number, behaviour, fail = self.server.state.begin(self.path, body, authorized)
        if not authorized:
            self._refuse(401, "Authentication Fails")
            return
        messages = body.get("messages")
        if not isinstance(messages, list) or not messages or not isinstance(body.get("model"), str):
            raise ValueError("model and messages are required")
        if behaviour.latency_seconds:
            time.sleep(behaviour.latency_seconds)
        if fail:
            # Providers quote what they refuse; whoever logs this logs a message.
            reason = f"Failing on command: {text_of(messages[-1])}"
            self._refuse(behaviour.status, reason, {"Retry-After": behaviour.retry_after})
        elif behaviour.garbage:
            self._send(200, b"<html><body>maintenance</body></html>", "text/html")
        else:
            answer(body, messages, behaviour, number)

    def _answer(self, body: dict[str, Any], messages: list[dict[str, Any]], behaviour: Behaviour, number: int) -> None:
        base = {"id": f"completion-{number}", "created": int(time.time()), "model": body["model"]}
        tool = choose_tool(body, messages, behaviour)
        tool_calls = None
        if tool:
            function = {"name": tool["name"], "arguments": json.dumps(tool.get("arguments", {}))}
            tool_calls = [{"index": 0, "id": f"call_{number}", "type": "function", "function": function}]
        text = "" if behaviour.empty else behaviour.answer or compose(messages)
        if tool:
            text = behaviour.tool_text
        pieces = split(text)
        reason = "tool_calls" if tool else behaviour.finish_reason
        asked = sum(len(split(text_of(message))) + 4 for message in messages)
        usage = {
            "prompt_tokens": asked,
            "completion_tokens": len(pieces),
            "total_tokens": asked + len(pieces),
            "prompt_cache_hit_tokens": behaviour.cached_tokens,
            "prompt_cache_miss_tokens": asked - behaviour.cached_tokens,
            "prompt_tokens_details": {"cached_tokens": behaviour.cached_tokens},
        }
        self.server.state.count(body["model"], asked, len(pieces))
        if not body.get("stream"):
            message: dict[str, Any] = {"role": "assistant", "content": text}
            if tool_calls:
                message["tool_calls"] = tool_calls
            choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": reason}
            self._json(200, {**base, "object": "chat.completion", "choices": [choice], "usage": usage})
            return
        include_usage = (body.get("stream_options") or {}).get("include_usage", False)
        deltas: list[dict[str, Any]] = [{"content": piece} for piece in pieces]
        if tool_calls:
            deltas.append({"tool_calls": tool_calls})
        self._stream(
            {**base, "object": "chat.completion.chunk"}, deltas, reason, usage if include_usage else None, behaviour
        )

    def _stream(
        self,
        base: dict[str, Any],
        deltas: list[dict[str, Any]],
        reason: str,
        usage: dict[str, Any] | None,
        behaviour: Behaviour,
    ) -> None:
        def event(delta: dict[str, Any], finish_reason: str | None = None, **extra: Any) -> None:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
            self._chunk(f"data: {json.dumps({**base, 'choices': [choice], **extra})}\n\n".encode())

        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        event({"role": "assistant", "content": ""})
        for position, delta in enumerate(deltas):
            if position == behaviour.cut_after_tokens:
                if behaviour.cut_cleanly:
                    self._chunk(b"")
                self.close_connection = True
                return
            if behaviour.tokens_per_second and position:
                time.sleep(1 / behaviour.tokens_per_second)
            event(delta)
        event({"content": ""}, reason, **({"usage": usage} if usage else {}))
        self._chunk(b"data: [DONE]\n\n")
        self._chunk(b"")

    def _answer_as_anthropic(
        self, body: dict[str, Any], messages: list[dict[str, Any]], behaviour: Behaviour, number: int
    ) -> None:
        pieces = split("" if behaviour.empty else behaviour.answer or compose(messages))
        asked = sum(len(split(text_of(message))) + 4 for message in messages)
        usage = {
            "input_tokens": asked - behaviour.cached_tokens,
            "output_tokens": len(pieces),
            "cache_read_input_tokens": behaviour.cached_tokens,
        }
        message = {"id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"]}
        end = {"stop_reason": "end_turn", "stop_sequence": None}
        if not body.get("stream"):
            content = [{"type": "text", "text": "".join(pieces)}]
            self._json(200, {**message, **end, "content": content, "usage": usage})
            return
        start = {**message, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
        block = {"type": "text", "text": ""}
        events: list[dict[str, Any]] = [
            {"type": "message_start", "message": start},
            {"type": "content_block_start", "index": 0, "content_block": block},
            *(
                {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}
                for piece in pieces
            ),
            {"type": "content_block_stop", "index": 0},
            {"type": "message_delta", "delta": end, "usage": usage},
            {"type": "message_stop"},
        ]
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream; charset=utf-8")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for position, event in enumerate(events):
            # Two events come before the first token.
            if position == behaviour.cut_after_tokens + 2 > 1:
                self.close_connection = True
                return
            self._chunk(f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode())
        self._chunk(b"")

    def _authorized(self) -> bool:
        shown = self.headers.get("Authorization") or f"Bearer {self.headers.get('x-api-key')}"
        return hmac.compare_digest(shown, f"Bearer {self.server.state.key}")

    def _refuse(self, status: int, reason: str, headers: dict[str, str] | None = None) -> None:
        error = {"message": reason, "type": "local", "param": None, "code": str(status)}
        self._json(status, {"error": error}, headers)

    def _json(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        self._send(status, json.dumps(body).encode(), "application/json", headers)

    def _send(self, status: int, body: bytes, media_type: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self.send_header("Content-Length", str(len(body)))
        for name, value in (headers or {}).items():
            if value:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def log_message(self, format: str, *args: Any) -> None:
        """Tests look at /_requests instead."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, address: tuple[str, int], key: str) -> None:
        self.state = State(key)
        super().__init__(address, Handler)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8900, help="0 takes a free one")
    key = parser.add_mutually_exclusive_group(required=True)
    key.add_argument("--key", help="the API key to accept")
    key.add_argument("--key-file", type=Path, help="a file with the API key to accept")
    options = parser.parse_args()
    server = Server((options.host, options.port), options.key or options.key_file.read_text().strip())
    print(f"listening on {options.host}:{server.server_address[1]}", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
