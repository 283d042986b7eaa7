"""A turn of a conversation: load what was said, ask the agent, store both messages, answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, AnyMessage, HumanMessage

from agent_service.agents.calls import Restart
from agent_service.agents.general import NAME, Agent
from agent_service.core.text import storable
from agent_service.memory.history import History, Turn
from agent_service.memory.sessions import Sessions
from agent_service.models.access import Models
from agent_service.models.failures import model_problem
from agent_service.models.turn import TurnCalls, begin_turn


@dataclass(frozen=True, slots=True)
class Question:
    message: str
    session_id: str
    user_id: str | None
    request_id: str | None
    # Whether the user may open nothing but what is theirs, as the bearer of a token.
    own: bool = False


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    cost_usd: Decimal | None
    from_cache: bool


@dataclass(frozen=True, slots=True)
class Answer:
    response: str
    session_id: str
    agent: str
    model: str
    usage: Usage | None
    degraded: bool


class Conversation:
    def __init__(self, agent: Agent, models: Models, history: History, sessions: Sessions, turn_seconds: float) -> None:
        self._agent = agent
        self._models = models
        self._history = history
        self._sessions = sessions
        self._turn_seconds = turn_seconds

    async def answer(self, question: Question) -> Answer:
        async with self._turn(question) as (messages, calls):
            state = await self._agent.ainvoke({"messages": messages})
            final = state["messages"][-1]
            return await self._finish(question, final, calls)

    async def stream(self, question: Question, emit: Callable[[str | Restart], Awaitable[None]]) -> Answer:
        """Hand on the answer's pieces as they come, then answer as a whole."""
        async with self._turn(question) as (messages, calls):
            final: Any = None
            async for mode, part in self._agent.astream(
                {"messages": messages}, stream_mode=["messages", "values", "custom"]
            ):
                content: Any = part
                if mode == "values":
                    final = content["messages"][-1]
                elif mode == "custom":
                    await emit(content)
                elif isinstance(content[0], AIMessageChunk) and content[0].text:
                    await emit(storable(content[0].text))
            return await self._finish(question, final, calls)

    @contextlib.asynccontextmanager
    async def _turn(self, question: Question) -> AsyncIterator[tuple[list[AnyMessage], TurnCalls]]:
        async with self._sessions.turn(question.session_id):
            history = await self._history.load(question.session_id, question.user_id, question.own)
            messages: list[AnyMessage] = [
                HumanMessage(message.content) if message.role == "user" else AIMessage(message.content)
                for message in history
            ]
            calls = TurnCalls(question.request_id, question.session_id, question.user_id, opening=not history)
            begin_turn(calls)
            try:
                async with asyncio.timeout(self._turn_seconds):
                    yield [*messages, HumanMessage(question.message)], calls
            except TimeoutError as error:
                raise model_problem(error) from error
            finally:
                if not calls.stored:
                    self._models.settle_later(calls)

    async def _finish(self, question: Question, message: AIMessage, calls: TurnCalls) -> Answer:
        usage = _usage(calls)
        model = calls.model or self._models.name
        answer = Answer(storable(message.text), question.session_id, NAME, model, usage, calls.degraded)
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
                own=question.own,
                calls=calls.calls,
            )
        )
        calls.stored = True
        await self._models.settle(calls)
        await self._sessions.record(question.session_id, NAME, usage.total_tokens if usage else 0)
        return answer


def _usage(calls: TurnCalls) -> Usage | None:
    """All that the turn used; None where no call told."""
    told = [call for call in calls.calls if call.input_tokens is not None]
    if not told:
        return None
    asked = sum(call.input_tokens or 0 for call in told)
    answered = sum(call.output_tokens or 0 for call in told)
    return Usage(
        input_tokens=asked,
        output_tokens=answered,
        total_tokens=asked + answered,
        cached_tokens=sum(call.cached_tokens or 0 for call in told),
        cost_usd=calls.cost_usd,
        from_cache=calls.from_cache,
    )
