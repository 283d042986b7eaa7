"""What most likely keeps an app from running, and what mends it, in one line; read from what it said. Pure.

The words are those of Python, uvicorn, uv, pydantic and systemd; where none of them is known, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

# How long an app may contradict itself before it counts as its last word, in seconds: answers on /ready while systemd
# still waits for its READY=1, or says 404 there while it starts.
GRACE_SECONDS = 15.0


@dataclass(frozen=True)
class Said:
    """What is known of a start that came to nothing.

    `app` is agent_app, `port` the first instance's, `lines` the last of the journal, `answers` what /ready said by
    instance (beginning with the status, if there was one), `results` systemd's words for how units ended.
    """

    app: str = ""
    port: int = 0
    lines: str = ""
    answers: Mapping[str, str] = field(default_factory=dict)
    results: tuple[str, ...] = ()
    unannounced: bool = False


# What programs say, and what that tells; the first that fits. Braces hold the parts of what was found, and of Said.
MODULE = (
    "agent_app is {said.app}, and the release has no module {0}: give it as in `from shop.main import app`:"
    " shop.main:app"
)
ATTRIBUTE = "agent_app is {said.app}, and module {1} has no {0}: name the ASGI app that is in it"
UNCOMMITTED = "agent_app is {said.app}, and the release has no module {0}: is it committed?"
PACKAGE = (
    "the app imports {0}, which is not among its dependencies: add what provides it to requirements.txt or"
    " pyproject.toml, and commit that"
)
VARIABLE = (
    "the app wants the variable {0}: set it in agent_environment; a secret goes to agent_secrets, and is a file in"
    " $CREDENTIALS_DIRECTORY"
)
PORT = "port {said.port} is taken on this host (ss -ltnp): stop what has it, or choose another agent_port"
PYTHON = (
    "this host's Python is not one that the app or its dependencies are for: Debian 13 has 3.13, Debian 12 has 3.11;"
    " or set agent_runtime: docker with an agent_docker_image that has it"
)
WRITE = (
    "the app may not write {0}: its releases are read-only; files that last belong into the database, others below /tmp"
)
COMPILER = (
    "{0} has no wheel for this host's Python and cannot be built here: pin a version of it that has one, or set"
    " agent_runtime: docker"
)
HASH = "a package is not the one that was locked: lock requirements.txt again, and commit it"
KNOWN = (
    (r'Could not import module "([^"]+)"', MODULE),
    (r'Attribute "([^"]+)" not found in module "([^"]+)"', ATTRIBUTE),
    (r"No module named '?([A-Za-z0-9_.]+)'?", PACKAGE),
    (r"KeyError: '([A-Z][A-Z0-9_]+)'", VARIABLE),
    (r"(?m)^\s*([A-Za-z][A-Za-z0-9_]+)\n\s+Field required", VARIABLE),
    (r"address already in use", PORT),
    (r"(?i)requires[ -](?:a different )?python|does not satisfy python|(?m:^SyntaxError: )", PYTHON),
    (r"ImportError: cannot import name '\w+' from '(?:typing|enum|datetime|asyncio|itertools)'", PYTHON),
    (r"(?:Read-only file system|Permission denied): '([^']+)'", WRITE),
    (r"(?s)Failed to build [`']?([A-Za-z0-9._-]+)", COMPILER),
    (r"(?i)hash mismatch", HASH),
)


def tell(text: str, parts: Sequence[str], said: Said) -> str:
    """What a text of the table says of this start; a missing module may be the app's own or somebody else's package."""
    if text is PACKAGE:
        package = parts[0].split(".")[0]
        if package == said.app.partition(":")[0].split(".")[0]:
            text = UNCOMMITTED
        else:
            parts = [package]
    return text.format(*parts, said=said)


def advise(said: Said) -> str:
    """What mends it; nothing where it is not known."""
    if "oom-kill" in said.results:
        return "it took more memory than agent_memory_max: raise that, or have the app take less"
    for pattern, text in KNOWN:
        found = re.search(pattern, said.lines)
        if found:
            return tell(text, found.groups(), said)
    if said.unannounced:
        return (
            "it answers, and does not tell systemd that it is ready: set agent_notify: false, or send READY=1 and"
            " WATCHDOG=1 as sd_notify does"
        )
    if any(answer.startswith("404") for answer in said.answers.values()):
        return "the app has no /ready: add it, with status 200 once it can serve"
    return ""
