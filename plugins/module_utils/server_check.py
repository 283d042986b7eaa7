"""Whether a PostgreSQL or Redis elsewhere lets the service in, asked from the host that will run it.

One line each, that names the variable and what to do; none has a password in it.
"""

from __future__ import annotations

import secrets
import socket
import ssl
from collections.abc import Mapping
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils import postgres_wire as wire

SECONDS = 10
# What migrations need, and what /ready asks.
RIGHTS = (
    "SELECT has_database_privilege(current_database(), 'CONNECT'),"
    " coalesce(has_schema_privilege(current_schema(), 'CREATE'), false), pg_is_in_recovery()"
)
OLDEST_POSTGRES = 13
# How libpq verifies: the whole name, the authority alone, or nothing.
WHOLE, CHAIN = "verify-full", "verify-ca"


class Refused(Exception):
    """What is wrong, and what mends it."""

    def __init__(self, text: str, mend: str) -> None:
        super().__init__(text)
        self.text, self.mend = text, mend


def connect(host: str, port: int, url: str) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Refused(
            f"{url}: the name {host} does not resolve here ({error.strerror})", "Correct it, or this host's DNS"
        ) from error
    reasons: list[str] = []
    for family, kind, protocol, _, address in found:
        connection = socket.socket(family, kind, protocol)
        connection.settimeout(SECONDS)
        try:
            connection.connect(address)
        except OSError as error:
            connection.close()
            reasons.append(str(error.strerror or error))
        else:
            return connection
    raise Refused(
        f"{url}: port {port} of {host} does not answer ({reasons[-1] if reasons else 'no address'})",
        "Start the server, let it listen there, and let this host through its firewall",
    )


def context_of(how: str, authority: str) -> ssl.SSLContext:
    """What verifies the WHOLE name, the CHAIN alone, or nothing; by AUTHORITY in PEM, else by the host's own."""
    context = ssl.create_default_context(cadata=authority or None)
    # Certificates of managed databases are often older than the newest rules.
    context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
    if how != WHOLE:
        context.check_hostname = False
    if how not in (WHOLE, CHAIN):
        context.verify_mode = ssl.CERT_NONE
    return context


def encrypted(connection: socket.socket, host: str, how: str, authority: str, url: str, file: str) -> ssl.SSLSocket:
    try:
        return context_of(how, authority).wrap_socket(connection, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise Refused(
            f"{url}: the certificate of {host} is not verified: {error.verify_message}",
            f"Set {file} to its authority's certificate" + (", or correct the name" if how == WHOLE else ""),
        ) from error
    except (ssl.SSLError, OSError) as error:
        raise Refused(
            f"{url}: {host} does not speak TLS on this port ({getattr(error, 'reason', None) or error})",
            "Correct the port, or turn TLS on there",
        ) from error


def exactly(connection: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        more = connection.recv(size - len(received))
        if not more:
            raise ConnectionError("it ended the connection")
        received += more
    return received


# PostgreSQL


def check_postgres(server: Mapping[str, Any], authority: str) -> str:
    """The version of a database that the service may use, or Refused."""
    url, host, port = "agent_database_url", str(server["host"]), int(server["port"])
    connection = connect(host, port, url)
    try:
        secure = negotiate(connection, host, str(server["sslmode"]), authority)
        connection = secure or connection
        return converse(connection, server, bool(secure))
    except (wire.WireError, OSError) as error:
        raise Refused(
            f"{url}: what answers on port {port} of {host} is no PostgreSQL: {error}", "Correct host and port"
        ) from error
    finally:
        connection.close()


def negotiate(connection: socket.socket, host: str, sslmode: str, authority: str) -> ssl.SSLSocket | None:
    if sslmode in ("disable", "allow"):
        return None
    connection.sendall(wire.ENCRYPT)
    answer = exactly(connection, 1)
    if answer == b"S":
        # libpq verifies as soon as it has an authority to do it by.
        how = CHAIN if sslmode == "require" and authority else sslmode
        return encrypted(connection, host, how, authority, "agent_database_url", "agent_database_ca_file")
    if answer != b"N":
        raise wire.WireError(f"it answers {answer!r}")
    if sslmode != "prefer":
        raise Refused(
            f"agent_database_url: {host} has no TLS, and sslmode is {sslmode}",
            "Turn TLS on there, or say sslmode=disable",
        )
    return None


def converse(connection: socket.socket, server: Mapping[str, Any], secure: bool) -> str:
    user, name = str(server["user"]), str(server["name"])
    login = wire.Login(user, str(server["password"]), secrets.token_urlsafe(18), secure)
    rows: list[list[str | None]] = []

    def until_ready() -> None:
        login.ready = False
        while not login.ready:
            head = exactly(connection, 5)
            kind, body = head[:1].decode("latin-1"), exactly(connection, wire.length_of(head))
            if kind == "D":
                rows.append(wire.row_of(body))
            elif kind not in "TC":
                for reply in login.answer(kind, body):
                    connection.sendall(reply)

    connection.sendall(wire.startup(user, name))
    try:
        until_ready()
        connection.sendall(wire.query(RIGHTS))
        until_ready()
    except wire.ServerError as error:
        raise refusal(error, server) from error
    connection.sendall(wire.TERMINATE)
    judge_rights(rows[0] if rows else [], login.version, server)
    return login.version


def refusal(error: wire.ServerError, server: Mapping[str, Any]) -> Refused:
    host, user, name = server["host"], server["user"], server["name"]
    url = "agent_database_url"
    if error.code in ("28P01", "28000") and "pg_hba" not in error.message:
        return Refused(f"{url}: {host} refuses the password of {user}", "Correct user and password")
    if error.code == "28000":
        return Refused(
            f"{url}: {host} does not let {user} in from here: {error.message}", "Allow it in its pg_hba.conf"
        )
    if error.code == "3D000":
        return Refused(f"{url}: {host} has no database {name}", f"Correct it, or make it there: CREATE DATABASE {name}")
    return Refused(f"{url}: {host} refuses the login: {error.message}", "Correct it there")


def judge_rights(row: list[str | None], version: str, server: Mapping[str, Any]) -> None:
    url, user, name = "agent_database_url", server["user"], server["name"]
    found = version.partition(".")[0].partition(" ")[0]
    if found.isdecimal() and int(found) < OLDEST_POSTGRES:
        raise Refused(f"{url}: PostgreSQL {version} is older than {OLDEST_POSTGRES}", "Upgrade it, or take another")
    if len(row) == 3 and row[2] == "t":
        raise Refused(f"{url}: {server['host']} is a replica, which takes no writes", "Name its primary")
    if len(row) == 3 and row[1] != "t":
        raise Refused(
            f"{url}: {user} may make no tables in {name}",
            f"Allow it there: ALTER DATABASE {name} OWNER TO {user}, or GRANT CREATE ON SCHEMA public TO {user}",
        )


# Redis


def command(*words: str) -> bytes:
    encoded = [word.encode() for word in words]
    return b"*%d\r\n" % len(encoded) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in encoded)


def check_redis(server: Mapping[str, Any], authority: str) -> None:
    """Nothing where the service may use it, or Refused."""
    url, host, port = "agent_redis_url", str(server["host"]), int(server["port"])
    connection = connect(host, port, url)
    try:
        if server["tls"]:
            connection = encrypted(connection, host, WHOLE, authority, url, "agent_redis_ca_file")
        if server["password"]:
            words = [word for word in (server["user"], server["password"]) if word]
            judge_reply("AUTH", ask(connection, *("AUTH", *words)), server)
        judge_reply("PING", ask(connection, "PING"), server)
        if server["database"]:
            judge_reply("SELECT", ask(connection, "SELECT", str(server["database"])), server)
    except (OSError, UnicodeDecodeError) as error:
        raise Refused(
            f"{url}: what answers on port {port} of {host} is no Redis: {error}",
            "Correct host and port, or say rediss:// where it wants TLS",
        ) from error
    finally:
        connection.close()


def ask(connection: socket.socket, *words: str) -> str:
    connection.sendall(command(*words))
    line = b""
    while not line.endswith(b"\r\n"):
        line += exactly(connection, 1)
        if len(line) > 4096:
            raise ConnectionError("it answers without an end")
    return line.decode().strip()


def judge_reply(about: str, reply: str, server: Mapping[str, Any]) -> None:
    url, host = "agent_redis_url", server["host"]
    if reply.startswith("+"):
        return
    word, _, rest = reply.removeprefix("-").partition(" ")
    if not reply.startswith("-"):
        raise ConnectionError(f"it answers {about} with {reply[:40]!r}")
    if word in ("WRONGPASS", "NOAUTH") or (about == "AUTH" and word == "ERR"):
        who = f"the password of {server['user']}" if server["user"] else "the password"
        text = f"{url}: {host} refuses {who}" if server["password"] else f"{url}: {host} wants a password"
        raise Refused(text, "Correct user and password")
    if word == "NOPERM":
        raise Refused(
            f"{url}: {server['user']} may not {about} on {host}", "Allow it in its ACL: +@all -@admin -@dangerous"
        )
    raise Refused(f"{url}: {host} answers {about} with: {word} {rest}", "Correct it there")
