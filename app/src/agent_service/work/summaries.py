"""Summaries of conversations as jobs."""

from agent_service.agents.summaries import TASK, Summaries
from agent_service.guard.audit import Audit
from agent_service.memory.database import Pool, connection
from agent_service.work.queue import Arguments, Task


def summarizing(pool: Pool, summaries: Summaries, audit: Audit) -> Task:
    async def run(arguments: Arguments) -> None:
        # Done twice it finds nothing to do, so its key is only a mark.
        with audit.job(TASK, None, None):
            await summaries.summarize(arguments["session"], arguments["covered"])
        async with connection(pool) as borrowed:
            await borrowed.execute("UPDATE job_keys SET done_at = now() WHERE key = %s", [arguments["key"]])

    return Task(TASK, run)
