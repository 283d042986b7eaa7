"""A turn of a conversation: load what was said, ask the agent, store both messages, answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage
from langchain_core.messages.ai import UsageMetadata, add_usage

from agent_service.agents.models import model_problem
from agent_service.agents.pieces import Pieces
from agent_service.core.text import storable
from agent_service.memory.database import Pool
from agent_service.memory.history import History, Message, Turn
from agent_service.memory.sessions import Sessions
from agent_service.team.routing import Decision, Routing
from agent_service.team.specialists import Member, Specialists
from agent_service.tools.calling import Caller


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
    intent: str | None
    confidence: float | None
    model: str
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class _Task:
    """Who answers, why, and what is handed over."""

    member: Member
    decision: Decision
    state: dict[str, Any]
    caller: Caller


class Conversation:
    def __init__(
        self,
        specialists: Specialists,
        routing: Routing,
        history: History,
        sessions: Sessions,
        pool: Pool,
        turn_seconds: float,
    ) -> None:
        self._specialists = specialists
        self._routing = routing
        self._history = history
        self._sessions = sessions
        self._pool = pool
        self._turn_seconds = turn_seconds

    async def answer(self, question: Question) -> Answer:
        async with self._turn(question) as task:
            state = await task.member.agent.ainvoke(task.state, context=task.caller)
            return await self._finish(question, task, state["messages"])

    async def stream(self, question: Question, emit: Callable[[str], Awaitable[None]]) -> Answer:
        """Hand on the answer's pieces as they come, then answer as a whole."""
        async with self._turn(question) as task:
            pieces = Pieces(emit, task.member.calls_tools)
            messages: list[AnyMessage] = []
            run = task.member.agent.astream(task.state, context=task.caller, stream_mode=["messages", "values"])
            async for mode, part in run:
                content: Any = part
                if mode == "values":
                    messages = content["messages"]
                else:
                    await pieces.take(*content)
            await pieces.finish()
            return await self._finish(question, task, messages, pieces.before)

    @contextlib.asynccontextmanager
    async def _turn(self, question: Question) -> AsyncIterator[_Task]:
        async with self._sessions.turn(question.session_id):
            history = await self._history.load(question.session_id, question.user_id)
            try:
                async with asyncio.timeout(self._turn_seconds):
                    yield await self._assign(question, history)
            except TimeoutError as error:
                raise model_problem(error) from error

    async def _assign(self, question: Question, history: list[Message]) -> _Task:
        decision = await self._routing.decide(question.message, history[-1].agent if history else None)
        messages: list[AnyMessage] = [
            HumanMessage(message.content) if message.role == "user" else AIMessage(message.content)
            for message in history
        ]
        return _Task(
            self._specialists.find(decision.route.agent),
            decision,
            {"messages": [*messages, HumanMessage(question.message)]},
            Caller(question.user_id, question.session_id, self._pool),
        )

    async def _finish(self, question: Question, task: _Task, messages: list[AnyMessage], before: str = "") -> Answer:
        """BEFORE is what a stream has handed on ahead of the last message."""
        usage = _usage(messages, task.decision.usage)
        route = task.decision.route
        answer = Answer(
            before + storable(messages[-1].text),
            question.session_id,
            task.member.id,
            route.intent,
            route.confidence,
            task.member.model,
            usage,
        )
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
            )
        )
        await self._sessions.record(question.session_id, answer.agent, usage.total_tokens if usage else 0)
        return answer


def _usage(messages: list[AnyMessage], routing: UsageMetadata | None) -> Usage | None:
    """Of all calls that the answer took."""
    counted = routing
    for message in reversed(messages):
        if isinstance(message, HumanMessage):
            break
        if isinstance(message, AIMessage) and message.usage_metadata:
            counted = add_usage(counted, message.usage_metadata)
    if counted is None:
        return None
    return Usage(
        input_tokens=counted["input_tokens"],
        output_tokens=counted["output_tokens"],
        total_tokens=counted["total_tokens"],
        cached_tokens=counted.get("input_token_details", {}).get("cache_read", 0),
    )
