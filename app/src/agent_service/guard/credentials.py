"""From the Authorization header to the caller; without a credential that holds there is none."""

from collections.abc import Iterable

from agent_service.guard.bearer import Tokens
from agent_service.guard.callers import Caller, Refused
from agent_service.guard.keys import Key, KeyRing
from agent_service.guard.tiers import Tiers


class Credentials:
    def __init__(self, keys: Iterable[Key], tokens: Tokens | None, tiers: Tiers) -> None:
        self._keys = KeyRing(keys)
        self._tokens = tokens
        self._tiers = tiers

    def caller(self, authorization: str) -> Caller:
        """Raises Refused."""
        scheme, _, credential = authorization.partition(" ")
        credential = credential.strip()
        if scheme.lower() != "bearer" or not credential:
            raise Refused("no-credential")
        if key := self._keys.find(credential.encode("latin-1")):
            return Caller(key.name, key.tier, self._tiers[key.tier])
        if credential.count(".") != 2:
            raise Refused("unknown-key")
        if self._tokens is None:
            raise Refused("tokens-are-off")
        return self._tokens.caller(credential)
