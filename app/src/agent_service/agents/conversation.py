"""A turn of a conversation: load what was said, ask the agent, store both messages, answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage

from agent_service.agents.general import NAME, Agent
from agent_service.agents.models import model_problem
from agent_service.core.text import storable
from agent_service.memory.database import Connection
from agent_service.memory.history import History, Turn
from agent_service.memory.sessions import Sessions


@dataclass(frozen=True, slots=True)
class Question:
    message: str
    session_id: str
    user_id: str | None
    request_id: str | None


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int


@dataclass(frozen=True, slots=True)
class Answer:
    response: str
    session_id: str
    agent: str
    model: str
    usage: Usage | None


Effects = Callable[[Connection, Answer], Awaitable[None]]


class Conversation:
    def __init__(self, agent: Agent, model: str, history: History, sessions: Sessions, turn_seconds: float) -> None:
        self._agent = agent
        self._model = model
        self._history = history
        self._sessions = sessions
        self._turn_seconds = turn_seconds

    async def answer(self, question: Question, effects: Effects | None = None) -> Answer:
        """Answer; what follows from the answer is written with the turn, or neither is."""
        async with self._turn(question) as messages:
            state = await self._agent.ainvoke({"messages": messages})
            final = state["messages"][-1]
            return await self._finish(question, final, effects)

    async def stream(self, question: Question, emit: Callable[[str], Awaitable[None]]) -> Answer:
        """Hand on the answer's pieces as they come, then answer as a whole."""
        async with self._turn(question) as messages:
            final: Any = None
            async for mode, part in self._agent.astream({"messages": messages}, stream_mode=["messages", "values"]):
                content: Any = part
                if mode == "values":
                    final = content["messages"][-1]
                elif isinstance(content[0], AIMessageChunk) and content[0].text:
                    await emit(storable(content[0].text))
            return await self._finish(question, final)

    @contextlib.asynccontextmanager
    async def _turn(self, question: Question) -> AsyncIterator[list[AnyMessage]]:
        async with self._sessions.turn(question.session_id):
            history = await self._history.load(question.session_id, question.user_id)
            messages: list[AnyMessage] = [
                HumanMessage(message.content) if message.role == "user" else AIMessage(message.content)
                for message in history
            ]
            try:
                async with asyncio.timeout(self._turn_seconds):
                    yield [*messages, HumanMessage(question.message)]
            except TimeoutError as error:
                raise model_problem(error) from error

    async def _finish(self, question: Question, message: AIMessage, effects: Effects | None = None) -> Answer:
        usage = _usage(message)
        answer = Answer(storable(message.text), question.session_id, NAME, self._model, usage)
        await self._history.append(
            Turn(
                session_id=question.session_id,
                user_id=question.user_id,
                question=question.message,
                answer=answer.response,
                agent=answer.agent,
                model=answer.model,
                input_tokens=usage.input_tokens if usage else None,
                output_tokens=usage.output_tokens if usage else None,
                request_id=question.request_id,
            ),
            partial(_with_answer, effects, answer) if effects else None,
        )
        await self._sessions.record(question.session_id, NAME, usage.total_tokens if usage else 0)
        return answer


async def _with_answer(effects: Effects, answer: Answer, borrowed: Connection) -> None:
    await effects(borrowed, answer)


def _usage(message: AIMessage) -> Usage | None:
    counted = message.usage_metadata
    if counted is None:
        return None
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        total_tokens=counted["total_tokens"],
        cached_tokens=counted.get("input_token_details", {}).get("cache_read", 0),
    )
