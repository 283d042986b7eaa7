"""Logins at servers elsewhere: the protocols by recorded messages, what is refused by servers of a few lines."""

import base64
import hashlib
import hmac
import os
import socket
import ssl
import struct
import threading

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils import postgres_wire as wire
from ansible_collections.agentfleet.vm.plugins.module_utils.server_check import Refused, check_postgres, check_redis

SECRET = "pencil-hunter2"
# RFC 7677, section 3.
FIRST = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
CHALLENGE = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
PROOF = "p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
VERIFIER = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="


def test_scram_is_what_the_rfc_shows():
    assert wire.client_first("rOprNGfwEbeRWgbNEkqO", "user") == FIRST
    final, expected = wire.client_final(FIRST, CHALLENGE, "pencil")
    assert final == f"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,{PROOF}"
    assert expected == VERIFIER


@pytest.mark.parametrize("challenge", ["", "r=other,s=AAAA,i=4096", CHALLENGE.replace("i=4096", "i=many"), "r=rOpr"])
def test_a_challenge_that_is_none_is_refused(challenge):
    with pytest.raises(wire.WireError):
        wire.client_final(FIRST, challenge, "pencil")


def test_md5_is_what_postgresql_has():
    inner = hashlib.md5(b"pencilapp").hexdigest()
    assert (
        wire.md5_answer("app", "pencil", b"salt") == b"md5" + hashlib.md5(inner.encode() + b"salt").hexdigest().encode()
    )


def test_messages_are_as_postgresql_reads_them():
    assert wire.startup("app", "shop")[4:8] == bytes.fromhex("00030000")
    assert wire.startup("app", "shop").endswith(
        b"user\0app\0database\0shop\0application_name\0agentfleet/preflight\0\0"
    )
    assert wire.query("SELECT 1") == b"Q\x00\x00\x00\x0dSELECT 1\0"
    # Recorded of PostgreSQL 17.
    refused = b'SFATAL\0VFATAL\0C28P01\0Mpassword authentication failed for user "app"\0Fauth.c\0L324\0Rauth_failed\0\0'
    told = wire.error_of(refused)
    assert (told.code, told.message) == ("28P01", 'password authentication failed for user "app"')
    assert wire.row_of(bytes.fromhex("000300000001740000000166ffffffff")) == ["t", "f", None]
    with pytest.raises(wire.WireError):
        wire.length_of(b"R\0\0\0\0")


class Postgres:
    """A server of a few lines that logs in by SCRAM, as PostgreSQL does."""

    def __init__(self, context=None, error=b"", rights="ttf", known=SECRET, version="17.2 (Debian)"):
        self.context, self.error, self.rights, self.known, self.version = context, error, rights, known, version

    def serve(self, connection):
        size = struct.unpack("!i", exactly(connection, 4))[0]
        asked = exactly(connection, size - 4)
        if len(asked) == 4:
            connection.sendall(b"S" if self.context else b"N")
            if not self.context:
                return self.serve(connection)
            connection = self.context.wrap_socket(connection, server_side=True)
            size = struct.unpack("!i", exactly(connection, 4))[0]
            exactly(connection, size - 4)
        self.login(connection)
        return None

    def login(self, connection):
        if self.error:
            connection.sendall(wire.message("E", self.error))
            return
        connection.sendall(authentication(wire.SASL, b"SCRAM-SHA-256-PLUS\0SCRAM-SHA-256\0\0"))
        first = read(connection)[1].rsplit(b"n,,", 1)[1].decode()
        salt, nonce = b"0123456789abcdef", first.split("r=")[1] + "more"
        challenge = f"r={nonce},s={base64.b64encode(salt).decode()},i=4096"
        connection.sendall(authentication(wire.SASL_CONTINUE, challenge.encode()))
        final = read(connection)[1].decode()
        signed = f"{first},{challenge},{final.rsplit(',p=', 1)[0]}"
        proof, verifier = proof_of(self.known, salt, signed)
        if final.rsplit("p=", 1)[1] != proof:
            connection.sendall(wire.message("E", b"SFATAL\0C28P01\0Mpassword authentication failed\0\0"))
            return
        connection.sendall(authentication(wire.SASL_FINAL, f"v={verifier}".encode()) + authentication(wire.OK, b""))
        status = f"server_version\0{self.version}\0".encode()
        connection.sendall(wire.message("S", status) + wire.message("K", b"12345678") + wire.message("Z", b"I"))
        kind, _ = read(connection)
        assert kind == b"Q"
        columns = b"".join(b"\0\0\0\1" + letter.encode() for letter in self.rights)
        row = struct.pack("!h", len(self.rights)) + columns
        connection.sendall(wire.message("T", b"\0\0") + wire.message("D", row) + wire.message("C", b"SELECT 1\0"))
        connection.sendall(wire.message("Z", b"I"))


def exactly(connection, size):
    received = b""
    while len(received) < size:
        more = connection.recv(size - len(received))
        if not more:
            raise ConnectionError
        received += more
    return received


def read(connection):
    head = exactly(connection, 5)
    return head[:1], exactly(connection, struct.unpack("!i", head[1:])[0] - 4)


def authentication(kind, body):
    return wire.message("R", struct.pack("!i", kind) + body)


def proof_of(secret, salt, signed):
    salted = hashlib.pbkdf2_hmac("sha256", secret.encode(), salt, 4096)
    client, server = (hmac.digest(salted, word, "sha256") for word in (b"Client Key", b"Server Key"))
    signature = hmac.digest(hashlib.sha256(client).digest(), signed.encode(), "sha256")
    proof = bytes(a ^ b for a, b in zip(client, signature, strict=True))
    return base64.b64encode(proof).decode(), base64.b64encode(hmac.digest(server, signed.encode(), "sha256")).decode()


class Redis:
    def __init__(self, replies, context=None):
        self.replies, self.context = replies, context

    def serve(self, connection):
        if self.context:
            connection = self.context.wrap_socket(connection, server_side=True)
        told = b""
        for words, reply in self.replies:
            while told.count(b"\r\n") < 1 + 2 * len(words):
                more = connection.recv(4096)
                if not more:
                    return
                told += more
            assert told.split(b"\r\n")[2::2] == [word.encode() for word in words]
            told = b""
            connection.sendall(f"{reply}\r\n".encode())


@pytest.fixture
def listening():
    """Serves one connection; the port."""
    opened = []

    def start(server):
        listener = socket.create_server(("127.0.0.1", 0))

        def serve():
            connection, _ = listener.accept()
            with connection:
                try:
                    server.serve(connection)
                except OSError:
                    return

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        opened.append((listener, thread))
        return listener.getsockname()[1]

    yield start
    for listener, thread in opened:
        thread.join(10)
        listener.close()


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    """A server's context, and the certificate that verifies it."""
    place = tmp_path_factory.mktemp("pki")
    certificates.make(place / "crt", place / "key", ["127.0.0.1"], 30, os.getgid())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(place / "crt", place / "key")
    return context, (place / "crt").read_text()


def database(port, **different):
    words = {"host": "127.0.0.1", "port": port, "name": "shop", "user": "app", "password": SECRET, "sslmode": "disable"}
    return {**words, **different}


def refused(check, server, authority=""):
    with pytest.raises(Refused) as caught:
        check(server, authority)
    told = f"{caught.value.text}. {caught.value.mend}"
    assert SECRET not in told
    return told


def test_a_database_that_lets_the_service_in(listening, pki):
    context, authority = pki
    assert check_postgres(database(listening(Postgres())), "") == "17.2 (Debian)"
    assert check_postgres(database(listening(Postgres()), sslmode="prefer"), "") == "17.2 (Debian)"
    for sslmode, given in (
        ("require", ""),
        ("require", authority),
        ("verify-ca", authority),
        ("verify-full", authority),
    ):
        server = database(listening(Postgres(context)), sslmode=sslmode)
        assert check_postgres(server, given) == "17.2 (Debian)", sslmode


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (b"C28P01\0Mpassword authentication failed\0\0", "refuses the password of app. Correct user and password"),
        (b"C3D000\0Mdatabase does not exist\0\0", "has no database shop. Correct it, or make it there"),
        (b"C28000\0Mno pg_hba.conf entry for host\0\0", "does not let app in from here: no pg_hba.conf entry"),
        (b"C53300\0Mtoo many clients\0\0", "refuses the login: too many clients"),
    ],
)
def test_what_postgresql_refuses_is_told(listening, error, told):
    said = refused(check_postgres, database(listening(Postgres(error=error))))
    assert said.startswith("agent_database_url: 127.0.0.1 ")
    assert told in said


def test_a_wrong_password_is_told(listening):
    said = refused(check_postgres, database(listening(Postgres(known="another"))))
    assert "refuses the password of app" in said


@pytest.mark.parametrize(
    ("server", "told"),
    [
        (Postgres(rights="tff"), "app may make no tables in shop"),
        (Postgres(rights="ttt"), "is a replica, which takes no writes"),
        (Postgres(version="12.9"), "PostgreSQL 12.9 is older than 13"),
    ],
)
def test_what_the_service_could_not_live_with_is_told(listening, server, told):
    assert told in refused(check_postgres, database(listening(server)))


def test_tls_is_as_strict_as_sslmode(listening, pki):
    context, authority = pki

    def said(sslmode, given="", server=None, **different):
        port = listening(server or Postgres(context))
        return refused(check_postgres, database(port, sslmode=sslmode, **different), given)

    assert "has no TLS, and sslmode is require" in said("require", server=Postgres())
    for sslmode in ("verify-ca", "verify-full"):
        assert "is not verified: self-signed certificate. Set agent_database_ca_file" in said(sslmode)
    assert "or correct the name" in said("verify-full", authority, host="localhost")


def test_a_server_that_is_not_there_is_told():
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    said = refused(check_postgres, database(port))
    assert f"port {port} of 127.0.0.1 does not answer (Connection refused)" in said
    said = refused(check_redis, cache(port, host="nowhere.invalid"))
    assert "agent_redis_url: the name nowhere.invalid does not resolve here" in said


def test_another_protocol_is_told(listening):
    said = refused(check_postgres, database(listening(Redis([])), sslmode="require"))
    assert "is no PostgreSQL" in said
    said = refused(check_redis, cache(listening(Redis([(["AUTH", "app", SECRET], "HTTP/1.1 400 Bad Request")]))))
    assert "is no Redis: it answers AUTH with 'HTTP/1.1 400 Bad Request'" in said


def cache(port, **different):
    words = {"host": "127.0.0.1", "port": port, "database": 0, "user": "app", "password": SECRET, "tls": False}
    return {**words, **different}


AUTH, PING = ["AUTH", "app", SECRET], ["PING"]


def test_a_redis_that_lets_the_service_in(listening, pki):
    context, authority = pki
    check_redis(cache(listening(Redis([(AUTH, "+OK"), (PING, "+PONG")]))), "")
    check_redis(cache(listening(Redis([(PING, "+PONG")])), password=""), "")
    check_redis(cache(listening(Redis([(["AUTH", SECRET], "+OK"), (PING, "+PONG")])), user=""), "")
    third = Redis([(AUTH, "+OK"), (PING, "+PONG"), (["SELECT", "3"], "+OK")])
    check_redis(cache(listening(third), database=3), "")
    check_redis(cache(listening(Redis([(AUTH, "+OK"), (PING, "+PONG")], context)), tls=True), authority)


@pytest.mark.parametrize(
    ("replies", "different", "told"),
    [
        ([(AUTH, "-WRONGPASS invalid username-password pair")], {}, "refuses the password of app"),
        ([(PING, "-NOAUTH Authentication required.")], {"password": ""}, "wants a password"),
        ([(AUTH, "+OK"), (PING, "-NOPERM this user has no permissions")], {}, "app may not PING"),
        ([(AUTH, "+OK"), (PING, "-LOADING the dataset")], {}, "answers PING with: LOADING the dataset"),
    ],
)
def test_what_redis_refuses_is_told(listening, replies, different, told):
    said = refused(check_redis, cache(listening(Redis(replies)), **different))
    assert said.startswith("agent_redis_url: ")
    assert told in said


def test_redis_over_tls_is_verified(listening, pki):
    context, authority = pki
    said = refused(check_redis, cache(listening(Redis([], context)), tls=True))
    assert "is not verified: self-signed certificate. Set agent_redis_ca_file" in said
    said = refused(check_redis, cache(listening(Redis([], context)), tls=True, host="localhost"), authority)
    assert "or correct the name" in said
