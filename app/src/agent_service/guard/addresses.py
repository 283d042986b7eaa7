"""The client's address, which proxies tell and clients invent."""

import ipaddress
from collections.abc import Sequence

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The nearest address that is no trusted proxy's, read from the peer backwards."""
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = _parse(peer)
    if address is None:
        return peer
    while hops and _is_trusted(address, trusted):
        before = _parse(hops.pop())
        if before is None:
            break
        address = before
    return str(address)


def counted_as(address: str) -> str:
    """Whose requests are counted together: an IPv6 client has a whole /64 to call from."""
    parsed = _parse(address)
    if isinstance(parsed, ipaddress.IPv6Address):
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address


def _is_trusted(address: _Address, trusted: Sequence[Network]) -> bool:
    return any(address in network for network in trusted)


def _parse(text: str) -> _Address | None:
    try:
        address = ipaddress.ip_address(text.split("%", 1)[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address
