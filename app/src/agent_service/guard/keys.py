"""API keys. The service keeps their digests alone, so whoever reads its credentials can call nothing."""

import hashlib
import hmac
import re
import secrets
from collections.abc import Container, Iterable
from dataclasses import dataclass

# The name of the one key that the setting api_key holds.
MAIN = "main"
# What an audit row says in place of a key's name.
TOKEN = "token"

NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    tier: str
    digest: bytes


def digest_of(key: bytes) -> bytes:
    # Keys are random and long: there is nothing that a slow hash would protect.
    return hashlib.sha256(key).digest()


def new_key() -> str:
    return f"ak-{secrets.token_urlsafe(32)}"


def line_of(name: str, tier: str, key: str) -> str:
    """What parse_keys() reads."""
    return f"{name} {tier} sha256:{digest_of(key.encode()).hex()}"


def parse_keys(text: str, tiers: Container[str]) -> tuple[Key, ...]:
    """Read lines of `name tier sha256:digest`; empty lines and comments are left out. ValueError names the line."""
    keys: list[Key] = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if words and not words[0].startswith("#"):
            keys.append(_parse(words, number, tiers, keys))
    return tuple(keys)


def _parse(words: list[str], number: int, tiers: Container[str], before: Iterable[Key]) -> Key:
    if len(words) != 3:
        raise ValueError(f"line {number} is not: name tier sha256:digest")
    name, tier, written = words
    if not NAME.fullmatch(name):
        raise ValueError(f"line {number} has a name that is not lower case letters, digits, dots and dashes")
    if name in (MAIN, TOKEN):
        raise ValueError(f"line {number} has the name {name}, which means something else")
    if tier not in tiers:
        raise ValueError(f"line {number} has a tier that does not exist")
    found = _DIGEST.fullmatch(written)
    if not found:
        raise ValueError(f"line {number} has no digest, 'sha256:' and 64 hexadecimal digits; `agentctl key` makes one")
    key = Key(name, tier, bytes.fromhex(found[1]))
    if any(other.name == key.name or other.digest == key.digest for other in before):
        raise ValueError(f"line {number} repeats a name or a key")
    return key


class KeyRing:
    def __init__(self, keys: Iterable[Key]) -> None:
        self._keys = tuple(keys)

    def find(self, presented: bytes) -> Key | None:
        """The key that was presented. Digests of one length, all of them compared: the time tells nothing."""
        digest = digest_of(presented)
        found = None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found
