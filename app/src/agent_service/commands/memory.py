"""Prepare vector search in a database that got pgvector, or with another model for embeddings."""

import argparse
import asyncio
from contextlib import AsyncExitStack

from agent_service.commands import database
from agent_service.core.metrics import Metrics
from agent_service.core.problems import Problem
from agent_service.core.settings import Settings, load_settings
from agent_service.memory.database import create_pool
from agent_service.memory.embeddings import Embedder
from agent_service.memory.long_term import LongTerm
from agent_service.memory.redis import Rest, create_redis
from agent_service.memory.vectors import INSTALL, THERE


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["index"], help="make the vectors that are missing")


def run(options: argparse.Namespace) -> int:
    settings = load_settings()
    with database(settings) as connection:
        connection.execute(INSTALL)
        row = connection.execute(THERE).fetchone()
    if not row or not row[0]:
        raise SystemExit("The database has no pgvector, or an administrator has yet to say: CREATE EXTENSION vector")
    try:
        print(f"{asyncio.run(_index(settings))} memories were given vectors")
    except Problem as problem:
        raise SystemExit(problem.detail) from None
    return 0


async def _index(settings: Settings) -> int:
    metrics = Metrics(settings.name, settings.release, settings.slot)
    async with AsyncExitStack() as stack:
        redis = create_redis(settings)
        stack.push_async_callback(redis.aclose)
        pool = await stack.enter_async_context(create_pool(settings))
        return await LongTerm(settings, pool, Embedder(settings, redis, Rest(metrics)), metrics).index()
