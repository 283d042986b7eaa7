"""What a worker does for all of them, every few seconds: takes back what dead ones had, and what lost releases left."""

import time

from agent_service.core.logs import get_logger
from agent_service.core.settings import Settings
from agent_service.memory.database import Pool, connection
from agent_service.work import releases
from agent_service.work.runner import Runner

logger = get_logger(__name__)


class Housekeeping:
    def __init__(self, settings: Settings, pool: Pool, runner: Runner) -> None:
        self._release = settings.release
        self._orphaned_seconds = settings.job_orphaned_seconds
        self._pool = pool
        self._runner = runner
        self._heard_since: float | None = None

    async def step(self) -> None:
        heard_since, self._heard_since = self._heard_since, None
        async with connection(self._pool) as borrowed:
            await releases.beat(borrowed, self._release)
        await self._runner.rescue()
        async with connection(self._pool) as borrowed:
            await releases.follow(borrowed)
            # Where the database was away nobody was heard of: that says nothing about the others.
            if heard_since is not None and time.monotonic() - heard_since > self._orphaned_seconds:
                adopted = await releases.adopt(borrowed, self._release, self._runner.names, self._orphaned_seconds)
                if adopted:
                    logger.warning("jobs_adopted", jobs=adopted)
        self._heard_since = time.monotonic() if heard_since is None else heard_since
