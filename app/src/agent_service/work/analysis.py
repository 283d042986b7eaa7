"""Analyses: taken with their documents in one transaction, done by a job, looked at by whom they belong to."""

import asyncio
import time
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from psycopg.types.json import Jsonb

from agent_service.core.problems import Problem
from agent_service.core.settings import Settings
from agent_service.core.text import storable
from agent_service.core.tracing import origin
from agent_service.guard.audit import Audit
from agent_service.memory.database import Connection, Pool, connection
from agent_service.models.failures import model_problem
from agent_service.models.turn import TurnCalls, Usage, begin_turn
from agent_service.work import events
from agent_service.work.documents import Document, media_type_of, text_of
from agent_service.work.fetch import Fetcher
from agent_service.work.queue import Arguments, Task, finishing, is_done

if TYPE_CHECKING:
    from agent_service.agents.analyst import Analyst
    from agent_service.models.access import Models

TASK = "analyze"
# How often progress is written down.
PROGRESS_SECONDS = 1
_KEYS = uuid.UUID("5d1a4c0e-6d0b-4f0a-9a4e-2f6f4a3c7b10")

_ACCEPT = """
WITH analysis AS (
    INSERT INTO analyses (id, user_id, session_id, question, request_id)
    VALUES (%(id)s, %(user_id)s, %(session_id)s, %(question)s, %(request_id)s)
    ON CONFLICT (id) DO NOTHING RETURNING id
), documents AS (
    INSERT INTO analysis_documents (analysis_id, position, name, media_type, url, content)
    SELECT analysis.id, position, name, media_type, url, content
    FROM analysis, unnest(%(names)s::text[], %(types)s::text[], %(urls)s::text[], %(contents)s::bytea[])
        WITH ORDINALITY AS document (name, media_type, url, content, position)
), event AS (
    INSERT INTO events (type, release, user_id, subject, payload, origin)
    SELECT %(type)s, %(release)s, %(user_id)s, id::text, jsonb_build_object('documents', %(count)s::integer), %(origin)s
    FROM analysis
)
SELECT enqueue_job_v1(
    'analysis:' || id, %(release)s, %(task)s, jsonb_build_object('analysis', id, 'origin', %(origin)s::jsonb), NULL
) FROM analysis
"""

_STATUS = """
SELECT state, progress, result, problem, created_at, finished_at FROM analyses
WHERE id = %(id)s AND (user_id = %(user_id)s OR user_id IS NULL AND NOT %(own)s)
"""


@dataclass(frozen=True, slots=True)
class Source:
    """A document as it was sent, or where it is."""

    name: str
    media_type: str
    url: str | None = None
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Request:
    sources: Sequence[Source]
    question: str | None
    user_id: str | None
    session_id: str | None
    request_id: str
    # The client's own, if it may ask twice for the same.
    key: str | None = None


async def accept(pool: Pool, release: str, request: Request) -> uuid.UUID:
    """Store and queue. What is answered to the client is there for good; the same key gets the same task."""
    identity = uuid.uuid5(_KEYS, f"{request.user_id or ''}\n{request.key}") if request.key else uuid.uuid4()
    values = {
        "id": identity,
        "user_id": request.user_id,
        "session_id": request.session_id,
        "question": request.question,
        "request_id": request.request_id,
        "names": [source.name for source in request.sources],
        "types": [source.media_type for source in request.sources],
        "urls": [source.url for source in request.sources],
        "contents": [source.content for source in request.sources],
        "count": len(request.sources),
        "origin": Jsonb(origin()),
        "type": events.UPLOADED,
        "release": release,
        "task": TASK,
    }
    async with connection(pool, "accept analysis") as borrowed:
        await borrowed.execute(_ACCEPT, values, binary=True)
    return identity


async def status(pool: Pool, identity: uuid.UUID, user_id: str | None, own: bool) -> dict[str, Any]:
    """As it stands; a task of another user, or where OWN of nobody, is one that does not exist."""
    async with connection(pool) as borrowed:
        row = await (await borrowed.execute(_STATUS, {"id": identity, "user_id": user_id, "own": own})).fetchone()
    if row is None:
        raise Problem(404, "task-not-found", "There is no such task, or it belongs to another user_id.")
    names = ("state", "progress", "result", "problem", "created_at", "finished_at")
    return {"task_id": str(identity), **dict(zip(names, row, strict=True))}


class Analyses:
    """The job."""

    def __init__(
        self, settings: Settings, pool: Pool, analyst: "Analyst", models: "Models", fetcher: Fetcher, audit: Audit
    ) -> None:
        self._pool = pool
        self._analyst = analyst
        self._models = models
        self._audit = audit
        self._fetcher = fetcher
        self._release = settings.release
        self._characters = settings.analyze_max_characters
        self._seconds = settings.analyze_seconds

    @property
    def task(self) -> Task:
        return Task(TASK, self._run, self._failed)

    async def _run(self, arguments: Arguments) -> None:
        from agent_service.agents.analyst import QUESTION, Reading

        identity, key = arguments["analysis"], arguments["key"]
        if await is_done(self._pool, key):
            return
        async with connection(self._pool, "begin analysis") as borrowed:
            row = await (
                await borrowed.execute(
                    "UPDATE analyses SET state = 'running', progress = 0, problem = NULL, finished_at = NULL"
                    " WHERE id = %s RETURNING user_id, session_id, request_id, question",
                    [identity],
                )
            ).fetchone()
        if row is None:
            return
        user_id, session_id, request_id, question = row
        calls = TurnCalls(request_id, session_id, user_id)
        begin_turn(calls)
        with self._audit.job(TASK, user_id, request_id):
            try:
                async with asyncio.timeout(self._seconds):
                    texts = await self._texts(identity)
                    reading = Reading(question or QUESTION, self._progress(identity))
                    summaries, summary = await self._analyst.read(texts, reading)
            except TimeoutError as error:
                raise model_problem(error) from error
            finally:
                # They are paid for, whatever becomes of the analysis.
                self._models.settle_later(calls)
            usage = calls.usage
            result = {
                "summary": summary,
                "documents": [
                    {"name": name, "characters": len(text), "summary": summaries[name]} for name, text in texts.items()
                ],
                "model": calls.model,
                "usage": _told(usage),
            }
            async with finishing(self._pool, key) as borrowed:
                await borrowed.execute(
                    "UPDATE analyses SET state = 'done', progress = 1, result = %s, finished_at = now() WHERE id = %s",
                    [Jsonb(result), identity],
                )
                payload = {
                    "documents": len(texts),
                    "model": calls.model,
                    "input_tokens": usage.input_tokens if usage else None,
                    "output_tokens": usage.output_tokens if usage else None,
                }
                await events.record(borrowed, self._release, events.ANALYSED, identity, user_id, payload)

    async def _failed(self, borrowed: Connection, arguments: Arguments, problem: Problem) -> None:
        document = {"status": problem.status, "code": problem.code, "detail": problem.detail}
        await borrowed.execute(
            "UPDATE analyses SET state = 'failed', problem = %s, finished_at = now() WHERE id = %s AND state != 'done'",
            [Jsonb(document), arguments["analysis"]],
        )

    async def _texts(self, identity: str) -> dict[str, str]:
        query = (
            "SELECT position, name, media_type, url, content FROM analysis_documents"
            " WHERE analysis_id = %s ORDER BY position"
        )
        async with connection(self._pool, "read documents") as borrowed:
            rows = await (await borrowed.execute(query, [identity], binary=True)).fetchall()
        texts: dict[str, str] = {}
        for position, name, media_type, url, content in rows:
            if url is not None:
                fetched = await self._fetcher.fetch(url)
                document = Document(name, media_type_of(name, fetched.media_type), fetched.content)
            elif content is None:
                raise Problem(410, "document-expired", "The document was removed before it could be read.")
            else:
                document = Document(name, media_type, content)
            # Names need not differ; the answers' keys do.
            texts[name if name not in texts else f"{name} ({position})"] = await text_of(document, self._characters)
        if sum(map(len, texts.values())) > self._characters:
            raise Problem(
                422, "documents-too-long", f"The documents together may have {self._characters} characters of text."
            )
        return texts

    def _progress(self, identity: str) -> Any:
        written = 0.0

        async def note(done: int, steps: int) -> None:
            nonlocal written
            if time.monotonic() >= written + PROGRESS_SECONDS:
                written = time.monotonic()
                async with connection(self._pool, "note progress") as borrowed:
                    await borrowed.execute(
                        "UPDATE analyses SET progress = %s WHERE id = %s AND state = 'running'",
                        [done / steps, identity],
                    )

        return note


def _told(usage: Usage | None) -> dict[str, Any] | None:
    """As answers tell it: money as a string, since a JSON number would lose digits on its way."""
    if usage is None:
        return None
    cost = None if usage.cost_usd is None else f"{usage.cost_usd:f}"
    return {**asdict(usage), "cost_usd": cost}


def source_of_text(text: str, name: str = "text") -> Source:
    return Source(name, "text/plain", content=storable(text).encode())
