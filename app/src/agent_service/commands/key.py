"""Make an API key: whoever calls gets the key, the service keeps a line with its digest."""

import argparse

from agent_service.guard.keys import MAIN, NAME, TOKEN, line_of, new_key
from agent_service.guard.tiers import DEFAULT_TIER


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", type=_name, help="whose key it is; the audit log and the limits go by it")
    parser.add_argument("--tier", default=DEFAULT_TIER, help="what it allows (default: %(default)s)")


def run(options: argparse.Namespace) -> int:
    key = new_key()
    print(f"The key, shown this once, for whoever calls as {options.name}:\n\n    {key}\n")
    print("Its line for api_keys (agent_secrets in the vault), by which nobody can call:\n")
    print(f"    {line_of(options.name, options.tier, key)}")
    return 0


def _name(text: str) -> str:
    if not NAME.fullmatch(text) or text in (MAIN, TOKEN):
        raise argparse.ArgumentTypeError("use lower case letters, digits, dots and dashes; main and token are taken")
    return text
