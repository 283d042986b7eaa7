"""agentctl outbox show · agentctl outbox requeue ID… | --all"""

import argparse
import json

from agent_service.commands import database, table
from agent_service.core.settings import load_settings

_SHOW = """
SELECT id, kind, key, state, attempts, error, created_at::timestamptz(0)::text FROM outbox
WHERE state = ANY (%s) ORDER BY id LIMIT %s
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    show = actions.add_parser("show", help="what was not sent: waiting and dead")
    show.add_argument("--state", choices=("waiting", "dead", "sent"), help="only these")
    show.add_argument("--limit", type=int, default=100, help="at most so many, the oldest first")
    show.add_argument("--json", action="store_true", help="one document and nothing else")
    again = actions.add_parser("requeue", help="try dead entries again")
    which = again.add_mutually_exclusive_group(required=True)
    which.add_argument("ids", nargs="*", type=int, default=[], metavar="ID")
    which.add_argument("--all", action="store_true", help="every dead entry")


def run(options: argparse.Namespace) -> int:
    with database(load_settings()) as connection:
        if options.action == "requeue":
            requeued = connection.execute(
                "UPDATE outbox SET state = 'waiting', attempts = 0, next_at = now()"
                " WHERE state = 'dead' AND (%s OR id = ANY (%s))",
                [options.all, options.ids],
            )
            print(f"{requeued.rowcount} entries will be sent again")
            return 0
        states = [options.state] if options.state else ["waiting", "dead"]
        entries = connection.execute(_SHOW, [states, options.limit]).fetchall()
    headings = ("id", "kind", "key", "state", "attempts", "error", "created_at")
    if options.json:
        print(json.dumps([dict(zip(headings, entry, strict=True)) for entry in entries]))
    else:
        print(table([heading.upper() for heading in headings], entries))
    return 0
