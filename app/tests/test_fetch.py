"""Documents by URL: what is fetched, and what is never connected to."""

import asyncio
import ipaddress
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from service import KEY

from agent_service.core.problems import Problem
from agent_service.core.settings import Settings
from agent_service.work.fetch import Fetched, Fetcher, is_public

INSIDE = [
    "127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254", "0.0.0.0",
    "100.64.0.1", "192.0.2.1", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1", "fe80::1",
    "fc00::1", "fd00:ec2::254", "ff02::1", "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
    "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a00:1::", "::127.0.0.1",
    "::10.0.0.1", "2001:db8::1", "2001:0:4136:e378:8000:63bf:80ff:fffe",
]  # fmt: skip
OUTSIDE = ["1.1.1.1", "8.8.8.8", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]

BLOCKED = [
    ipaddress.ip_network(name)
    for name in ("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12",
                 "192.168.0.0/16", "224.0.0.0/3")
]  # fmt: skip


@pytest.mark.parametrize("address", INSIDE)
def test_inside(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", OUTSIDE)
def test_outside(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@given(st.sampled_from(BLOCKED).flatmap(lambda net: st.integers(int(net[0]), int(net[-1]))))
def test_no_way_around_a_blocked_network(number: int) -> None:
    inner = ipaddress.IPv4Address(number)
    forms = [inner, *(ipaddress.IPv6Address(base | int(inner)) for base in (0xFFFF << 32, 0x64FF9B << 96, 0))]
    forms.append(ipaddress.IPv6Address(0x2002 << 112 | int(inner) << 80))
    assert not any(is_public(form) for form in forms)


def fetcher(hosts: str, public: bool = False, **changes: Any) -> Fetcher:
    settings = Settings(
        _env_file=None, api_key=KEY, analyze_url_hosts=hosts, analyze_url_seconds=2, analyze_max_bytes=5000, **changes
    )
    return Fetcher(settings, (lambda address: True) if public else is_public)


def refused(found: Fetcher, url: str) -> str:
    with pytest.raises(Problem) as caught:
        asyncio.run(found.fetch(url))
    return caught.value.code


@pytest.mark.parametrize(
    "url",
    ["http://docs.test/a", "ftp://docs.test/a", "file:///etc/passwd", "//docs.test/a", "docs.test/a", "https:///a",
     "https://other.test/a", "https://docs.test.evil.test/a", "https://docs.test:8443/a", "https://a@docs.test/a",
     "https://docs.test@evil.test/a", "https://evil.test\\@docs.test/a", "https://docs.test /a", "https://docs.test:99999/",
     "https://[::1]/a", "https://[::1", "https://127.0.0.1/a", "https://dócs.test/a", "https://docs.test/\n"],
)  # fmt: skip
def test_urls_that_are_refused_unasked(url: str) -> None:
    with pytest.raises(Problem) as caught:
        fetcher("docs.test").check(url)
    assert caught.value.code == "url-refused"


def test_urls_are_refused_where_no_host_is_named() -> None:
    assert refused(fetcher(""), "https://docs.test/a") == "url-refused"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:7f00:1]"]
)
def test_an_allowed_name_that_leads_inside_is_refused(host: str) -> None:
    bare = host.strip("[]")
    code = refused(fetcher(bare, analyze_url_http=True), f"http://{host}/a")
    assert code in ("url-refused", "url-unreachable")


class Site:
    def __init__(self) -> None:
        self.hosts: list[str] = []
        self.connections = 0
        site = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                site.hosts.append(self.headers["Host"])
                kind, _, rest = self.path[1:].partition("/")
                body = b"x" * int(rest) if kind == "size" else b"a,b\n1,2\n"
                self.send_response(302 if kind == "to" else 404 if kind == "missing" else 200)
                if kind == "to":
                    self.send_header("Location", rest)
                if kind == "packed":
                    self.send_header("Content-Encoding", "gzip")
                self.send_header("Content-Type", "text/csv")
                self.end_headers()
                if kind == "slow":
                    threading.Event().wait(5)
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def web() -> Iterator[Site]:
    site = Site()
    yield site
    site.server.shutdown()
    site.server.server_close()


@pytest.fixture
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Any name is this machine's, and every look-up is noted."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(str(host))
        return real("127.0.0.1" if str(host).endswith(".test") else host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


def test_a_document_is_fetched_from_the_address_that_was_looked_at(web: Site, resolved: list[str]) -> None:
    found = fetcher(f"docs.test:{web.port}", public=True, analyze_url_http=True)
    fetched = asyncio.run(found.fetch(f"http://docs.test:{web.port}/report?year=2025"))
    assert fetched == Fetched(b"a,b\n1,2\n", "text/csv")
    assert web.hosts == [f"docs.test:{web.port}"]
    # By name once: a second look-up could be answered otherwise.
    assert resolved.count("docs.test") == 1


def test_a_name_that_leads_inside_is_never_connected_to(web: Site, resolved: list[str]) -> None:
    found = fetcher(f"docs.test:{web.port}", analyze_url_http=True)
    assert refused(found, f"http://docs.test:{web.port}/report") == "url-refused"
    assert web.hosts == []


def test_redirects_are_looked_at_as_the_first_was(web: Site, resolved: list[str]) -> None:
    found = fetcher(f"docs.test:{web.port}", public=True, analyze_url_http=True)
    url = f"http://docs.test:{web.port}"
    assert asyncio.run(found.fetch(f"{url}/to//report")).media_type == "text/csv"
    for target in ("http://evil.test/", "http://169.254.169.254/latest", "file:///etc/passwd", "//evil.test/x"):
        assert refused(found, f"{url}/to/{target}") == "url-refused"
    assert refused(found, f"{url}/to/{url}/to/{url}/to/{url}/to/{url}/to/{url}/report") == "url-refused"
    assert all(host == f"docs.test:{web.port}" for host in web.hosts)


def test_size_time_status_and_compression_are_bounded(web: Site, resolved: list[str]) -> None:
    found = fetcher(f"docs.test:{web.port}", public=True, analyze_url_http=True)
    url = f"http://docs.test:{web.port}"
    assert len(asyncio.run(found.fetch(f"{url}/size/5000")).content) == 5000
    assert refused(found, f"{url}/size/5001") == "document-too-large"
    assert refused(found, f"{url}/slow") == "url-timeout"
    assert refused(found, f"{url}/missing") == "url-failed"
    assert refused(found, f"{url}/packed") == "url-failed"
    web.server.shutdown()
    web.server.server_close()
    assert refused(found, f"{url}/report") == "url-unreachable"


def certificate(directory: Path, name: str) -> None:
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}", "-keyout", directory / "key.pem",
         "-out", directory / "certificate.pem"],
        check=True, capture_output=True,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "code"), [("docs.test", None), ("other.test", "url-unreachable")])
def test_the_certificate_has_to_be_the_names(
    web: Site, resolved: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, code: str | None
) -> None:
    certificate(tmp_path, name)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "certificate.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "certificate.pem", tmp_path / "key.pem")
    web.server.socket = context.wrap_socket(web.server.socket, server_side=True)
    found = fetcher(f"docs.test:{web.port}", public=True)
    url = f"https://docs.test:{web.port}/report"
    if code:
        assert refused(found, url) == code
    else:
        assert asyncio.run(found.fetch(url)).content == b"a,b\n1,2\n"
