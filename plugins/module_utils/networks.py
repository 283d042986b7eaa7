"""Whether the hosts of a fleet talk to each other over a network that others share. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

# Python's own is_private counts networks for documentation and tests as well, which say nothing of who listens.
PRIVATE = tuple(
    map(
        ipaddress.ip_network,
        (
            *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16"),
            *("fc00::/7", "fe80::/10", "::1/128"),
        ),
    )
)


def is_private(address: str) -> bool:
    """Whether ADDRESS is of a private network. What a name leads to may change, so a name is not."""
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return False
    return any(number in network for network in PRIVATE if number.version == network.version)


def crosses_public(addresses: Iterable[str]) -> bool:
    """Whether what hosts at these ADDRESSES tell each other crosses a network that is not private."""
    distinct = set(addresses)
    return len(distinct) > 1 and not all(map(is_private, distinct))
