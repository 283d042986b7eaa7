"""Credentials for the tests: keys of each tier, and tokens of users."""

import time
from typing import Any

import jwt

from agent_service.guard.keys import line_of

SECRET = "a-secret-of-at-least-thirty-two-bytes"
FREE, PRO, SMALL = "ak-free-0123456789abcdef", "ak-pro-0123456789abcdef", "ak-small-0123456789abcdef"

GUARD: dict[str, Any] = {
    "api_keys": "\n".join(
        ["# whose keys these are", line_of("shop", "free", FREE), "", line_of("app", "pro", PRO),
         line_of("kiosk", "small", SMALL)]
    ),
    "jwt_secret": SECRET,
    "tiers": {"small": {"requests_per_day": 3, "tokens_per_request": 20}},
}  # fmt: skip


def token(subject: Any = "ana", key: Any = SECRET, algorithm: str = "HS256", **claims: Any) -> str:
    given = {"sub": subject, "exp": int(time.time()) + 600, **claims}
    return jwt.encode({name: claim for name, claim in given.items() if claim is not None}, key, algorithm=algorithm)


def bearer(credential: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {credential}"}
