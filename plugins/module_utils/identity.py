"""What a slot runs: release, configuration and secrets, under one id; and keeping secrets out of messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from urllib.parse import quote

# Shorter values are in any text by chance, and hiding them would make messages unreadable.
SHORTEST_SECRET = 4
HIDDEN = "********"


def identity(
    release: str,
    environment: Mapping[str, str],
    secrets: Mapping[str, str],
    instances: int,
    units: Mapping[str, str],
) -> str:
    """The id of what a slot runs: another release, variable, secret, limit or number of instances is another id.

    All secrets go into one digest, the strong ones beside the weak, so that it cannot be searched for a weak one.
    """
    text = json.dumps(
        [release, dict(environment), dict(secrets), instances, dict(units)],
        sort_keys=True,
        ensure_ascii=False,
    )
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def redact(text: str, secrets: Iterable[str]) -> str:
    """TEXT without any of SECRETS, plain or as part of a URL."""
    forms = {form for secret in secrets for form in (secret, quote(secret, safe="")) if len(secret) >= SHORTEST_SECRET}
    for form in sorted(forms, key=len, reverse=True):
        text = text.replace(form, HIDDEN)
    return text
