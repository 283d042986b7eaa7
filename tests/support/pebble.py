"""A certificate authority that speaks ACME, Debian's pebble, on an address of this machine that the lab made.

    with pebble("10.78.0.1", tmp_path) as authority:
        authority.names_lead_to("10.78.0.11")
        … tls_mode=certbot tls_mail=… tls_acme_directory=authority.directory tls_acme_ca=authority.ca
        ssl.create_default_context(cafile=authority.root)

It keeps nothing: one that is started anew knows no account of before.
"""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates

TOP = Path(__file__).resolve().parents[2]
PORT, REFUSAL = 14000, 14900
# From the directory's port on, so that two may run side by side.
MANAGEMENT, DNS, DNS_MANAGEMENT = 1000, 2000, 3000


@dataclass(frozen=True)
class Authority:
    """`directory` is what a client is given, verified by `ca`; `root` verifies what it issues."""

    names: str
    directory: str
    ca: Path
    root: Path

    def names_lead_to(self, address: str = "", address6: str = "") -> None:
        """Have every name in the authority's DNS lead there."""
        for family, value in (("ipv4", address), ("ipv6", address6)):
            httpx.post(f"{self.names}/set-default-{family}", json={"ip": value}).raise_for_status()


@contextmanager
def running(log: Path, *command: str, **environment: str) -> Iterator[None]:
    with log.open("w") as output:
        server = subprocess.Popen(command, env={**os.environ, **environment}, stdout=output, stderr=output)
        try:
            yield
        finally:
            server.terminate()
            server.wait()


def own_certificate(address: str, directory: Path) -> tuple[Path, Path]:
    """What a server at ADDRESS shows of itself; kept, so that a client trusts it when it is started again."""
    certificate, key = directory / "authority.crt", directory / "authority.key"
    if not certificate.exists():
        certificates.make(certificate, key, [address], 30, os.getgid())
    return certificate, key


@contextmanager
def pebble(address: str, directory: Path, seconds: int = 90 * 86400, port: int = PORT) -> Iterator[Authority]:
    """The authority on ADDRESS, issuing certificates that are good for SECONDS; keeps its files in DIRECTORY."""
    subprocess.run([str(TOP / "tests/tools/apt-install"), "pebble"], check=True)
    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = own_certificate(address, directory)
    config = {
        "listenAddress": f"{address}:{port}",
        "managementListenAddress": f"{address}:{port + MANAGEMENT}",
        "certificate": str(certificate),
        "privateKey": str(key),
        "httpPort": 80,
        "tlsPort": 443,
        "certificateValidityPeriod": seconds,
    }
    (directory / "pebble.json").write_text(json.dumps({"pebble": config}))
    resolver = [
        "-dns01",
        f"{address}:{port + DNS}",
        "-management",
        f"{address}:{port + DNS_MANAGEMENT}",
        "-defaultIPv6",
        "",
    ]
    closed = ["-http01", "", "-https01", "", "-tlsalpn01", ""]
    quick = {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "0", "PEBBLE_AUTHZREUSE": "0"}
    serve = ["pebble", "-config", str(directory / "pebble.json"), "-dnsserver", f"{address}:{port + DNS}"]
    with ExitStack() as stack:
        stack.enter_context(running(directory / "dns.log", "pebble-challtestsrv", *resolver, *closed))
        stack.enter_context(running(directory / "pebble.log", *serve, **quick))
        retries = httpx.HTTPTransport(verify=ssl.create_default_context(cafile=str(certificate)), retries=8)
        with httpx.Client(transport=retries) as client:
            client.get(f"https://{address}:{port}/dir").raise_for_status()
            root = client.get(f"https://{address}:{port + MANAGEMENT}/roots/0").raise_for_status().text
        (directory / "root.pem").write_text(root)
        names = f"http://{address}:{port + DNS_MANAGEMENT}"
        with httpx.Client(transport=httpx.HTTPTransport(retries=8)) as client:
            client.post(f"{names}/set-default-ipv6", json={"ip": ""}).raise_for_status()
        yield Authority(names, f"https://{address}:{port}/dir", certificate, directory / "root.pem")


@contextmanager
def refusing(address: str, directory: Path, kind: str, detail: str, port: int = REFUSAL) -> Iterator[Authority]:
    """An authority that knows everybody and answers each order with an error of KIND, as RFC 8555 writes it."""
    base = f"https://{address}:{port}"

    class Answer(BaseHTTPRequestHandler):
        def answer(self, status: int, document: Any = None, **headers: str) -> None:
            body = json.dumps(document).encode() if document is not None else b""
            self.send_response(status)
            words = {"Replay-Nonce": "bm9uY2Utb2YtdGhlLXN0dWI", "Content-Length": str(len(body)), **headers}
            for name, value in words.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self) -> None:
            places = {"newNonce": "nonce", "newAccount": "account", "newOrder": "order", "revokeCert": "revoke"}
            found = {name: f"{base}/{path}" for name, path in places.items()}
            self.answer(200, {**found, "keyChange": f"{base}/key"} if self.path == "/dir" else None)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if self.path == "/account":
                self.answer(201, {"status": "valid"}, Location=f"{base}/account/1", Content_Type="application/json")
                return
            problem = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": 429}
            self.answer(429, problem, Retry_After="3600", Content_Type="application/problem+json")

        def log_message(self, *_: Any) -> None:
            return

    directory.mkdir(parents=True, exist_ok=True)
    certificate, key = own_certificate(address, directory)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ThreadingHTTPServer((address, port), Answer)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Authority("", f"{base}/dir", certificate, certificate)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
