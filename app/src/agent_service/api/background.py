"""What the API keeps of the work that others do: where it is stored, and how it stands."""

import time
from typing import Any

from agent_service.core.problems import Problem
from agent_service.core.settings import Settings
from agent_service.integrations.registry import create_integrations
from agent_service.memory.database import Pool
from agent_service.work.fetch import Fetcher
from agent_service.work.queue import depth

# For how long /ready repeats itself, when a worker counts as gone, and when work counts as left lying.
CHECKED_SECONDS = 5
WORKER_SECONDS = 30
OLD_SECONDS = 300

ANALYZE = "/api/analyze"


def background_limits(settings: Settings) -> dict[str, int]:
    """Paths whose bodies may be larger than others'."""
    return {ANALYZE: max(settings.analyze_max_bytes, settings.body_max_bytes)} if settings.queue else {}


class Background:
    def __init__(self, settings: Settings, pool: Pool) -> None:
        self.settings = settings
        self.fetcher = Fetcher(settings)
        self.integrations = create_integrations(settings)
        self._pool = pool
        self._result: dict[str, Any] = {}
        self._until = 0.0

    @property
    def pool(self) -> Pool:
        """The queue's database; a Problem where there is no queue."""
        if not self.settings.queue:
            raise Problem(404, "queue-off", "This service does no work in the background (AGENT_QUEUE).")
        return self._pool

    async def check(self) -> dict[str, Any]:
        """How the queue stands; degraded at worst, since the conversation goes on without it."""
        if time.monotonic() >= self._until:
            self._result = await self._look()
            self._until = time.monotonic() + CHECKED_SECONDS
        return self._result

    async def _look(self) -> dict[str, Any]:
        try:
            found = await depth(self._pool, self.settings.release)
        except Exception as error:
            return {"status": "degraded", "reason": type(error.__cause__ or error).__name__}
        figures = {
            "waiting": found.waiting,
            "oldest_seconds": found.oldest_seconds,
            "worker_seen_seconds": found.worker_seconds,
        }
        if found.worker_seconds is None or found.worker_seconds > WORKER_SECONDS:
            return {"status": "degraded", "reason": "no worker of this release", **figures}
        if found.oldest_seconds is not None and found.oldest_seconds > OLD_SECONDS:
            return {"status": "degraded", "reason": "work waits too long", **figures}
        return {"status": "ok", **figures}

    async def close(self) -> None:
        for integration in self.integrations.values():
            if integration:
                await integration.close()
