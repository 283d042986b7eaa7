"""What every integration is, and the one way they speak HTTP."""

import asyncio
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import httpx2

from agent_service.core.logs import get_logger
from agent_service.core.tracing import outgoing
from agent_service.work.outbox import Destination, SendError

# What asking again cannot mend; a refused key can be, by whoever runs the service.
_FINAL = frozenset({400, 404, 405, 406, 409, 410, 411, 413, 414, 415, 422})
CHECKED_SECONDS = 30
READS = 2

logger = get_logger(__name__)


@dataclass(slots=True)
class State:
    """How it stands, as far as this process has seen."""

    error: str | None = None
    checked_at: float | None = None
    milliseconds: float | None = None
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class Integration(Destination, Protocol):
    name: str

    async def check(self) -> State:
        """Ask the other system whether it takes requests, seldom enough to be asked by anybody."""
        ...

    async def close(self) -> None: ...


class RestClient:
    """JSON over HTTP to one system: bounded in time, repeated where that does no harm, errors without its texts."""

    def __init__(self, url: str, headers: Mapping[str, str], timeout: float) -> None:
        self._state = State()
        self._timeout = timeout
        self._client = httpx2.AsyncClient(
            # A path is joined to all of the address, which may have one of its own.
            base_url=url.rstrip("/") + "/",
            headers=dict(headers),
            timeout=timeout,
            # The system's authorities, which a company's own are among.
            verify=ssl.create_default_context(),
        )

    async def post(self, path: str, body: Mapping[str, Any], key: str) -> None:
        """Once: repetitions are the outbox's. SendError where it was not taken."""
        try:
            # The client's own bound is on each step, and an answer may have many.
            async with asyncio.timeout(2 * self._timeout):
                headers = {"Idempotency-Key": key, **outgoing()}
                response = await self._client.post(path.lstrip("/"), json=dict(body), headers=headers)
        except (httpx2.HTTPError, TimeoutError) as error:
            raise SendError(type(error).__name__) from error
        if not response.is_success:
            raise SendError(str(response.status_code), final=response.status_code in _FINAL)

    async def check(self, path: str) -> State:
        state = self._state
        async with state._lock:
            now = time.time()
            if state.checked_at is None or now - state.checked_at >= CHECKED_SECONDS:
                state.error, state.milliseconds = await self._read(path)
                state.checked_at = now
        return state

    async def _read(self, path: str) -> tuple[str | None, float]:
        started = time.perf_counter()
        for attempt in range(READS):
            if attempt:
                await asyncio.sleep(0.2)
            try:
                response = await self._client.get(path.lstrip("/"))
                error = None if response.is_success else str(response.status_code)
            except httpx2.HTTPError as failure:
                error = type(failure).__name__
            if error is None:
                break
        return error, round((time.perf_counter() - started) * 1000, 1)

    async def close(self) -> None:
        await self._client.aclose()
