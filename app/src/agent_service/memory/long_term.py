"""What is remembered of a user beyond conversations: found by vectors where there is pgvector, else by words."""

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings
from agent_service.guard import audit
from agent_service.memory.database import Connection, Pool, connection
from agent_service.memory.embeddings import Embedder
from agent_service.memory.vectors import THERE
from agent_service.memory.words import terms

TEXT, VECTOR = "text", "vector"
# From which likeness on a memory is recalled. By words and by the offline rule it is the share of what both have.
TEXT_THRESHOLD = 0.2
OFFLINE_THRESHOLD = 0.2
MODEL_THRESHOLD = 0.6
# A long message is compared by no more terms than these, or nothing would be like it.
TERMS = 12
# How long a database without vectors is believed to have none.
LOOK_SECONDS = 60

# As parts of the threshold, so that likenesses of two kinds can be ordered together.
_BY_WORDS = """
(SELECT count(*) FROM unnest(words) AS word WHERE word.lexeme = ANY (%(terms)s))
    / sqrt(greatest(1, least(%(terms_most)s, cardinality(%(terms)s::text[]))) * greatest(1, length(words)))
    / %(text_threshold)s::float
"""
_BY_VECTOR = f"""
CASE WHEN embedding_model = %(model)s
    THEN (1 - (embedding <=> %(vector)s::vector)) / %(vector_threshold)s::float ELSE {_BY_WORDS} END
"""
_RECALL = """
SELECT content FROM (SELECT id, content, {likeness} AS likeness FROM memories WHERE user_id = %(user_id)s) AS found
WHERE likeness >= 1 ORDER BY likeness DESC, id DESC LIMIT %(results)s
"""
_RECALL_BY = {TEXT: _RECALL.format(likeness=_BY_WORDS), VECTOR: _RECALL.format(likeness=_BY_VECTOR)}

_KEEP = """
INSERT INTO memories (user_id, session_id, content, words{columns})
SELECT %(user_id)s, %(session_id)s, content, array_to_tsvector(string_to_array(terms, ' ')){values}
FROM unnest(%(contents)s::text[], %(terms)s::text[], %(vectors)s::text[]) AS new (content, terms, vector)
ON CONFLICT DO NOTHING
"""
_KEEP_BY = {
    TEXT: _KEEP.format(columns="", values=""),
    VECTOR: _KEEP.format(
        columns=", embedding, embedding_model",
        values=", vector::vector, CASE WHEN vector IS NOT NULL THEN %(model)s END",
    ),
}
_FORGET_OLDEST = """
DELETE FROM memories WHERE id IN (
    SELECT id FROM memories WHERE user_id = %(user_id)s ORDER BY id DESC OFFSET %(most)s
)
"""
_UNINDEXED = "SELECT id, content FROM memories WHERE embedding_model IS DISTINCT FROM %s ORDER BY id LIMIT %s"
_INDEX = """
UPDATE memories SET embedding = vector::vector, embedding_model = %s
FROM unnest(%s::bigint[], %s::text[]) AS new (id, vector) WHERE memories.id = new.id
"""
_BATCH = 100

logger = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Memory:
    id: int
    content: str
    session_id: str | None
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Facts:
    """What is to be remembered, with the vectors that could be had."""

    contents: Sequence[str] = ()
    vectors: Sequence[str | None] = ()


class LongTerm:
    def __init__(self, settings: Settings, pool: Pool, embedder: Embedder, metrics: Metrics) -> None:
        self.enabled = settings.memory
        self._pool = pool
        self._embedder = embedder
        self._metrics = metrics
        self._results = settings.memory_results
        self._most = settings.memory_facts
        self._offline = not settings.embedding_model
        self._threshold = settings.memory_threshold
        self._search: str | None = None
        self._look_at = 0.0

    async def recall(self, user_id: str, message: str) -> list[str]:
        """What may matter for a message, best first. Its failure costs the turn nothing but this."""
        started = time.perf_counter()
        try:
            search = await self._found_search()
            values = await self._question(user_id, message, search)
            async with connection(self._pool) as borrowed:
                statement = _RECALL_BY[VECTOR if "vector" in values else TEXT]
                rows = await (await borrowed.execute(statement, values)).fetchall()
        except (Problem, psycopg.Error) as error:
            logger.warning("recall_failed", exc_info=error)
            return []
        self._metrics.retrieval_seconds.labels("memory").observe(time.perf_counter() - started)
        self._metrics.recalled.inc(len(rows))
        return [content for (content,) in rows]

    async def prepare(self, borrowed: Connection, contents: Sequence[str]) -> Facts:
        vectors: Sequence[str | None] = [None] * len(contents)
        if contents and await self._found_search(borrowed) == VECTOR:
            vectors = await self._vectors(contents) or vectors
        return Facts(contents, vectors)

    async def keep(self, borrowed: Connection, user_id: str, session_id: str, facts: Facts) -> None:
        """Remember facts in the transaction of what they were taken from; the oldest make room."""
        if not facts.contents:
            return
        values = {
            "user_id": user_id,
            "session_id": session_id,
            "contents": list(facts.contents),
            "terms": [" ".join(terms(content)) for content in facts.contents],
            "vectors": list(facts.vectors),
            "model": self._embedder.model,
            "most": self._most,
        }
        await borrowed.execute(_KEEP_BY[await self._found_search(borrowed)], values)
        await borrowed.execute(_FORGET_OLDEST, values)

    async def list(self, user_id: str) -> Sequence[Memory]:
        query = "SELECT id, content, session_id, created_at FROM memories WHERE user_id = %s ORDER BY id DESC"
        async with connection(self._pool) as borrowed:
            rows = await (await borrowed.execute(query, [user_id])).fetchall()
        audit.looked_at(None, user_id)
        return [Memory(*row) for row in rows]

    async def forget(self, user_id: str, id: int | None) -> int:
        """Delete one of the user's memories, or all; how many there were."""
        query = "DELETE FROM memories WHERE user_id = %(user_id)s AND (%(id)s::bigint IS NULL OR id = %(id)s)"
        async with connection(self._pool) as borrowed:
            deleted = (await borrowed.execute(query, {"user_id": user_id, "id": id})).rowcount
        audit.changed(None, user_id)
        return deleted

    async def index(self) -> int:
        """Give a vector of the present model to each memory without one; how many there were."""
        done = 0
        while True:
            async with connection(self._pool) as borrowed:
                rows = await (await borrowed.execute(_UNINDEXED, [self._embedder.model, _BATCH])).fetchall()
            if not rows:
                return done
            vectors = await self._vectors([content for _, content in rows])
            if vectors is None:
                raise Problem(502, "model-unreachable", "The model for embeddings does not answer.", source="model")
            async with connection(self._pool) as borrowed:
                values = [self._embedder.model, [number for number, _ in rows], list(vectors)]
                done += (await borrowed.execute(_INDEX, values)).rowcount

    async def report(self) -> dict[str, Any]:
        try:
            search = await self._found_search()
        except (Problem, psycopg.Error) as error:
            return {"status": "degraded", "reason": type(error.__cause__ or error).__name__}
        return {"status": "ok", "search": search, **({"embeddings": self._embedder.model} if search == VECTOR else {})}

    async def _question(self, user_id: str, message: str, search: str) -> dict[str, Any]:
        given = self._threshold
        by_model = OFFLINE_THRESHOLD if self._offline else MODEL_THRESHOLD
        values: dict[str, Any] = {
            "user_id": user_id,
            "terms": terms(message),
            "terms_most": TERMS,
            "results": self._results,
            "text_threshold": given if given and search == TEXT else TEXT_THRESHOLD,
            "vector_threshold": given or by_model,
            "model": self._embedder.model,
        }
        if search == VECTOR and (vectors := await self._vectors([message])):
            values["vector"] = vectors[0]
        return values

    async def _vectors(self, texts: Sequence[str]) -> Sequence[str] | None:
        """None where the model for them fails: then words have to do."""
        try:
            return await self._embedder.vectors(texts)
        except Exception as error:
            logger.warning("embedding_failed", exc_info=error)
            return None

    async def _found_search(self, borrowed: Connection | None = None) -> str:
        """Whether the database has vectors: asked once, and now and then again while it has none."""
        if self._search is None or (self._search == TEXT and time.monotonic() >= self._look_at):
            async with contextlib.nullcontext(borrowed) if borrowed else connection(self._pool) as asked:
                row = await (await asked.execute(THERE)).fetchone()
            self._search = VECTOR if row and row[0] else TEXT
            self._look_at = time.monotonic() + LOOK_SECONDS
        return self._search
