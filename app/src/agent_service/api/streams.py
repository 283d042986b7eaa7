"""Server-sent events of a turn that runs on its own, so that a slow reader and a silent model are told apart."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agent_service.agents.calls import Restart
from agent_service.agents.conversation import Answer
from agent_service.api.problems import note
from agent_service.api.schemas import ChatResponse
from agent_service.core.logs import get_logger
from agent_service.core.problems import Problem, internal_error

# A comment this often keeps proxies from giving up on a model that thinks.
PING_SECONDS = 15

logger = get_logger(__name__)

Item = str | Restart | Answer | Problem
Items = asyncio.Queue[Item]
Producer = asyncio.Task[None]
Turn = Callable[[Callable[[str | Restart], Awaitable[None]]], Awaitable[Answer]]


class EventStream(StreamingResponse):
    """The events of one turn; the turn ends with its client."""

    media_type = "text/event-stream"

    def __init__(self, items: Items, producer: Producer, first: Item | None, request_id: str):
        self._items = items
        self._producer = producer
        self._request_id = request_id
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events(first), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _cancel(self._producer)

    async def _events(self, first: Item | None) -> AsyncIterator[str]:
        item = first
        while True:
            if item is None:
                yield ": waiting\n\n"
            else:
                yield self._event(item)
                if isinstance(item, Problem):
                    note(self._scope, item)
                if isinstance(item, Answer | Problem):
                    return
            item = await _next(self._items)

    def _event(self, item: Item) -> str:
        match item:
            case str():
                return _event("token", {"token": item})
            case Restart():
                return _event("restart", {})
            case Answer():
                return _event("done", ChatResponse.of(item).model_dump())
            case Problem():
                return _event("error", item.document(self._request_id))


async def start_stream(turn: Turn, request_id: str) -> EventStream:
    """Start the turn and wait for its first piece: a failure before it still is a plain HTTP error."""
    # Bounded, so that a slow reader slows the model down instead of filling the memory.
    items: Items = asyncio.Queue(maxsize=256)
    producer = asyncio.create_task(_produce(turn, items))
    try:
        first = await _next(items)
        if isinstance(first, Problem):
            raise first
    except BaseException:
        await _cancel(producer)
        raise
    return EventStream(items, producer, first, request_id)


async def _produce(turn: Turn, items: Items) -> None:
    try:
        await items.put(await turn(items.put))
    except Problem as problem:
        await items.put(problem)
    except Exception as error:
        logger.error("unhandled", exc_info=error)
        await items.put(internal_error())


async def _next(items: Items) -> Item | None:
    try:
        async with asyncio.timeout(PING_SECONDS):
            return await items.get()
    except TimeoutError:
        return None


async def _cancel(task: Producer) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def _event(name: str, data: Mapping[str, Any]) -> str:
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"
