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
from agent_service.core.logs import get_logger
from agent_service.core.text import storable
from agent_service.core.tracing import Span, span
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

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Question:
    message: str
    session_id: str
    user_id: str | None
    request_id: str | None
    # Whether the user may open nothing but what is theirs, as the bearer of a token.
    own: bool = False
    # The key or token that it came with.
    caller: str = ""


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
    span: Span


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
            state = await task.member.agent.ainvoke(task.state, context=task.asker)
            return await self._finish(question, task, state["messages"][-1], effects=effects)

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
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": question.session_id}
        with span("invoke_agent", attributes=attributes) as opened:
            async with self._sessions.turn(question.session_id), self._answering(question, opened) as task:
                yield task

    @contextlib.asynccontextmanager
    async def _answering(self, question: Question, opened: Span) -> AsyncIterator[_Task]:
        history = await self._history.load(question.session_id, question.user_id, question.own)
        calls = TurnCalls(
            question.request_id,
            question.session_id,
            question.user_id,
            opening=not history,
            caller=question.caller,
        )
        begin_turn(calls)
        try:
            async with asyncio.timeout(self._turn_seconds):
                yield await self._assign(question, history, calls, opened)
        except TimeoutError as error:
            raise model_problem(error) from error
        finally:
            if not calls.stored:
                self._models.settle_later(calls)

    async def _assign(self, question: Question, history: list[Message], calls: TurnCalls, opened: Span) -> _Task:
        route = await self._routing.decide(question.message, history[-1].agent if history else None)
        opened.update_name(f"invoke_agent {route.agent}")
        opened.set_attribute("gen_ai.agent.name", route.agent)
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
            opened,
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
        self._tell(question, answer, task.span)
        await self._models.settle(calls)
        await self._sessions.record(question.session_id, answer.agent, usage.total_tokens if usage else 0)
        return answer

    def _tell(self, question: Question, answer: Answer, opened: Span) -> None:
        if answer.usage:
            opened.set_attributes(
                {
                    "gen_ai.usage.input_tokens": answer.usage.input_tokens,
                    "gen_ai.usage.output_tokens": answer.usage.output_tokens,
                    "agent.degraded": answer.degraded,
                }
            )
        if self._models.settings.telemetry_texts:
            logger.info("turn", question=question.message, answer=answer.response, agent=answer.agent)


async def _with_answer(effects: Effects, answer: Answer, borrowed: Connection) -> None:
    await effects(borrowed, answer)
