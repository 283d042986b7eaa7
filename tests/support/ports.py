"""Whether a port lets somebody in."""

from __future__ import annotations

import socket


def answers(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), 3).close()
    except OSError:
        return False
    return True
