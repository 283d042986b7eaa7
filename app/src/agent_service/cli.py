"""`agentctl`: what is done to the service from a shell. Also `python -m agent_service.cli`."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from typing import Protocol

# Each a module of agent_service.commands, with what it is for.
COMMANDS = {
    "audit": "read the audit log: who asked for what, whose conversation it was, and from where",
    "benchmark": "each configured model with a labelled set: quality, latency and cost side by side",
    "costs": "what model calls have cost in a month, and its projection",
    "dev": "run the service alone on this machine, with a PostgreSQL of its own, and anew on each change",
    "events": "tell consumers of what they missed",
    "jobs": "what waits, runs and failed; hand a release's jobs over",
    "key": "make an API key: whoever calls gets the key, the service keeps a line with its digest",
    "memory": "give what is remembered of users the vectors that it lacks",
    "outbox": "effects that were not sent; send dead ones again",
    "profile": "where a running instance spends its time, by py-spy",
    "warm": "ask a running service the questions of a file, so that their answers are kept",
}


class Command(Protocol):
    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> int: ...


def main(arguments: Sequence[str] | None = None) -> int:
    given = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="agentctl", description="Ask and steer the agent service.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name, purpose in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=f"{purpose[0].upper()}{purpose[1:]}.")
        # The others stay unimported: some are heavy.
        if name in given[:1]:
            module: Command = importlib.import_module(f"agent_service.commands.{name}")
            module.arguments(command)
            command.set_defaults(run=module.run)
    options = parser.parse_args(given)
    result: int = options.run(options)
    return result


if __name__ == "__main__":
    sys.exit(main())
