"""Asking the director at its control socket: a line of JSON each way."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

CONTROL = Path("/run/agentfleet/director.sock")


class DirectorError(Exception):
    """One line for the user: what the director refused, or why it cannot be asked."""


class NotRunning(DirectorError):
    """There is nobody to ask."""


def ask(do: str, control: Path = CONTROL, seconds: float = 60.0, **request: Any) -> dict[str, Any]:
    """The director's answer; DirectorError says what it refused."""
    answer = exchange(do, control, seconds, **request)
    if not answer.get("ok"):
        raise DirectorError(str(answer.get("error", "the director refused without a reason")))
    return answer


def exchange(do: str, control: Path = CONTROL, seconds: float = 60.0, **request: Any) -> dict[str, Any]:
    """The director's answer as it is: `ok`, and where that is false the `error` and what is in the way."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
            channel.settimeout(seconds)
            channel.connect(str(control))
            channel.sendall(json.dumps({"do": do, **request}).encode() + b"\n")
            said = b""
            while piece := channel.recv(1 << 16):
                said += piece
        return dict(json.loads(said))
    except FileNotFoundError as error:
        raise NotRunning(f"no director runs here ({control} is missing): run site.yml --limit edge") from error
    except (OSError, ValueError) as error:
        mend = "see: systemctl status agentfleet-director"
        raise DirectorError(f"the director does not answer at {control} ({error}); {mend}") from error
