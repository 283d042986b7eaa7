"""Who did what to whose data: a line in the log and a row in a table that only grows."""

import asyncio
import contextlib
import json
from collections import deque
from collections.abc import AsyncIterator, Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Literal

from agent_service.core.logs import get_logger
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.text import storable
from agent_service.guard.callers import Caller
from agent_service.memory.database import Pool, connection

Kind = Literal["access", "data", "change"]

# Rows gather this long, so that a busy second costs the database two statements.
GATHER_SECONDS = 0.5
# How long a database that failed is left alone.
REST_SECONDS = 2
CLOSE_SECONDS = 5
KEPT_ROWS = 20_000
_BATCH_ROWS = 1_000

_COLUMNS = {
    "happened_at": "timestamptz",
    "kind": "text",
    "actor": "text",
    "tier": "text",
    "user_id": "text",
    "action": "text",
    "status": "integer",
    "conversation_id": "text",
    "owner_id": "text",
    "address": "text",
    "request_id": "text",
    "reason": "text",
}
# One statement and one round trip, however many rows; as JSON, which costs a third of what arrays do.
_INSERT = (
    f"INSERT INTO audit ({', '.join(_COLUMNS)}) SELECT * FROM json_to_recordset(%s::json) AS new ("
    + ", ".join(f"{name} {kind}" for name, kind in _COLUMNS.items())
    + ")"
)

logger = get_logger(__name__)
# Named for whoever collects the stream, not after the module.
_stream = get_logger("agent_service.audit")


@dataclass(slots=True)
class Entry:
    """One request or job, and the conversations that it touched: a row for each, or one for none."""

    action: str = ""
    caller: Caller | None = None
    user_id: str | None = None
    status: int | None = None
    address: str | None = None
    request_id: str | None = None
    reason: str | None = None
    # By conversation: whose it is, and whether it was changed or only looked at; by none what is beyond conversations.
    touched: dict[str | None, tuple[str | None, Kind]] = field(default_factory=dict)

    def rows(self) -> Iterator[dict[str, Any]]:
        common = {
            "happened_at": datetime.now(UTC).isoformat(),
            "actor": self.caller.name if self.caller else None,
            "tier": self.caller.tier_name if self.caller else None,
            "user_id": self.user_id,
            "action": self.action,
            "status": self.status,
            "address": self.address,
            "request_id": self.request_id,
            "reason": self.reason,
        }
        nothing: dict[str | None, tuple[str | None, Kind]] = {None: (None, "access")}
        for conversation_id, (owner_id, kind) in (self.touched or nothing).items():
            row = {**common, "kind": kind, "conversation_id": conversation_id, "owner_id": owner_id}
            yield {name: storable(value) if isinstance(value, str) else value for name, value in row.items()}


_current: ContextVar[Entry | None] = ContextVar("audit_entry", default=None)


def looked_at(conversation_id: str | None, owner_id: str | None) -> None:
    """What a conversation holds, or the memory of a user, was read for whoever is being served."""
    if entry := _current.get():
        entry.touched[conversation_id] = (owner_id, "data")


def changed(conversation_id: str | None, user_id: str | None) -> None:
    """A conversation was begun or went on, and whoever began it owns it; or the memory of a user was changed."""
    if entry := _current.get():
        owner_id, _ = entry.touched.get(conversation_id, (None, "data"))
        entry.touched[conversation_id] = (owner_id or user_id, "change")


class Audit:
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._rows: deque[dict[str, Any]] = deque()
        self._wake = asyncio.Event()
        self._ending = asyncio.Event()
        self._lost = 0

    @contextlib.contextmanager
    def entry(self, entry: Entry) -> Iterator[Entry]:
        """Record what is done within, whatever becomes of it."""
        token = _current.set(entry)
        try:
            yield entry
        finally:
            _current.reset(token)
            self.record(entry)

    @contextlib.contextmanager
    def job(self, name: str, user_id: str | None, request_id: str | None) -> Iterator[None]:
        """Record what a job does for a user, as what a request does; REQUEST_ID is that of the request it follows."""
        with self.entry(Entry(f"JOB {name}", user_id=user_id, request_id=request_id)) as entry:
            try:
                yield
                entry.status = 200
            except Problem as problem:
                entry.status = problem.status
                raise

    def record(self, entry: Entry) -> None:
        for row in entry.rows():
            _stream.info("audit", **{name: value for name, value in row.items() if name != "happened_at"})
            if len(self._rows) < KEPT_ROWS:
                self._rows.append(row)
            else:
                self._lose(1)
        self._wake.set()

    @contextlib.asynccontextmanager
    async def writing(self, pool: Pool) -> AsyncIterator[None]:
        """Write rows as they come; what is left at the end is written then."""
        task = asyncio.create_task(self._write(pool))
        try:
            yield
        finally:
            self._ending.set()
            self._wake.set()
            await asyncio.wait([task], timeout=CLOSE_SECONDS)
            task.cancel()
            self._lose(len(self._rows))
            self._tell_losses()

    async def _write(self, pool: Pool) -> None:
        while not self._ending.is_set():
            await self._wake.wait()
            await self._pause(GATHER_SECONDS)
            self._wake.clear()
            while not await self._flush(pool) and not self._ending.is_set():
                await self._pause(REST_SECONDS)
            self._tell_losses()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._ending.wait()

    async def _flush(self, pool: Pool) -> bool:
        """Whether all rows are in the table, or will never be."""
        while self._rows:
            batch = list(islice(self._rows, _BATCH_ROWS))
            try:
                async with connection(pool) as borrowed:
                    await borrowed.execute(_INSERT, [json.dumps(batch)])
            except Problem:
                return False
            except Exception as error:
                # Rows that the table does not take must not keep the others from it.
                logger.error("audit_refused", rows=len(batch), exc_info=error)
                self._lose(len(batch))
            for _ in batch:
                self._rows.popleft()
        return True

    def _lose(self, rows: int) -> None:
        self._lost += rows
        self._metrics.audit_lost.inc(rows)

    def _tell_losses(self) -> None:
        if self._lost:
            logger.error("audit_lost", rows=self._lost)
            self._lost = 0
