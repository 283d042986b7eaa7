"""Whose a network is already."""

from __future__ import annotations

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.lab import holder

SHOWN = """\
1: lo    inet 127.0.0.1/8 scope host lo\\       valid_lft forever preferred_lft forever
4: eth0    inet 192.0.2.2/24 brd 192.0.2.255 scope global eth0\\       valid_lft forever preferred_lft forever
283: af-other    inet 10.78.0.1/24 scope global af-other\\       valid_lft forever preferred_lft forever
"""


@pytest.mark.parametrize(
    ("network", "interface"),
    [("10.78.0.0/24", "af-other"), ("10.0.0.0/8", "af-other"), ("192.0.2.0/25", "eth0"), ("10.79.0.0/24", None)],
)
def test_network_that_an_interface_has_is_somebodys(network: str, interface: str | None) -> None:
    assert holder(network, SHOWN) == interface
