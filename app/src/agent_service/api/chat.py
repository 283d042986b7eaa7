"""The conversation over HTTP."""

import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.responses import Response

from agent_service.agents.calls import Restart
from agent_service.agents.conversation import Answer, Conversation, Question
from agent_service.api.schemas import AgentRequest, ChatRequest, ChatResponse, SessionHeader, new_session_id
from agent_service.api.streams import start_stream
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem

router = APIRouter()


class Turns:
    """The service's conversation, seen from one request."""

    def __init__(self, request: Request, session: SessionHeader = None) -> None:
        self._conversation: Conversation = request.app.state.conversation
        self._metrics: Metrics = request.app.state.metrics
        self._limit: int = request.app.state.settings.message_max_characters
        self._state = request.scope["state"]
        self._session = session
        self.request_id: str = self._state["request_id"]

    def question(self, message: str, session_id: str | None, user_id: str | None) -> Question:
        if len(message) > self._limit:
            reason = f"has {len(message)} characters; {self._limit} are allowed"
            faults = [{"field": "message", "reason": reason}]
            raise Problem(422, "invalid-request", f"message: {reason}", errors=faults)
        session_id = session_id or self._session or new_session_id()
        self._state["echo_session_id"] = self._session or session_id
        self._state["log"] = {"session_id": session_id}
        return Question(message, session_id, user_id, self.request_id)

    async def answer(self, question: Question) -> ChatResponse:
        return ChatResponse.of(await self._conversation.answer(question))

    async def stream(self, question: Question) -> Response:
        return await start_stream(partial(self._timed, question), self.request_id)

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


OneTurn = Annotated[Turns, Depends(Turns)]


@router.post("/api/chat")
@router.post("/chat")
async def chat(body: ChatRequest, turns: OneTurn) -> ChatResponse:
    return await turns.answer(turns.question(body.message, body.session_id, body.user_id))


@router.post("/api/agent")
async def agent(body: AgentRequest, turns: OneTurn) -> ChatResponse:
    return await turns.answer(turns.question(body.input, body.session_id, body.user_id))


@router.post("/api/chat/stream")
async def stream(body: ChatRequest, turns: OneTurn) -> Response:
    return await turns.stream(turns.question(body.message, body.session_id, body.user_id))


@router.get("/chat/stream")
async def stream_get(query: Annotated[ChatRequest, Query()], turns: OneTurn) -> Response:
    return await turns.stream(turns.question(query.message, query.session_id, query.user_id))
