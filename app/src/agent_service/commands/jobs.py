"""agentctl jobs status · agentctl jobs hand-over --from RELEASE --to RELEASE · agentctl jobs retry"""

import argparse
import json
import sys
from typing import Any

import psycopg
from psycopg.rows import TupleRow

from agent_service.commands import database, table
from agent_service.core.settings import load_settings
from agent_service.work.releases import HandOverError, hand_over

_JOBS = """
SELECT j.queue_name, j.task_name,
    count(*) FILTER (WHERE j.status = 'todo'),
    count(*) FILTER (WHERE j.status = 'doing'),
    count(*) FILTER (WHERE j.status = 'failed'),
    extract(epoch FROM now() - min(k.queued_at) FILTER (WHERE j.status = 'todo'))::integer
FROM procrastinate_jobs AS j LEFT JOIN job_keys AS k ON k.key = j.queueing_lock
WHERE j.status IN ('todo', 'doing', 'failed')
GROUP BY 1, 2 ORDER BY 1, 2
"""

_RELEASES = """
SELECT release, extract(epoch FROM now() - seen_at)::integer, handed_to
FROM job_releases ORDER BY seen_at DESC NULLS LAST
"""


_RETRY = """
UPDATE procrastinate_jobs SET status = 'todo', attempts = 0, scheduled_at = NULL
WHERE status = 'failed' AND (%(release)s::text IS NULL OR queue_name = %(release)s)
    AND (%(task)s::text IS NULL OR task_name = %(task)s)
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    status = actions.add_parser("status", help="jobs by release and task")
    status.add_argument("--json", action="store_true", help="one document and nothing else")
    moving = actions.add_parser("hand-over", help="give what waits of one release to another")
    moving.add_argument("--from", dest="source", required=True, metavar="RELEASE")
    moving.add_argument("--to", dest="target", required=True, metavar="RELEASE")
    moving.add_argument("--json", action="store_true", help="one document and nothing else")
    again = actions.add_parser("retry", help="begin failed jobs anew")
    again.add_argument("--release", help="only this one's")
    again.add_argument("--task", help="only of this task")


def run(options: argparse.Namespace) -> int:
    with database(load_settings()) as connection:
        match options.action:
            case "hand-over":
                return _hand_over(connection, options)
            case "retry":
                return _retry(connection, options)
            case _:
                return _status(connection, options)


def _retry(connection: psycopg.Connection[TupleRow], options: argparse.Namespace) -> int:
    again = connection.execute(_RETRY, {"release": options.release, "task": options.task})
    print(f"{again.rowcount} failed jobs will be tried again")
    return 0


def _hand_over(connection: psycopg.Connection[TupleRow], options: argparse.Namespace) -> int:
    try:
        moved = hand_over(connection, options.source, options.target)
    except HandOverError as error:
        print(f"agentctl: {error}", file=sys.stderr)
        return 1
    if options.json:
        print(json.dumps({"jobs": moved.jobs, "events": moved.events, "running": moved.running}))
    else:
        print(f"{moved.jobs} jobs and {moved.events} events of {options.source} are {options.target}'s now")
        if moved.running:
            print(f"{moved.running} jobs of {options.source} still run; what comes back of them follows by itself")
    return 0


def _status(connection: psycopg.Connection[TupleRow], options: argparse.Namespace) -> int:
    headings = ("release", "task", "waiting", "running", "failed", "oldest_seconds")
    jobs = connection.execute(_JOBS).fetchall()
    releases = connection.execute(_RELEASES).fetchall()
    if options.json:
        document: dict[str, Any] = {
            "jobs": [dict(zip(headings, row, strict=True)) for row in jobs],
            "releases": [
                {"release": release, "worker_seen_seconds": seen, "handed_to": handed_to}
                for release, seen, handed_to in releases
            ],
        }
        print(json.dumps(document))
    else:
        print(table(("RELEASE", "TASK", "WAITING", "RUNNING", "FAILED", "OLDEST (s)"), jobs))
        print()
        print(table(("RELEASE", "WORKER SEEN (s)", "HANDED TO"), releases))
    return 0
