"""A turn that runs on its own, so that a slow reader and a silent model are told apart, and its server-sent events."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from agent_service.agents.conversation import Answer
from agent_service.agents.pieces import Restart
from agent_service.api.problems import note
from agent_service.api.schemas import ChatResponse
from agent_service.core.logs import get_logger
from agent_service.core.problems import Problem, internal_error

# A comment this often keeps proxies from giving up on a model that thinks.
PING_SECONDS = 15

logger = get_logger(__name__)

Item = str | Restart | Answer | Problem
Turn = Callable[[Callable[[str | Restart], Awaitable[None]]], Awaitable[Answer]]


class RunningTurn:
    """What a turn says, as it says it: pieces, then the answer or a problem."""

    def __init__(self, turn: Turn) -> None:
        # Bounded, so that a slow reader slows the model down instead of filling the memory.
        self._items: asyncio.Queue[Item] = asyncio.Queue(maxsize=256)
        self._producer = asyncio.create_task(self._produce(turn))

    async def next(self) -> Item | None:
        """None where there is nothing yet after a while."""
        try:
            async with asyncio.timeout(PING_SECONDS):
                return await self._items.get()
        except TimeoutError:
            return None

    async def cancel(self) -> None:
        self._producer.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._producer

    async def _produce(self, turn: Turn) -> None:
        try:
            await self._items.put(await turn(self._items.put))
        except Problem as problem:
            await self._items.put(problem)
        except Exception as error:
            logger.error("unhandled", exc_info=error)
            await self._items.put(internal_error())


class EventStream(StreamingResponse):
    """The events of one turn; the turn ends with its client."""

    media_type = "text/event-stream"

    def __init__(self, turn: RunningTurn, first: Item | None, request_id: str):
        self._turn = turn
        self._request_id = request_id
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(self._events(first), headers=headers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._scope = scope
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._turn.cancel()

    async def _events(self, first: Item | None) -> AsyncIterator[str]:
        item = first
        while True:
            if item is None:
                yield ": waiting\n\n"
            else:
                name, data = event_of(item, self._request_id)
                yield f"event: {name}\ndata: {compact(data)}\n\n"
                if isinstance(item, Problem):
                    note(self._scope, item)
                if isinstance(item, Answer | Problem):
                    return
            item = await self._turn.next()


async def start_stream(turn: Turn, request_id: str) -> EventStream:
    """Start the turn and wait for its first piece: a failure before it still is a plain HTTP error."""
    running = RunningTurn(turn)
    try:
        first = await running.next()
        if isinstance(first, Problem):
            raise first
    except BaseException:
        await running.cancel()
        raise
    return EventStream(running, first, request_id)


def event_of(item: Item, request_id: str) -> tuple[str, Mapping[str, Any]]:
    """The name and the data of an event: the same in a stream and on a socket."""
    match item:
        case str():
            return "token", {"token": item}
        case Restart():
            return "restart", {}
        case Answer():
            return "done", ChatResponse.of(item).model_dump()
        case Problem():
            # There are no headers any more.
            wait = {"retry_after": int(seconds)} if (seconds := item.headers.get("Retry-After")) else {}
            return "error", {**item.document(request_id), **wait}


def compact(data: Mapping[str, Any]) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"))
