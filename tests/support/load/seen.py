"""What the service itself saw of a load: every identity that begins with a prefix, as often as it was seen."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

    from ..fleet import Fleet

Seen = Callable[[str], Iterable[str]]


def stored(fleet: Fleet) -> Seen:
    """What the reference service has in its database: each question of a finished turn."""

    def look(prefix: str) -> list[str]:
        # The prefix is the load's own: letters, digits and hyphens.
        where = f"role = 'user' AND content LIKE '{prefix}%'"
        return fleet.sql(f"SELECT split_part(content, ' ', 1) FROM messages WHERE {where};").split()

    return look


def asked(model_server: httpx.Client) -> Seen:
    """What the model was asked, for loads that are smaller than what its server remembers."""

    def look(prefix: str) -> list[str]:
        requests: list[dict[str, Any]] = model_server.get("/_requests").raise_for_status().json()["requests"]
        questions = [request["body"]["messages"][-1].get("content") or "" for request in requests]
        return re.findall(rf"^{re.escape(prefix)}\S*", "\n".join(questions), re.MULTILINE)

    return look
