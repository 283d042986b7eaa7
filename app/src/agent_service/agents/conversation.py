"""A turn of a conversation: load what was said, decide who answers, ask the agent, store both messages, answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from agent_service.agents.calls import Restart
from agent_service.agents.pieces import Pieces
from agent_service.core.text import storable
from agent_service.memory.database import Connection, Pool
from agent_service.memory.history import History, Message, Turn
from agent_service.memory.sessions import Sessions
from agent_service.models.access import Models
from agent_service.models.failures import model_problem
from agent_service.models.turn import TurnCalls, Usage, begin_turn
from agent_service.team.router import Route
from agent_service.team.routing import Routing
from agent_service.team.specialists import Member, Specialists
from agent_service.tools.calling import Asker


@dataclass(frozen=True, slots=True)
class Question:
    message: str
    session_id: str
    user_id: str | None
    request_id: str | None
    # Whether the user may open nothing but what is theirs, as the bearer of a token.
    own: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    response: str
    session_id: str
    agent: str
    intent: str | None
    confidence: float | None
    model: str
    usage: Usage | None
    degraded: bool


Effects = Callable[[Connection, Answer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Task:
    """Who answers, why, what is handed over, and what models were asked for it."""

    member: Member
    route: Route
    state: dict[str, Any]
    asker: Asker
    calls: TurnCalls


class Conversation:
    def __init__(
        self,
        specialists: Specialists,
        routing: Routing,
        models: Models,
        history: History,
        sessions: Sessions,
        pool: Pool,
        turn_seconds: float,
    ) -> None:
        self._specialists = specialists
        self._routing = routing
        self._models = models
        self._history = history
        self._sessions = sessions
        self._pool = pool
        self._turn_seconds = turn_seconds

    async def answer(self, question: Question, effects: Effects | None = None) -> Answer:
        """Answer; what follows from the answer is written with the turn, or neither is."""
        async with self._turn(question) as task:
            message = await task.member.answer(task.state["messages"], task.asker)
            return await self._finish(question, task, message, effects=effects)

    async def stream(self, question: Question, emit: Callable[[str | Restart], Awaitable[None]]) -> Answer:
        """Hand on the answer's pieces as they come, then answer as a whole."""
        async with self._turn(question) as task:
            pieces = Pieces(emit, task.member.calls_tools)
            final: Any = None
            run = task.member.agent.astream(
                task.state, context=task.asker, stream_mode=["messages", "values", "custom"]
            )
            async for mode, part in run:
                content: Any = part
                if mode == "values":
                    final = content["messages"][-1]
                elif mode == "custom":
                    await (pieces.restart() if isinstance(content, Restart) else pieces.say(content))
                else:
                    await pieces.take(*content)
            await pieces.finish()
            return await self._finish(question, task, final, pieces.before)

    @contextlib.asynccontextmanager
    async def _turn(self, question: Question) -> AsyncIterator[_Task]:
        async with self._sessions.turn(question.session_id):
            history = await self._history.load(question.session_id, question.user_id, question.own)
            calls = TurnCalls(question.request_id, question.session_id, question.user_id, opening=not history)
            begin_turn(calls)
            try:
                async with asyncio.timeout(self._turn_seconds):
                    yield await self._assign(question, history, calls)
            except TimeoutError as error:
                raise model_problem(error) from error
            finally:
                if not calls.stored:
                    self._models.settle_later(calls)

    async def _assign(self, question: Question, history: list[Message], calls: TurnCalls) -> _Task:
        route = await self._routing.decide(question.message, history[-1].agent if history else None)
        messages: list[AnyMessage] = [
            HumanMessage(message.content) if message.role == "user" else AIMessage(message.content)
            for message in history
        ]
        return _Task(
            self._specialists.find(route.agent),
            route,
            {"messages": [*messages, HumanMessage(question.message)]},
            Asker(question.user_id, question.session_id, self._pool),
            calls,
        )

    async def _finish(
        self, question: Question, task: _Task, message: AIMessage, before: str = "", effects: Effects | None = None
    ) -> Answer:
        """BEFORE is what a stream has handed on ahead of the last message."""
        calls, usage = task.calls, task.calls.usage
        answer = Answer(
            before + storable(message.text),
            question.session_id,
            task.member.id,
            task.route.intent,
            task.route.confidence,
            calls.model or self._models.first().name,
            usage,
            calls.degraded,
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
                calls=calls.calls,
                own=question.own,
            ),
            partial(_with_answer, effects, answer) if effects else None,
        )
        calls.stored = True
        await self._models.settle(calls)
        await self._sessions.record(question.session_id, answer.agent, usage.total_tokens if usage else 0)
        return answer


async def _with_answer(effects: Effects, answer: Answer, borrowed: Connection) -> None:
    await effects(borrowed, answer)
