"""What is asked of a Redis by its own protocol, with the standard library alone."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

from ansible_collections.agentfleet.vm.plugins.module_utils.backup.running import BackupError

Reply = str | int | list["Reply"] | None
# Role redis makes both: a user that may have a snapshot made and ask how it goes, and its password, on each host anew.
USER = "agentfleet-backup"
PASSWORD_FILE = Path("/etc/redis/agentfleet/backup-password")
AUTHORITY = Path("/etc/ssl/certs/agentfleet-fleet.pem")


class RedisError(BackupError):
    """What Redis refused, in its own words, or why it does not answer."""


@dataclass(frozen=True)
class Login:
    """Where a Redis of this host is, and who asks; with a `path` it is a UNIX socket."""

    port: int = 6379
    user: str = ""
    password: str = ""
    tls: bool = False
    path: str = ""


def login_of(redis: Mapping[str, object]) -> Login:
    """From source.json; the password is the host's own file's where none is given."""
    given = str(redis.get("password") or "")
    path = Path(str(redis.get("password_file") or PASSWORD_FILE))
    password = given or (path.read_text().strip() if path.exists() else "")
    user = str(redis.get("user") or USER) if password else ""
    return Login(int(str(redis["port"])), user, password, bool(redis.get("tls")))


def packed(words: Sequence[str]) -> bytes:
    """A command as Redis reads it."""
    parts = [word.encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)


def read_reply(answer: IO[bytes]) -> Reply:
    """One reply; a refusal is raised."""
    line = answer.readline()
    if not line.endswith(b"\r\n"):
        raise RedisError("Redis ended the connection")
    kind, rest = line[:1], line[1:-2].decode(errors="replace")
    if kind == b"-":
        raise RedisError(rest)
    if kind == b"+":
        return rest
    if kind == b":":
        return int(rest)
    if kind == b"$":
        return None if rest == "-1" else answer.read(int(rest) + 2)[:-2].decode(errors="replace")
    if kind == b"*":
        return [read_reply(answer) for _ in range(int(rest))]
    raise RedisError(f"Redis answered {line[:40]!r}, which is no reply of its protocol")


def parse_info(text: str) -> dict[str, str]:
    """What INFO says, by name."""
    pairs = (line.partition(":") for line in text.splitlines() if ":" in line and not line.startswith("#"))
    return {name: value.strip() for name, _colon, value in pairs}


class Redis:
    """A connection; use it with `with`."""

    def __init__(self, login: Login, seconds: float = 30) -> None:
        try:
            self.socket = connected(login, seconds)
        except OSError as error:
            where = login.path or f"port {login.port}"
            raise RedisError(f"Redis does not answer on {where}: {error.strerror or error}") from error
        self.answer = self.socket.makefile("rb")
        if login.password:
            self.call("AUTH", login.user or "default", login.password)

    def __enter__(self) -> Redis:
        return self

    def __exit__(self, kind: type[BaseException] | None, what: BaseException | None, at: TracebackType | None) -> None:
        self.answer.close()
        self.socket.close()

    def call(self, *words: str) -> Reply:
        [reply] = self.calls(words)
        if isinstance(reply, RedisError):
            raise reply
        return reply

    def calls(self, *commands: Sequence[str]) -> list[Reply | RedisError]:
        """Commands that Redis carries out one after the other, with nothing between; a refusal is among the replies."""
        try:
            self.socket.sendall(b"".join(packed(words) for words in commands))
            return [self.read() for _ in commands]
        except OSError as error:
            raise RedisError(f"Redis does not answer: {error.strerror or error}") from error

    def read(self) -> Reply | RedisError:
        try:
            return read_reply(self.answer)
        except RedisError as error:
            if "protocol" in str(error) or "ended" in str(error):
                raise
            return error

    def info(self, section: str) -> dict[str, str]:
        return parse_info(str(self.call("INFO", section)))


def connected(login: Login, seconds: float) -> socket.socket:
    if login.path:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(seconds)
        connection.connect(login.path)
        return connection
    plain = socket.create_connection(("127.0.0.1", login.port), seconds)
    if not login.tls:
        return plain
    # On loopback there is no other host to be taken for: that the fleet vouches for the certificate is enough.
    context = ssl.create_default_context(cafile=str(AUTHORITY))
    context.check_hostname = False
    return context.wrap_socket(plain)
