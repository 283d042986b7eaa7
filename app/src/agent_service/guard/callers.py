"""Who calls: the holder of an API key, or a user by a token."""

import hashlib
from dataclasses import dataclass

from agent_service.guard.tiers import Tier


class Refused(Exception):
    """A credential that opens nothing. The reason is for the log; whoever sent it is not told."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Caller:
    # The key's name; a token has none of its own.
    name: str
    tier_name: str
    tier: Tier
    # The one user that a token speaks for. A key may act for any.
    user_id: str | None = None

    @property
    def counted_as(self) -> str:
        """Whose requests are counted together; of one length, and no user's name, since it is a key in Redis."""
        if self.user_id is None:
            return f"key:{self.name}"
        return f"user:{hashlib.blake2b(self.user_id.encode(), digest_size=16).hexdigest()}"
