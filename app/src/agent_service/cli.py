"""`agentctl`: what one does with the service from a shell. Also `python -m agent_service.cli`."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module

# Modules of agent_service.commands, each with `add_arguments(parser)` and `run(options)`, which gives the exit status.
COMMANDS = {
    "costs": "what model calls have cost in a month, and its projection",
    "warm": "ask a running service the questions of a file, so that their answers are kept",
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agentctl", description="Look after the agent service.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, summary in COMMANDS.items():
        command = commands.add_parser(name, help=summary, description=summary.capitalize() + ".")
        module = import_module(f"agent_service.commands.{name}")
        module.add_arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
