"""Conversation history: whole turns, in order, whichever instance writes them."""

import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from psycopg.types.json import Jsonb

from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.tracing import origin
from agent_service.guard import audit
from agent_service.memory.context import Context, Message
from agent_service.memory.database import Connection, Pool, connection
from agent_service.memory.model_calls import INSERT_CALLS, call_values
from agent_service.models.turn import ModelCall

# What is known already is not read again, but whose the conversation is and how far it got always is.
_LOAD = """
SELECT c.id IS NOT NULL, c.user_id, c.message_count, s.position, s.content,
       EXISTS (SELECT FROM memories WHERE user_id = %(user_id)s), m.position, m.role, m.content, m.agent
FROM (SELECT) AS one
LEFT JOIN conversations AS c ON c.id = %(id)s
LEFT JOIN conversation_summaries AS s ON s.conversation_id = c.id
LEFT JOIN LATERAL (
    SELECT position, role, content, agent, sum(length(content)) OVER (ORDER BY position DESC) AS characters
    FROM messages
    WHERE conversation_id = c.id
        AND position > greatest(c.message_count - %(messages)s, coalesce(s.position, 0), %(known)s)
) AS m ON m.characters <= %(characters)s
ORDER BY m.position
"""

# One statement, so a turn is stored whole or not at all; the upsert's row lock orders concurrent turns.
_APPEND = (
    """
WITH turn AS (
    INSERT INTO conversations AS c (id, user_id, message_count)
    VALUES (%(id)s, %(user_id)s, 2)
    ON CONFLICT (id) DO UPDATE
    SET message_count = c.message_count + 2, user_id = coalesce(c.user_id, excluded.user_id), updated_at = now()
    WHERE c.user_id = excluded.user_id OR NOT %(own)s AND (c.user_id IS NULL OR excluded.user_id IS NULL)
    RETURNING message_count
), calls AS (
    """
    + INSERT_CALLS
    + """WHERE EXISTS (SELECT FROM turn)
), event AS (
    INSERT INTO events (type, release, user_id, subject, payload, origin)
    SELECT 'conversation.turn', %(release)s, %(user_id)s, %(id)s, jsonb_build_object(
        'position', message_count, 'agent', %(agent)s::text, 'model', %(model)s::text,
        'input_tokens', %(input_tokens)s::integer, 'output_tokens', %(output_tokens)s::integer
    ), %(origin)s::jsonb
    FROM turn WHERE %(release)s::text IS NOT NULL
)
INSERT INTO messages
    (conversation_id, position, role, content, request_id, agent, model, input_tokens, output_tokens)
SELECT %(id)s::text, message_count - 1, 'user', %(question)s::text, %(request_id)s::text,
       NULL, NULL, NULL::integer, NULL::integer
FROM turn
UNION ALL
SELECT %(id)s::text, message_count, 'assistant', %(answer)s::text, %(request_id)s::text,
       %(agent)s::text, %(model)s::text, %(input_tokens)s::integer, %(output_tokens)s::integer
FROM turn
RETURNING position
"""
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A question with its answer: the unit that is stored."""

    session_id: str
    user_id: str | None
    question: str
    answer: str
    agent: str
    model: str
    input_tokens: int | None
    output_tokens: int | None
    request_id: str | None
    calls: Sequence[ModelCall] = ()
    own: bool = False


Effects = Callable[[Connection], Awaitable[None]]


class History:
    """With a release, turns are events of it too."""

    def __init__(
        self, pool: Pool, metrics: Metrics, messages: int, characters: int, release: str | None = None
    ) -> None:
        self._pool = pool
        self._metrics = metrics
        self._release = release
        self._messages = messages - messages % 2
        self._characters = characters

    async def load(self, session_id: str, user_id: str | None, own: bool = False, kept: str | None = None) -> Context:
        """The newest messages that fit the bounds; where OWN, of the user's own conversations alone.

        KEPT is the context as a session knows it. It saves reading, and is never believed to be the newest.
        """
        known = Context.of_text(kept)
        bounds = {
            "id": session_id,
            "user_id": user_id,
            "known": known.count,
            "messages": self._messages,
            "characters": self._characters,
        }
        with self._metrics.retrieval_seconds.labels("history").time():
            async with connection(self._pool, "load history") as borrowed:
                rows = await (await borrowed.execute(_LOAD, bounds)).fetchall()
        there, owner, count, covered, summary, remembered, first, *_ = rows[0]
        if not there:
            return Context(remembered=remembered)
        audit.looked_at(session_id, owner)
        if user_id is not None and owner != user_id and (own or owner is not None):
            raise foreign()
        if count < known.count:
            # The database was set back to an earlier time.
            return await self.load(session_id, user_id, own)
        messages = tuple(Message(*row[7:]) for row in rows if row[7] is not None)
        if count == known.count or (messages and first == known.count + 1):
            messages = (*known.messages, *messages)
        covered = covered or 0
        messages = messages[max(0, covered - (count - len(messages))) :]
        context = Context(count, covered, summary or "", messages, remembered)
        return context.bounded(self._messages, self._characters)

    async def append(self, turn: Turn, effects: Effects | None = None) -> int:
        """Store the turn, and in the same transaction what follows from it; how many messages there are then."""
        values = {
            "release": self._release,
            "origin": Jsonb(origin()) if self._release else None,
            "id": turn.session_id,
            "user_id": turn.user_id,
            "question": turn.question,
            "answer": turn.answer,
            "request_id": turn.request_id,
            "own": turn.own,
            "agent": turn.agent,
            "model": turn.model,
            "input_tokens": turn.input_tokens,
            "output_tokens": turn.output_tokens,
            **call_values(turn.calls),
        }
        async with (
            connection(self._pool, "store turn") as borrowed,
            borrowed.transaction() if effects else contextlib.nullcontext(),
        ):
            stored = await borrowed.execute(_APPEND, values)
            if stored.rowcount != 2:
                raise foreign()
            if effects:
                await effects(borrowed)
            positions = await stored.fetchall()
        audit.changed(turn.session_id, turn.user_id)
        return max(int(position) for (position,) in positions)

    async def check(self) -> None:
        """Fail unless the database answers and its schema is there."""
        async with connection(self._pool, timeout=min(2, self._pool.timeout)) as borrowed:
            await borrowed.execute("SELECT FROM conversations, model_calls, conversation_summaries, memories LIMIT 1")


def foreign() -> Problem:
    return Problem(403, "conversation-of-another-user", "This session_id belongs to another user_id.")
