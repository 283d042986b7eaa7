"""As much of PostgreSQL's protocol (version 3) as a login and one question take."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

PROTOCOL = 196608
ENCRYPT = struct.pack("!ii", 8, 80877103)
MECHANISM = "SCRAM-SHA-256"
# No channel binding: "n,," as the attribute c.
HEADER = "n,,"
OK, CLEAR, MD5, SASL, SASL_CONTINUE, SASL_FINAL = 0, 3, 5, 10, 11, 12


class WireError(Exception):
    """The server speaks otherwise than it should."""


class ServerError(Exception):
    """What the server refused, by its code and in its own words."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


def startup(user: str, database: str) -> bytes:
    words = {"user": user, "database": database, "application_name": "agentfleet/preflight"}
    body = b"".join(f"{name}\0{value}\0".encode() for name, value in words.items()) + b"\0"
    return struct.pack("!ii", len(body) + 8, PROTOCOL) + body


def message(kind: str, body: bytes) -> bytes:
    return kind.encode() + struct.pack("!i", len(body) + 4) + body


def password(value: bytes) -> bytes:
    return message("p", value + b"\0")


def sasl_initial(first: str) -> bytes:
    return message("p", MECHANISM.encode() + b"\0" + struct.pack("!i", len(first)) + first.encode())


def query(text: str) -> bytes:
    return message("Q", text.encode() + b"\0")


TERMINATE = message("X", b"")


def length_of(head: bytes) -> int:
    """How many bytes follow the first five of a message."""
    size = int(struct.unpack("!i", head[1:5])[0]) - 4
    if size < 0:
        raise WireError("a message of less than no length")
    return size


def error_of(body: bytes) -> ServerError:
    fields = {part[:1]: part[1:].decode(errors="replace") for part in body.split(b"\0") if part}
    return ServerError(fields.get(b"C", ""), fields.get(b"M", "no reason given"))


def row_of(body: bytes) -> list[str | None]:
    """The columns of a row, as text."""
    (number,) = struct.unpack("!h", body[:2])
    columns: list[str | None] = []
    place = 2
    for _ in range(number):
        (size,) = struct.unpack("!i", body[place : place + 4])
        place += 4
        columns.append(None if size < 0 else body[place : place + size].decode(errors="replace"))
        place += max(size, 0)
    return columns


def parameter_of(body: bytes) -> tuple[str, str]:
    name, _, value = body.rstrip(b"\0").decode(errors="replace").partition("\0")
    return name, value


def mechanisms(body: bytes) -> list[str]:
    return [name.decode(errors="replace") for name in body.split(b"\0") if name]


def md5_answer(user: str, secret: str, salt: bytes) -> bytes:
    inner = hashlib.md5((secret + user).encode(), usedforsecurity=False).hexdigest()
    return b"md5" + hashlib.md5(inner.encode() + salt, usedforsecurity=False).hexdigest().encode()


def client_first(nonce: str, user: str = "") -> str:
    """PostgreSQL takes the user from the startup message, and nothing here."""
    return f"{HEADER}n={user},r={nonce}"


def client_final(first: str, server_first: str, secret: str) -> tuple[str, str]:
    """The client's last message, and what the server has to answer to it (RFC 5802, 7677)."""
    said = _attributes(server_first)
    bare = first.removeprefix(HEADER)
    if not said.get("r", "").startswith(_attributes(bare)["r"]) or not said.get("i", "").isdecimal() or "s" not in said:
        raise WireError("a challenge that is none")
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), base64.b64decode(said["s"]), int(said["i"]))
    client_key = _sign(salted, "Client Key")
    without_proof = f"c={base64.b64encode(HEADER.encode()).decode()},r={said['r']}"
    signed = f"{bare},{server_first},{without_proof}"
    signature = _sign(hashlib.sha256(client_key).digest(), signed)
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    expected = base64.b64encode(_sign(_sign(salted, "Server Key"), signed)).decode()
    return f"{without_proof},p={base64.b64encode(proof).decode()}", f"v={expected}"


def _attributes(text: str) -> Mapping[str, str]:
    return dict(re.findall(r"(?:^|,)([a-z])=([^,]*)", text))


def _sign(key: bytes, text: str) -> bytes:
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


@dataclass
class Login:
    """A login as messages go to and fro: what to send for each that comes, until the server is ready."""

    user: str
    secret: str
    nonce: str
    encrypted: bool
    version: str = ""
    ready: bool = False
    _first: str = ""
    _expected: str = ""

    def answer(self, kind: str, body: bytes) -> Iterator[bytes]:
        if kind == "E":
            raise error_of(body)
        if kind == "R":
            yield from self._authenticate(int.from_bytes(body[:4], "big"), body[4:])
        elif kind == "S":
            name, value = parameter_of(body)
            self.version = value if name == "server_version" else self.version
        elif kind == "Z":
            self.ready = True
        elif kind not in "NK":
            raise WireError(f"a message of kind {kind!r} in a login")

    def _authenticate(self, wanted: int, body: bytes) -> Iterator[bytes]:
        if wanted == SASL:
            if MECHANISM not in mechanisms(body):
                raise WireError(f"a login by none but {', '.join(mechanisms(body))}")
            self._first = client_first(self.nonce)
            yield sasl_initial(self._first)
        elif wanted == SASL_CONTINUE:
            final, self._expected = client_final(self._first, body.decode(), self.secret)
            yield message("p", final.encode())
        elif wanted == SASL_FINAL:
            if body.decode(errors="replace") != self._expected:
                raise WireError("it does not know the password itself")
        elif wanted == MD5:
            yield password(md5_answer(self.user, self.secret, body[:4]))
        elif wanted == CLEAR:
            if not self.encrypted:
                raise WireError("it wants the password in plain, without TLS")
            yield password(self.secret.encode())
        elif wanted != OK:
            raise WireError(f"a login of kind {wanted}, which is not known here")
