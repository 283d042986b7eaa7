"""What most likely keeps an app from running, and what mends it, in one line; read from what it said. Pure.

The words are those of Python, uvicorn, uv, pydantic and systemd; where none of them is known, nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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


Told = Callable[["re.Match[str]", Said], str]


def _module(found: re.Match[str], said: Said) -> str:
    return (
        f"agent_app is {said.app}, and the release has no module {found[1]}: give it as in"
        " `from shop.main import app`: shop.main:app"
    )


def _attribute(found: re.Match[str], said: Said) -> str:
    return f"agent_app is {said.app}, and module {found[2]} has no {found[1]}: name the ASGI app that is in it"


def _package(found: re.Match[str], said: Said) -> str:
    name = found[1].split(".")[0]
    if name == said.app.partition(":")[0].split(".")[0]:
        return f"agent_app is {said.app}, and the release has no module {found[1]}: is it committed?"
    return (
        f"the app imports {name}, which is not among its dependencies: add what provides it to requirements.txt or"
        " pyproject.toml, and commit that"
    )


def _variable(found: re.Match[str], _said: Said) -> str:
    return (
        f"the app wants the variable {found[1]}: set it in agent_environment; a secret goes to agent_secrets, and is"
        " a file in $CREDENTIALS_DIRECTORY"
    )


def _port(_found: re.Match[str], said: Said) -> str:
    return f"port {said.port} is taken on this host (ss -ltnp): stop what has it, or choose another agent_port"


def _python(_found: re.Match[str], _said: Said) -> str:
    return (
        "this host's Python is not one that the app or its dependencies are for: Debian 13 has 3.13, Debian 12 has"
        " 3.11; or set agent_runtime: docker with an agent_docker_image that has it"
    )


def _write(found: re.Match[str], _said: Said) -> str:
    return (
        f"the app may not write {found[1]}: its releases are read-only; files that last belong into the database,"
        " others below /tmp"
    )


def _compiler(found: re.Match[str], _said: Said) -> str:
    return (
        f"{found[1]} has no wheel for this host's Python and cannot be built here: pin a version of it that has one,"
        " or set agent_runtime: docker"
    )


def _hash(_found: re.Match[str], _said: Said) -> str:
    return "a package is not the one that was locked: lock requirements.txt again, and commit it"


# The first that fits is told.
KNOWN: tuple[tuple[str, Told], ...] = (
    (r'Could not import module "([^"]+)"', _module),
    (r'Attribute "([^"]+)" not found in module "([^"]+)"', _attribute),
    (r"No module named '?([A-Za-z0-9_.]+)'?", _package),
    (r"KeyError: '([A-Z][A-Z0-9_]+)'", _variable),
    (r"(?m)^\s*([A-Za-z][A-Za-z0-9_]+)\n\s+Field required", _variable),
    (r"address already in use", _port),
    (r"(?i)requires[ -](?:a different )?python|does not satisfy python|(?m:^SyntaxError: )", _python),
    (r"ImportError: cannot import name '\w+' from '(?:typing|enum|datetime|asyncio|itertools)'", _python),
    (r"(?:Read-only file system|Permission denied): '([^']+)'", _write),
    (r"(?s)Failed to build [`']?([A-Za-z0-9._-]+)", _compiler),
    (r"(?i)hash mismatch", _hash),
)


def advise(said: Said) -> str:
    """What mends it; nothing where it is not known."""
    if "oom-kill" in said.results:
        return "it took more memory than agent_memory_max: raise that, or have the app take less"
    for pattern, tell in KNOWN:
        found = re.search(pattern, said.lines)
        if found:
            return tell(found, said)
    if said.unannounced:
        return (
            "it answers, and does not tell systemd that it is ready: set agent_notify: false, or send READY=1 and"
            " WATCHDOG=1 as sd_notify does"
        )
    if any(answer.startswith("404") for answer in said.answers.values()):
        return "the app has no /ready: add it, with status 200 once it can serve"
    return ""
