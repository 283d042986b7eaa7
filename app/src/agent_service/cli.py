"""`agentctl`: what the person who runs the service does by hand."""

import argparse
import importlib
import sys

# One line each: the name, the module that has configure(parser) and run(options), and what it is for.
COMMANDS = {
    "jobs": ("agent_service.commands.jobs", "what waits, runs and failed; hand a release's jobs over"),
    "outbox": ("agent_service.commands.outbox", "effects that were not sent; send dead ones again"),
    "events": ("agent_service.commands.events", "tell consumers of what they missed"),
}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="agentctl", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    given = sys.argv[1:] if arguments is None else arguments
    for name, (module, purpose) in COMMANDS.items():
        command = commands.add_parser(name, help=purpose, description=purpose)
        # The others stay unimported: some are heavy.
        if name == next((word for word in given if not word.startswith("-")), None):
            implementation = importlib.import_module(module)
            implementation.configure(command)
            command.set_defaults(run=implementation.run)
    options = parser.parse_args(given)
    return int(options.run(options))


if __name__ == "__main__":
    sys.exit(main())
