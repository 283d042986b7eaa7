"""A turn of a conversation: load what was said, decide who answers, ask the agent, store both messages, answer."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage

from agent_service.agents.pieces import Pieces, Restart
from agent_service.agents.summaries import Summaries
from agent_service.core.logs import get_logger
from agent_service.core.text import storable
from agent_service.core.tracing import Span, span
from agent_service.guard.size import estimate_tokens
from agent_service.memory.context import Context
from agent_service.memory.database import Connection, Pool
from agent_service.memory.history import History, Turn
from agent_service.memory.long_term import LongTerm
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
    # Whether its session was named for it just now, and nobody else can know of it.
    opens: bool = False


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


# What is known from before is told as a turn of its own, since some models take nothing but turns.
_SUMMARY, _FACTS = "What have we spoken of so far?", "What do you remember of me that may matter now?"

Effects = Callable[[Connection, Answer], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Task:
    """Who answers, why, what is handed over, and what models were asked for it."""

    member: Member
    route: Route
    messages: list[AnyMessage]
    asker: Asker
    calls: TurnCalls
    span: Span
    context: Context
    # Whether older messages had to be left out.
    cut: bool


class Conversation:
    def __init__(
        self,
        specialists: Specialists,
        routing: Routing,
        models: Models,
        history: History,
        sessions: Sessions,
        long_term: LongTerm,
        summaries: Summaries,
        pool: Pool,
        turn_seconds: float,
    ) -> None:
        self._specialists = specialists
        self._routing = routing
        self._models = models
        self._history = history
        self._sessions = sessions
        self._long_term = long_term
        self._summaries = summaries
        self._pool = pool
        self._turn_seconds = turn_seconds

    async def answer(self, question: Question, effects: Effects | None = None) -> Answer:
        """Answer; what follows from the answer is written with the turn, or neither is."""
        # The client learns of a session that was named for it with the answer.
        async with self._turn(question, alone=question.opens) as task:
            message = await task.member.answer(task.messages, task.asker)
            return await self._finish(question, task, message, effects=effects)

    async def stream(self, question: Question, emit: Callable[[str | Restart], Awaitable[None]]) -> Answer:
        """Hand on the answer's pieces as they come, then answer as a whole."""
        async with self._turn(question) as task:
            pieces = Pieces(emit, task.member.calls_tools)
            message = await task.member.answer(task.messages, task.asker, pieces)
            await pieces.finish()
            return await self._finish(question, task, message, pieces.before)

    @contextlib.asynccontextmanager
    async def _turn(self, question: Question, alone: bool = False) -> AsyncIterator[_Task]:
        attributes = {"gen_ai.operation.name": "invoke_agent", "gen_ai.conversation.id": question.session_id}
        with span("invoke_agent", attributes=attributes) as opened:
            async with (
                self._sessions.turn(question.session_id, alone) as kept,
                self._answering(question, kept, opened) as task,
            ):
                yield task

    @contextlib.asynccontextmanager
    async def _answering(self, question: Question, kept: str | None, opened: Span) -> AsyncIterator[_Task]:
        context = await self._history.load(question.session_id, question.user_id, question.own, kept)
        calls = TurnCalls(
            question.request_id,
            question.session_id,
            question.user_id,
            opening=not context.messages and not context.summary,
            caller=question.caller,
        )
        begin_turn(calls)
        try:
            async with asyncio.timeout(self._turn_seconds):
                yield await self._assign(question, context, calls, opened)
        except TimeoutError as error:
            raise model_problem(error) from error
        finally:
            if not calls.stored:
                self._models.settle_later(calls)

    async def _assign(self, question: Question, context: Context, calls: TurnCalls, opened: Span) -> _Task:
        last = context.messages[-1].agent if context.messages else None
        facts: list[str] = []
        deciding = self._routing.decide(question.message, last)
        if context.remembered and question.user_id is not None and self._long_term.enabled:
            route, facts = await asyncio.gather(deciding, self._long_term.recall(question.user_id, question.message))
        else:
            route = await deciding
        opened.update_name(f"invoke_agent {route.agent}")
        opened.set_attribute("gen_ai.agent.name", route.agent)
        room = self._summaries.usable - sum(map(estimate_tokens, (context.summary, *facts, question.message)))
        fitting = context.fitting(room)
        messages: list[AnyMessage] = [
            HumanMessage(message.content) if message.role == "user" else AIMessage(message.content)
            for message in fitting.messages
        ]
        if context.summary:
            messages[:0] = [HumanMessage(_SUMMARY), AIMessage(context.summary)]
        if facts:
            messages += [HumanMessage(_FACTS), AIMessage("\n".join(f"- {fact}" for fact in facts))]
        return _Task(
            self._specialists.find(route.agent),
            route,
            [*messages, HumanMessage(question.message)],
            Asker(question.user_id, question.session_id, self._pool),
            calls,
            opened,
            context,
            fitting.cut,
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
        count = await self._history.append(
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
        context = task.context.after(question.message, answer.response, answer.agent)
        if context.count != count:
            # Without Redis another turn came in between, of which this one knew nothing: all is read anew.
            context = Context()
        tokens = usage.total_tokens if usage else 0
        await self._sessions.record(question.session_id, answer.agent, tokens, context)
        self._summaries.consider(question.session_id, task.context, task.cut, calls.largest(answer.agent))
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
