"""`agentctl`: what is done to the service from a shell."""

import argparse
import importlib
from collections.abc import Sequence
from typing import Protocol

# Each a module of agent_service.commands.
COMMANDS = (
    "audit",
    "costs",
    "key",
    "warm",
)


class Command(Protocol):
    __doc__: str | None

    def arguments(self, parser: argparse.ArgumentParser) -> None: ...

    def run(self, options: argparse.Namespace) -> int: ...


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agentctl", description="Ask and steer the agent service.")
    commands = parser.add_subparsers(required=True, metavar="command")
    for name in COMMANDS:
        module: Command = importlib.import_module(f"agent_service.commands.{name}")
        about = (module.__doc__ or "").strip()
        command = commands.add_parser(name, help=about.splitlines()[0], description=about)
        module.arguments(command)
        command.set_defaults(run=module.run)
    options = parser.parse_args(arguments)
    result: int = options.run(options)
    return result


if __name__ == "__main__":
    raise SystemExit(main())
