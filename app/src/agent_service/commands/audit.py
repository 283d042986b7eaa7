"""Read the audit log: who asked for what, whose conversation it was, and from where."""

import argparse
import json
from datetime import UTC
from typing import Any

from psycopg.rows import dict_row

from agent_service.commands import database, moment
from agent_service.core.settings import load_settings

# The newest that fit, told in the order in which they happened.
_SELECT = """
SELECT * FROM (
    SELECT * FROM audit
    WHERE happened_at >= %(since)s AND happened_at < %(until)s
      AND (%(user)s::text IS NULL OR user_id = %(user)s OR owner_id = %(user)s)
      AND (%(actor)s::text IS NULL OR actor = %(actor)s)
      AND (%(kind)s::text IS NULL OR kind = %(kind)s)
    ORDER BY happened_at DESC
    LIMIT %(limit)s
) AS newest
ORDER BY happened_at
"""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--since", type=moment, default="24h", help="30m, 12h, 7d or a date and time (default: 24h)")
    parser.add_argument("--until", type=moment, default="0m", help="as --since (default: now)")
    parser.add_argument("--user", help="who acted, or whose conversation it was")
    parser.add_argument("--key", dest="actor", help="the name of an API key; `token` for those of users")
    parser.add_argument("--kind", choices=["access", "data", "change"])
    parser.add_argument("--limit", type=int, default=1000, help="rows at most, the newest (default: %(default)s)")
    parser.add_argument("--json", action="store_true", help="one JSON object a row")


def run(options: argparse.Namespace) -> int:
    names = ("since", "until", "user", "actor", "kind", "limit")
    with database(load_settings()) as connection, connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_SELECT, {name: getattr(options, name) for name in names}).fetchall()
    for row in rows:
        print(json.dumps(row, default=str, ensure_ascii=False) if options.json else _line(row))
    return 0


def _line(row: dict[str, Any]) -> str:
    at = row["happened_at"].astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    who = f"{row['actor'] or '-'}/{row['user_id'] or '-'}"
    whose = f" conversation={row['conversation_id']} of={row['owner_id'] or '-'}" if row["conversation_id"] else ""
    reason = f" reason={row['reason']}" if row["reason"] else ""
    return f"{at} {row['kind']:6} {row['status'] or '-'} {who} {row['action']} from={row['address']}{whose}{reason}"
