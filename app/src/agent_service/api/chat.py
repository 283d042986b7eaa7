"""The conversation over HTTP."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Depends, Query
from starlette.requests import HTTPConnection
from starlette.responses import Response

from agent_service.agents.conversation import Answer, Conversation, Question
from agent_service.agents.pieces import Restart
from agent_service.api.access import Access, CallerAccess
from agent_service.api.problems import documented
from agent_service.api.schemas import AgentRequest, ChatRequest, ChatResponse, SessionHeader, new_session_id
from agent_service.api.streams import EventStream, RunningTurn, start_stream
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem

# What a turn may end with, besides what any request may.
router = APIRouter(tags=["conversation"], responses=documented(403, 409, 502, 503, 504))


class Turns:
    """The service's conversation, seen from one request or from one message of a socket."""

    def __init__(self, request: HTTPConnection, access: Access, session: str | None) -> None:
        self._conversation: Conversation = request.app.state.conversation
        self._metrics: Metrics = request.app.state.metrics
        self._limit: int = request.app.state.settings.message_max_characters
        self._state = request.scope["state"]
        self._session = session
        self._access = access
        self.request_id: str = self._state["request_id"]

    def question(self, message: str, session_id: str | None, user_id: str | None) -> Question:
        if len(message) > self._limit:
            reason = f"has {len(message)} characters; {self._limit} are allowed"
            faults = [{"field": "message", "reason": reason}]
            raise Problem(422, "invalid-request", f"message: {reason}", errors=faults)
        self._access.check_size(message)
        named = session_id or self._session
        session_id = named or new_session_id()
        self._state["echo_session_id"] = self._session or session_id
        # On every line from here on, the request's own included.
        structlog.contextvars.bind_contextvars(session_id=session_id)
        user_id = self._access.acts_for(user_id)
        caller = self._access.caller.counted_as
        return Question(message, session_id, user_id, self.request_id, self._access.own, caller, opens=not named)

    async def answer(self, question: Question) -> ChatResponse:
        await self._access.take()
        return ChatResponse.of(await self._conversation.answer(question))

    async def stream(self, question: Question) -> Response:
        await self._access.take()
        return await start_stream(partial(self._timed, question), self.request_id)

    async def run(self, question: Question) -> RunningTurn:
        await self._access.take()
        return RunningTurn(partial(self._timed, question))

    async def _timed(self, question: Question, emit: Callable[[str | Restart], Awaitable[None]]) -> Answer:
        """The turn; how long its first piece takes is measured here."""
        started: float | None = time.perf_counter()

        async def measured(piece: str | Restart) -> None:
            nonlocal started
            if started is not None:
                self._metrics.first_token_seconds.observe(time.perf_counter() - started)
                started = None
            await emit(piece)

        return await self._conversation.stream(question, measured)


# Not the class itself, which would cost each request a thread.
async def _turns(request: HTTPConnection, access: CallerAccess, session: SessionHeader = None) -> Turns:
    return Turns(request, access, session)


OneTurn = Annotated[Turns, Depends(_turns)]


@router.post("/api/chat")
@router.post("/chat")
async def chat(body: ChatRequest, turns: OneTurn) -> ChatResponse:
    return await turns.answer(turns.question(body.message, body.session_id, body.user_id))


@router.post("/api/agent")
async def agent(body: AgentRequest, turns: OneTurn) -> ChatResponse:
    return await turns.answer(turns.question(body.input, body.session_id, body.user_id))


_EVENTS = (
    'event: token\ndata: {"token":"Your "}\n\n'
    'event: done\ndata: {"response":"Your balance …","session_id":"2f1c9a52","agent":"general"}\n\n'
)
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events: `token` for each piece, then `done` with the whole answer, or `error` with a problem. "
        "After `restart` the answer begins again, and what was sent of it before is void.",
        "content": {
            "text/event-stream": {
                # Of one event; what its data holds is JSON.
                "schema": {
                    "type": "object",
                    "properties": {
                        "event": {"enum": ["token", "restart", "done", "error"]},
                        "data": {"type": "string", "contentMediaType": "application/json"},
                    },
                    "required": ["event", "data"],
                },
                "example": _EVENTS,
            }
        },
    }
}


@router.post("/api/chat/stream", status_code=200, response_class=EventStream, responses=_STREAM)
async def stream(body: ChatRequest, turns: OneTurn) -> Response:
    return await turns.stream(turns.question(body.message, body.session_id, body.user_id))


@router.get("/chat/stream", status_code=200, response_class=EventStream, responses=_STREAM)
async def stream_get(query: Annotated[ChatRequest, Query()], turns: OneTurn) -> Response:
    return await turns.stream(turns.question(query.message, query.session_id, query.user_id))
