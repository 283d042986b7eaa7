"""PostgreSQL or Redis elsewhere, by a URL. Pure; no message has a password in it."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

SSLMODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
DATABASE = "postgresql://user:password@host:5432/name?sslmode=verify-full"
REDIS = "rediss://user:password@host:6379/0"


class UrlError(Exception):
    """What is wrong with a URL, to follow its variable's name."""


def database_of(url: str) -> dict[str, Any]:
    """Host, port, name, user, password and sslmode of a database; nothing of no URL."""
    if not url:
        return {}
    parts = _split(url, ("postgresql", "postgres"), DATABASE)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    sslmode = options.pop("sslmode", "require")
    if "sslrootcert" in options:
        raise UrlError(
            "has sslrootcert, a file that hosts do not have: set agent_database_ca_file to one on this machine"
        )
    if options:
        raise UrlError(f"has the option {next(iter(options))}, and only sslmode is known")
    if sslmode not in SSLMODES:
        raise UrlError(f"has an unknown sslmode; one of {', '.join(SSLMODES)}")
    name, user = unquote(parts.path.lstrip("/")), unquote(parts.username or "")
    if not name or not user:
        raise UrlError(f"must name a user and a database, as {DATABASE} does")
    return {
        "host": _host(parts),
        "port": _port(parts, 5432),
        "name": name,
        "user": user,
        "password": unquote(parts.password or ""),
        "sslmode": sslmode,
    }


def redis_of(url: str) -> dict[str, Any]:
    """Host, port, number of the database, user, password and whether over TLS; nothing of no URL."""
    if not url:
        return {}
    parts = _split(url, ("redis", "rediss"), REDIS)
    if parts.query:
        raise UrlError("takes no options")
    number = parts.path.strip("/") or "0"
    if not number.isdecimal():
        raise UrlError(f"must end with the number of a database, as {REDIS} does")
    return {
        "host": _host(parts),
        "port": _port(parts, 6379),
        "database": int(number),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "tls": parts.scheme == "rediss",
    }


def password_in(url: str) -> str:
    """The part of a URL that nobody else may know; all of it where it cannot be told."""
    try:
        return unquote(urlsplit(url).password or "")
    except ValueError:
        return url


def _split(url: str, schemes: tuple[str, ...], form: str) -> SplitResult:
    try:
        parts = urlsplit(url.strip())
        known = parts.scheme in schemes and bool(parts.hostname)
    except ValueError:
        known = False
    if not known:
        raise UrlError(f"must be of the form {form}")
    _port(parts, 0)
    if "," in parts.netloc.rpartition("@")[2]:
        raise UrlError("names several hosts, and one is known")
    # What follows belongs to the password, and whoever wrote it sees nothing wrong.
    if parts.fragment or re.search(r"[#\s]", url.strip()):
        raise UrlError("has a # or a space, which a URL writes as %23 or %20")
    return parts


def _host(parts: SplitResult) -> str:
    return str(parts.hostname)


def _port(parts: SplitResult, otherwise: int) -> int:
    try:
        return parts.port or otherwise
    except ValueError as error:
        raise UrlError("has a port that is none; a password's / ? # @ : are written as %2F %3F %23 %40 %3A") from error
