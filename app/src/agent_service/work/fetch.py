"""Documents by URL, from named hosts alone, and never from inside: no address that is not public is connected to."""

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

import httpx2

from agent_service.core.problems import Problem
from agent_service.core.settings import Settings

REDIRECTS = 3

# Of which IPv6 addresses hold an IPv4 address that is connected to in the end.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NAT64_LOCAL = ipaddress.ip_network("64:ff9b:1::/48")
_COMPATIBLE = ipaddress.ip_network("::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Fetched:
    content: bytes
    media_type: str


@dataclass(frozen=True, slots=True)
class _Target:
    scheme: str
    host: str
    port: int
    # Path and query, as they are asked for.
    path: str


def is_public(address: Address) -> bool:
    """Whether an address is of the internet at large: not private, loopback, link-local, metadata or a way to these."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo or (None, None))[1]
        if inner is None and (address in _NAT64 or address in _COMPATIBLE):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if address in _NAT64_LOCAL or (inner is not None and not is_public(inner)):
            return False
        # Of what is mapped, only the inner address is used.
        if address.ipv4_mapped or address in _NAT64:
            return True
    return address.is_global and not (address.is_multicast or address.is_reserved or address.is_unspecified)


class Fetcher:
    def __init__(self, settings: Settings, allowed: Callable[[Address], bool] = is_public) -> None:
        self._hosts = frozenset(name.lower() for name in settings.analyze_url_hosts)
        self._schemes = ("https", "http") if settings.analyze_url_http else ("https",)
        self._seconds = settings.analyze_url_seconds
        self._limit = settings.analyze_max_bytes
        self._allowed = allowed

    def check(self, url: str) -> _Target:
        """Where the URL leads, if that is allowed; a Problem otherwise. Asks nobody."""
        if not self._hosts:
            raise _refused("This service fetches no URLs (AGENT_ANALYZE_URL_HOSTS is empty).")
        try:
            parts = urlsplit(url)
            host, port = (parts.hostname or "").rstrip("."), parts.port
        except ValueError:
            raise _refused("The URL cannot be read.") from None
        if parts.scheme not in self._schemes:
            raise _refused(f"The URL must begin with {' or '.join(self._schemes)}.")
        if (
            not url.isascii()
            or any(character.isspace() or character == "\\" for character in url)
            or "@" in parts.netloc
        ):
            raise _refused("The URL may have neither a user, nor spaces, backslashes or characters outside ASCII.")
        usual = 443 if parts.scheme == "https" else 80
        port = usual if port is None else port
        if f"{host}:{port}" not in self._hosts and not (port == usual and host in self._hosts):
            raise _refused("Documents are not fetched from this host (AGENT_ANALYZE_URL_HOSTS).")
        return _Target(parts.scheme, host, port, (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))

    async def fetch(self, url: str) -> Fetched:
        try:
            async with asyncio.timeout(self._seconds):
                return await self._follow(url)
        except TimeoutError:
            raise Problem(504, "url-timeout", "The URL's host did not answer in time.") from None
        except httpx2.HTTPError as error:
            raise Problem(502, "url-unreachable", "The connection to the URL's host failed.") from error

    async def _follow(self, url: str) -> Fetched:
        for _ in range(REDIRECTS + 1):
            target = self.check(url)
            answer = await self._get(target, await self._resolve(target))
            if isinstance(answer, Fetched):
                return answer
            url = urljoin(url, answer)
        raise _refused("The URL redirects too often.")

    async def _resolve(self, target: _Target) -> Address:
        """One address, after a look at all: a name that has one inside is not to be trusted with the others."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise Problem(502, "url-unreachable", "The URL's host has no address.") from error
        addresses = [ipaddress.ip_address(str(address[0]).partition("%")[0]) for *_, address in found]
        if not addresses or not all(self._allowed(address) for address in addresses):
            raise _refused("The URL's host is not on the public internet.")
        return addresses[0]

    async def _get(self, target: _Target, address: Address) -> Fetched | str:
        """The document, or where it says to go; from the address that was looked at, whatever the name says by now."""
        literal = f"[{address}]" if address.version == 6 else str(address)
        async with (
            # By no proxy: that one would look the name up itself.
            httpx2.AsyncClient(
                trust_env=False,
                follow_redirects=False,
                timeout=self._seconds,
                # The certificate has to be the name's, whatever address is connected to.
                verify=ssl.create_default_context(),
            ) as client,
            client.stream(
                "GET",
                f"{target.scheme}://{literal}:{target.port}{target.path}",
                headers={
                    "Host": target.host if target.port in (80, 443) else f"{target.host}:{target.port}",
                    # Compressed, a small answer might become a large one.
                    "Accept-Encoding": "identity",
                    "User-Agent": "agent-service",
                },
                extensions={"sni_hostname": target.host},
            ) as response,
        ):
            if response.is_redirect:
                return response.headers["location"]
            if not response.is_success:
                raise Problem(502, "url-failed", f"The URL's host answered {response.status_code}.")
            if response.headers.get("content-encoding", "identity") != "identity":
                raise Problem(502, "url-failed", "The URL's host compressed the document, unasked.")
            content = bytearray()
            async for piece in response.aiter_raw():
                content += piece
                if len(content) > self._limit:
                    raise Problem(422, "document-too-large", f"A document may have {self._limit} bytes.")
            return Fetched(bytes(content), response.headers.get("content-type", ""))


def _refused(detail: str) -> Problem:
    return Problem(422, "url-refused", detail)
