"""Who may log in at Nginx: names and salted digests in a file. Pure, but for openssl, which makes the digests."""

from __future__ import annotations

import secrets
import string
import subprocess
from collections.abc import Callable, Mapping

SALT_LENGTH = 16
SALT_LETTERS = string.ascii_letters + string.digits + "./"
KIND = "$6$"

Digest = Callable[[str, str], str]


class LoginError(Exception):
    """One line for the user."""


def digest(password: str, salt: str) -> str:
    """PASSWORD as SHA-512 crypt. It goes to openssl by its input: a command line is for everybody to read."""
    command = ("openssl", "passwd", "-6", "-salt", salt, "-stdin")
    try:
        done = subprocess.run(command, input=f"{password}\n".encode(), capture_output=True, check=False)
    except OSError as error:
        raise LoginError(f"openssl: {error.strerror}; mend it with: apt install openssl") from error
    made = done.stdout.decode().strip()
    if done.returncode or not made.startswith(f"{KIND}{salt}$"):
        raise LoginError(f"openssl makes no digest of a password: {done.stderr.decode(errors='replace').strip()[:200]}")
    return made


def parse(text: str) -> dict[str, str]:
    """Digest by name."""
    entries = (line.partition(":") for line in text.splitlines() if not line.startswith("#"))
    return {name: kept for name, _colon, kept in entries if name and kept}


def salt_of(kept: str) -> str:
    """The salt of a digest of our kind, else nothing."""
    parts = kept.split("$")
    return parts[2] if kept.startswith(KIND) and len(parts) == 4 else ""


def settle(before: Mapping[str, str], users: Mapping[str, str], make: Digest = digest) -> dict[str, str]:
    """Digest by name for USERS; who keeps a password keeps its digest."""
    after = {}
    for name, password in sorted(users.items()):
        kept = before.get(name, "")
        salt = salt_of(kept)
        if salt and secrets.compare_digest(make(password, salt), kept):
            after[name] = kept
        else:
            after[name] = make(password, "".join(secrets.choice(SALT_LETTERS) for _ in range(SALT_LENGTH)))
    return after


def render(entries: Mapping[str, str]) -> str:
    return "".join(f"{name}:{kept}\n" for name, kept in entries.items())


def difference(before: Mapping[str, str], after: Mapping[str, str]) -> dict[str, str]:
    """Who may log in, without a digest: from one a weak password can be found."""
    told = {name: " (new password)" if name in before and before[name] != kept else "" for name, kept in after.items()}
    return {
        "before": "".join(f"{name}\n" for name in before),
        "after": "".join(f"{name}{word}\n" for name, word in told.items()),
    }
