"""What others have Nginx serve on an edge, read from its files, and what of it concerns us. Pure."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping

MARK = "# Managed by Agentfleet"
LISTEN = re.compile(r"(?m)^\s*listen\s+([^;#]*)\bdefault_server\b[^;]*;")


def shipped_in(status: str) -> dict[str, str]:
    """MD5 of each configuration file of the packages in /var/lib/dpkg/status, by its path."""
    return dict(re.findall(r"(?m)^ (/etc/nginx/\S+) ([0-9a-f]{32})", status))


def as_shipped(path: str, text: str, shipped: Mapping[str, str]) -> bool:
    """Whether a file is what Debian's package brought; SHIPPED are digests by path."""
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest() == shipped.get(path)


def edited(path: str, text: str | None, shipped: Mapping[str, str]) -> bool:
    """Whether somebody wrote into the main file, if it is there, what would be lost if it were replaced."""
    return text is not None and bool(text.strip()) and not text.startswith(MARK) and not as_shipped(path, text, shipped)


def default_ports(texts: Iterable[str]) -> list[int]:
    """Ports on which others' sites answer for names that nobody knows."""
    ports = set()
    for text in texts:
        for address in LISTEN.findall(text):
            place = address.split()[0] if address.split() else "80"
            port = place.rpartition(":")[2] if not place.endswith("]") else "80"
            ports.add(int(port) if port.isdecimal() else 80)
    return sorted(ports)
