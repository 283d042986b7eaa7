"""agentctl events replay --since MOMENT [--consumer NAME]"""

import argparse
import sys

from agent_service.commands import database, moment
from agent_service.core.settings import load_settings
from agent_service.integrations.registry import create_consumers
from agent_service.work.events import replay


def arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    again = actions.add_parser("replay", help="queue what consumers were not told, or failed at, since a moment")
    again.add_argument(
        "--since", type=moment, required=True, help="30m, 12h, 7d or a date and time, as 2026-01-31T08:00+01:00"
    )
    again.add_argument("--consumer", help="this one alone")


def run(options: argparse.Namespace) -> int:
    settings = load_settings()
    consumers = [one for one in create_consumers(settings) if options.consumer in (None, one.name)]
    if not consumers:
        known = ", ".join(one.name for one in create_consumers(settings)) or "none"
        print(f"agentctl: no such consumer; configured here: {known}", file=sys.stderr)
        return 1
    with database(settings) as connection:
        for name, count in replay(connection, settings.release, options.since, consumers).items():
            print(f"{name}: {count} events queued")
    return 0
