"""Conversations that grew long: what is older becomes a summary, after the answer and at nobody's expense."""

import asyncio
import contextlib
import contextvars
from collections.abc import Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from agent_service.agents.digest import NAME, Digester
from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings
from agent_service.guard import audit
from agent_service.guard.size import estimate_tokens
from agent_service.memory.context import Context, Message, newest_within
from agent_service.memory.database import Connection, Pool, connection
from agent_service.memory.long_term import Facts, LongTerm
from agent_service.models.access import Models
from agent_service.models.turn import TurnCalls, begin_turn
from agent_service.models.window import window_tokens

TASK = "summarize"
# One summary may take this long; so many are made at a time, since each holds a connection.
SECONDS = 120
CONCURRENCY = 2
# Of a pool's connections, one in so many may be held for that: the others are for who waits.
CONNECTIONS = 5
CLOSE_SECONDS = 5
# Messages that are read for one summary.
BATCH = 400
# What of the window the messages may fill: the rest is for the prompt, tools and the answer.
USABLE = 0.8
# Where jobs fail for good, another is queued after so many messages.
RETRY_MESSAGES = 20

# Held until the transaction ends, so it also holds through a pooler that lends connections by the transaction.
_LOCK = "SELECT pg_try_advisory_xact_lock(hashtextextended(%s, 6))"
_STATE = """
SELECT c.user_id, c.message_count, coalesce(s.position, 0), coalesce(s.content, '')
FROM conversations AS c LEFT JOIN conversation_summaries AS s ON s.conversation_id = c.id WHERE c.id = %s
"""
_MESSAGES = """
SELECT role, content, agent FROM messages WHERE conversation_id = %s AND position > %s ORDER BY position LIMIT %s
"""
_STORE = """
INSERT INTO conversation_summaries (conversation_id, position, content, model) VALUES (%s, %s, %s, %s)
ON CONFLICT (conversation_id) DO UPDATE
SET position = excluded.position, content = excluded.content, model = excluded.model, updated_at = now()
"""

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Part:
    """What is summarized now, and the position up to which that goes."""

    user_id: str | None
    position: int
    summary: str
    messages: Sequence[Message]


class Summaries:
    def __init__(self, settings: Settings, pool: Pool, models: Models, long_term: LongTerm, metrics: Metrics) -> None:
        self._release = settings.release if settings.queue else None
        self._share = settings.summary_share
        self._pool = pool
        self._models = models
        self._digester = Digester(models)
        self._long_term = long_term
        self._metrics = metrics
        self.window = window_tokens(settings, models.all)
        self.usable = int(self.window * USABLE)
        # What is kept leaves room to grow, or each turn would be followed by a summary.
        self._keep_messages = min(settings.summary_keep_messages, settings.history_messages // 2)
        self._keep_characters = settings.history_characters // 2
        self._keep_tokens = int(min(self.window * self._share, self.usable) / 2)
        self._running: dict[str, asyncio.Task[None]] = {}
        self._places = asyncio.Semaphore(max(1, min(CONCURRENCY, settings.database_connections // CONNECTIONS)))

    def consider(self, session_id: str, context: Context, cut: bool, tokens: int | None) -> None:
        """After a turn that took so many TOKENS, and for which older messages were CUT: have it summarized if due."""
        share = (tokens or 0) / self.window
        if not self._share or session_id in self._running or not (cut or share >= self._share):
            return
        work = self._queue(session_id, context) if self._release else self._alone(session_id, context.covered)
        # In a context of its own: nothing of it belongs to the turn, and none of its tokens to the turn's stream.
        task = asyncio.create_task(work, context=contextvars.Context())
        self._running[session_id] = task
        task.add_done_callback(lambda _: self._running.pop(session_id, None))

    async def summarize(self, session_id: str, covered: int) -> str:
        """Summarize what is due of a conversation whose summary went so far, and say how that ended."""
        calls = TurnCalls(session_id=session_id, agent=NAME)
        begin_turn(calls)
        outcome = "failed"
        try:
            async with asyncio.timeout(SECONDS), connection(self._pool) as borrowed, borrowed.transaction():
                result = await self._summarize(borrowed, session_id, covered, calls)
            # Only now is it stored.
            outcome = result
        finally:
            self._metrics.summaries.labels(outcome).inc()
            self._models.settle_later(calls)
        return outcome

    async def close(self) -> None:
        """What does not end in time is done again after the conversation's next turn."""
        if self._running:
            tasks = list(self._running.values())
            await asyncio.wait(tasks, timeout=CLOSE_SECONDS)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _summarize(self, borrowed: Connection, session_id: str, covered: int, calls: TurnCalls) -> str:
        row = await (await borrowed.execute(_LOCK, [f"summary:{session_id}"])).fetchone()
        if not row or not row[0]:
            return "busy"
        part = await self._part(borrowed, session_id, covered)
        if part is None:
            return "nothing"
        calls.user_id = part.user_id
        digest = await self._digester.digest(part.summary, part.messages)
        facts = Facts()
        if part.user_id is not None and self._long_term.enabled:
            facts = await self._long_term.prepare(borrowed, digest.facts)
            await self._long_term.keep(borrowed, part.user_id, session_id, facts)
        await borrowed.execute(_STORE, [session_id, part.position, digest.summary, digest.model])
        audit.changed(session_id, part.user_id)
        logger.info("summarized", position=part.position, messages=len(part.messages), facts=len(facts.contents))
        return "done"

    async def _part(self, borrowed: Connection, session_id: str, seen: int) -> _Part | None:
        row = await (await borrowed.execute(_STATE, [session_id])).fetchone()
        # It may have been done while the turn that found it due was under way.
        if row is None or row[2] > seen:
            return None
        user_id, count, covered, summary = row
        rows = await (await borrowed.execute(_MESSAGES, [session_id, covered, BATCH])).fetchall()
        messages = [Message(*row) for row in rows]
        kept = self._keep_messages
        if covered + len(messages) == count:
            # The newest of what is kept by number may still be too long.
            for size, measure in ((self._keep_characters, len), (self._keep_tokens, estimate_tokens)):
                kept = min(kept, len(newest_within(messages, kept, size, measure)))
        # Whole turns, and the newest one stays.
        kept = max(2, kept - kept % 2)
        due = messages[: max(0, count - kept - covered)]
        due = due[: self._fitting(due)]
        return _Part(user_id, covered + len(due), summary, due) if due else None

    def _fitting(self, messages: Sequence[Message]) -> int:
        """How many of the oldest one call can take; a turn at least."""
        tokens = 0
        for number, message in enumerate(messages):
            tokens += estimate_tokens(message.content)
            if tokens > self.usable:
                return max(2, number - number % 2)
        return len(messages)

    async def _alone(self, session_id: str, covered: int) -> None:
        """In this process, where there is no queue."""
        async with self._places:
            try:
                await self.summarize(session_id, covered)
            except Problem as problem:
                logger.warning("summary_failed", code=problem.code)
            except Exception as error:
                logger.warning("summary_failed", exc_info=error)

    async def _queue(self, session_id: str, context: Context) -> None:
        """A job for each state of the summary, and another one now and then where that failed for good."""
        key = f"summary:{session_id}:{context.covered}:{context.count // RETRY_MESSAGES}"
        values = [
            key,
            self._release,
            TASK,
            Jsonb({"session": session_id, "covered": context.covered}),
            f"summary:{session_id}",
        ]
        with contextlib.suppress(Problem):
            async with connection(self._pool) as borrowed:
                await borrowed.execute("SELECT enqueue_job_v1(%s, %s, %s, %s, %s)", values)
