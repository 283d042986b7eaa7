"""The conversation over a WebSocket: messages in, the events of streams out. docs/chat.md says what comes of what."""

import asyncio
import contextlib
import time
import uuid
from urllib.parse import urlsplit

import structlog
from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import HTTPConnection
from starlette.types import Scope
from starlette.websockets import WebSocketDisconnect

from agent_service.agents.conversation import Answer
from agent_service.api.access import Access, Guard
from agent_service.api.chat import Turns
from agent_service.api.drain import DRAINING
from agent_service.api.middleware import SOCKET, finish
from agent_service.api.problems import invalid, note, respond
from agent_service.api.schemas import ChatRequest, SessionHeader
from agent_service.api.streams import Item, compact, event_of
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem, internal_error
from agent_service.core.settings import Settings

# How long a new socket may keep its credential to itself.
CREDENTIAL_SECONDS = 10
# How long a client may take to read what it was sent.
SEND_SECONDS = 30
# Messages that wait while another is answered.
WAITING = 8

# Codes of RFC 6455 and its registry.
NORMAL, UNSUPPORTED, POLICY, RESTART = 1000, 1003, 1008, 1012
_RESTARTS = "the service restarts"
_UNKNOWN = "not authenticated"

router = APIRouter()
logger = get_logger(__name__)


class _Authorization(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    authorization: str


class _Closing(Exception):
    """The service ends the socket."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class _Session:
    """One socket. Whoever reads it is apart from whoever answers, so that a client that leaves ends its answer."""

    def __init__(self, socket: WebSocket, session_id: str | None) -> None:
        self._socket = socket
        self._guard: Guard = socket.scope["state"]["guard"]
        self._settings: Settings = socket.app.state.settings
        self._metrics: Metrics = socket.app.state.metrics
        self._authorization = socket.headers.get("authorization", "")
        self._session_id = session_id
        self._frames: asyncio.Queue[str | bytes | None] = asyncio.Queue(maxsize=WAITING)
        self._draining = False

    async def run(self) -> None:
        serving = asyncio.create_task(self._serve())
        reading = asyncio.create_task(self._read())
        try:
            await asyncio.wait({serving, reading}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, serving):
                task.cancel()
            await asyncio.wait({serving, reading})
        if not serving.cancelled():
            serving.result()

    async def _read(self) -> None:
        """Until the client leaves. When the service is what leaves, whoever answers ends the socket."""
        while True:
            event = await self._socket.receive()
            if event["type"] == "websocket.receive":
                text = event.get("text")
                await self._frames.put(event.get("bytes") or b"" if text is None else text)
            elif event.get("reason") != DRAINING:
                return
            else:
                self._draining = True
                with contextlib.suppress(asyncio.QueueFull):
                    self._frames.put_nowait(None)
                await asyncio.Future()

    async def _serve(self) -> None:
        try:
            if not self._authorization:
                await self._be_named()
            while (frame := await self._next(self._settings.socket_idle_seconds, NORMAL, "idle")) is not None:
                await self._take(frame)
            await self._close(RESTART, _RESTARTS)
        except _Closing as closing:
            await self._close(closing.code, closing.reason)
        except (TimeoutError, WebSocketDisconnect):
            # Gone, or reads nothing: it would not read why, either.
            return

    async def _next(self, seconds: float, code: int, reason: str) -> str | None:
        """The next text, or None where the service is stopping; where none comes, the socket is closed."""
        if self._draining:
            return None
        try:
            async with asyncio.timeout(seconds):
                frame = await self._frames.get()
        except TimeoutError:
            raise _Closing(code, reason) from None
        if isinstance(frame, bytes):
            raise _Closing(UNSUPPORTED, "messages are text")
        return None if self._draining else frame

    async def _be_named(self) -> None:
        frame = await self._next(CREDENTIAL_SECONDS, POLICY, _UNKNOWN)
        if frame is None:
            raise _Closing(RESTART, _RESTARTS)
        request_id = self._socket.scope["state"]["request_id"]
        try:
            try:
                self._check_size(frame)
                authorization = _Authorization.model_validate_json(frame).authorization
            except (ValidationError, Problem):
                # As without one; and what it was is not repeated.
                authorization = ""
            # Headers are no other text either.
            self._authorization = authorization if authorization.isascii() else ""
            await self._guard.authenticate(self._socket.scope, self._authorization)
        except Problem as problem:
            note(self._socket.scope, problem)
            await self._send(problem, request_id)
            raise _Closing(POLICY, _UNKNOWN) from None

    async def _take(self, text: str) -> None:
        """Answer a message as a request of its own, under its own id."""
        request_id = uuid.uuid4().hex
        structlog.contextvars.bind_contextvars(request_id=request_id)
        scope: Scope = {**self._socket.scope, "state": {"request_id": request_id}}
        last: Answer | Problem | None = None
        started = time.perf_counter()
        self._metrics.active.inc()
        try:
            last = await self._outcome(text, scope)
        finally:
            self._metrics.active.dec()
            status = last.status if isinstance(last, Problem) else 200 if last else 0
            finish(self._metrics, scope, status, time.perf_counter() - started)
        await self._send(last, request_id)
        if status == 401:
            raise _Closing(POLICY, _UNKNOWN)

    async def _outcome(self, text: str, scope: Scope) -> Answer | Problem:
        try:
            async with self._guard.message(scope, self._authorization):
                return await self._answer(text, HTTPConnection(scope))
        except Problem as problem:
            outcome = problem
        except (TimeoutError, WebSocketDisconnect):
            raise
        except Exception as error:
            logger.error("unhandled", exc_info=error)
            outcome = internal_error()
        note(scope, outcome)
        return outcome

    async def _answer(self, text: str, message: HTTPConnection) -> Answer:
        self._check_size(text)
        try:
            body = ChatRequest.model_validate_json(text)
        except ValidationError as error:
            raise invalid(error.errors()) from None
        turns = Turns(message, Access(message), self._session_id)
        question = turns.question(body.message, body.session_id, body.user_id)
        turn = await turns.run(question)
        # What names no conversation goes on with this one.
        self._session_id = question.session_id
        try:
            while True:
                item = await turn.next()
                if isinstance(item, Answer):
                    return item
                if isinstance(item, Problem):
                    raise item
                if item is not None:
                    await self._send(item, turns.request_id)
        finally:
            await turn.cancel()

    def _check_size(self, text: str) -> None:
        limit = self._settings.body_max_bytes
        if len(text.encode("utf-8", "replace")) > limit:
            raise Problem(413, "body-too-large", f"A message may have {limit} bytes.")

    async def _send(self, item: Item, request_id: str) -> None:
        name, data = event_of(item, request_id)
        frame = {"event": name, "data": data, **({"request_id": request_id} if name == "done" else {})}
        async with asyncio.timeout(SEND_SECONDS):
            await self._socket.send_text(compact(frame))

    async def _close(self, code: int, reason: str) -> None:
        with contextlib.suppress(TimeoutError, WebSocketDisconnect, RuntimeError):
            async with asyncio.timeout(SEND_SECONDS):
                await self._socket.close(code, reason)


@router.websocket(SOCKET)
async def chat_socket(socket: WebSocket, session: SessionHeader = None) -> None:
    request_id = socket.scope["state"]["request_id"]
    if problem := _unwelcome(socket):
        note(socket.scope, problem)
        await socket.send_denial_response(respond(problem, request_id))
        return
    await socket.accept(headers=[(b"x-request-id", request_id.encode())])
    await _Session(socket, session).run()


def _unwelcome(socket: WebSocket) -> Problem | None:
    """Pages of other origins are kept out as CORS keeps them out, which browsers do not ask for here."""
    origin = socket.headers.get("origin")
    allowed = socket.app.state.settings.cors_origins
    if origin is None or origin in allowed or "*" in allowed:
        return None
    # By name alone: proxies forward the port or leave it out.
    with contextlib.suppress(ValueError):
        if urlsplit(origin).hostname == urlsplit(f"//{socket.headers.get('host', '')}").hostname:
            return None
    return Problem(403, "origin-not-allowed", "Pages of this origin may not use the service (AGENT_CORS_ORIGINS).")
