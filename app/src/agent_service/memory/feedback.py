"""What users say of answers: one rating of each for an answer, the later in place of the earlier."""

from dataclasses import asdict, dataclass

from agent_service.core.problems import Problem
from agent_service.guard import audit
from agent_service.memory.database import Pool, connection
from agent_service.memory.history import foreign

# One statement: the answer meant, whose it is, what was said of it before, and the rating in its place.
_STORE = """
WITH answer AS (
    SELECT c.user_id AS owner,
        coalesce(c.user_id = %(user_id)s, false)
            OR NOT %(own)s AND (c.user_id IS NULL OR %(user_id)s::text IS NULL) AS may,
        m.position, m.agent, m.model, m.request_id
    FROM conversations AS c LEFT JOIN LATERAL (
        SELECT position, agent, model, request_id FROM messages
        WHERE conversation_id = c.id AND role = 'assistant'
            AND (%(request_id)s::text IS NULL OR request_id = %(request_id)s)
        ORDER BY position DESC LIMIT 1
    ) AS m ON true
    WHERE c.id = %(session_id)s
), before AS (
    SELECT f.scale, f.rating FROM feedback AS f JOIN answer USING (position)
    WHERE f.conversation_id = %(session_id)s AND f.given_by = %(given_by)s
), stored AS (
    INSERT INTO feedback AS f
        (conversation_id, position, given_by, user_id, agent, model, request_id, scale, rating, comment)
    SELECT %(session_id)s, position, %(given_by)s, %(user_id)s, agent, model, request_id,
        %(scale)s, %(rating)s, %(comment)s
    FROM answer
    WHERE position IS NOT NULL AND may
    ON CONFLICT (conversation_id, position, given_by) DO UPDATE
    SET scale = excluded.scale, rating = excluded.rating, comment = excluded.comment, updated_at = now()
)
SELECT owner, may, position, agent, request_id, before.scale, before.rating FROM answer LEFT JOIN before ON true
"""


@dataclass(frozen=True, slots=True)
class Feedback:
    session_id: str
    # Of the request that was answered; the newest answer where it is not told.
    request_id: str | None
    scale: str
    rating: int
    comment: str | None
    user_id: str | None
    given_by: str
    # Whether the user may rate nothing but what is theirs, as the bearer of a token.
    own: bool


@dataclass(frozen=True, slots=True)
class Rated:
    agent: str | None
    request_id: str | None
    # Whether it was not said before.
    new: bool


async def store_feedback(pool: Pool, feedback: Feedback) -> Rated:
    """Store a rating; a Problem where there is no such answer, or it is another user's."""
    async with connection(pool, "store feedback") as borrowed:
        row = await (await borrowed.execute(_STORE, asdict(feedback))).fetchone()
    if row is None:
        raise _unknown()
    owner, may, position, agent, request_id, *before = row
    audit.looked_at(feedback.session_id, owner)
    if not may:
        raise foreign()
    if position is None:
        raise _unknown()
    audit.changed(feedback.session_id, feedback.user_id)
    return Rated(agent, request_id, before != [feedback.scale, feedback.rating])


def _unknown() -> Problem:
    return Problem(404, "answer-not-found", "The conversation has no such answer.")
