import pytest
from ansible_collections.agentfleet.vm.plugins.filter.fleet import fleet_encrypted
from ansible_collections.agentfleet.vm.plugins.module_utils.networks import crosses_public, is_private


@pytest.mark.parametrize(
    "address",
    [
        *("10.0.0.1", "172.16.0.1", "172.31.255.254", "192.168.1.1", "100.64.0.1", "127.0.0.1", "169.254.1.1"),
        *("fd77::11", "fc00::1", "fe80::1", "::1"),
    ],
)
def test_private_addresses(address):
    assert is_private(address)


@pytest.mark.parametrize(
    "address",
    [
        *("8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1", "11.0.0.1", "2001:4860::1", "::"),
        # Private by Python's own word, and used by nobody who says so.
        *("192.0.2.1", "198.51.100.1", "203.0.113.1", "198.18.0.1", "2001:db8::1", "0.0.0.0", "240.0.0.1"),
        *("data1", "data1.internal", ""),
    ],
)
def test_all_others_are_not(address):
    assert not is_private(address)


@pytest.mark.parametrize(
    ("addresses", "crosses"),
    [
        (["10.0.0.1", "10.0.0.2"], False),
        (["10.0.0.1", "fd77::2"], False),
        (["10.0.0.1", "8.8.8.8"], True),
        (["8.8.8.8", "8.8.4.4"], True),
        (["10.0.0.1", "data1.internal"], True),
        # One host that does everything, by however many names.
        (["8.8.8.8"], False),
        (["8.8.8.8", "8.8.8.8"], False),
        ([], False),
    ],
)
def test_one_host_outside_is_enough(addresses, crosses):
    assert crosses_public(addresses) is crosses


def hosts(*addresses, **said):
    return {f"host{number}": {"ansible_host": address, **said} for number, address in enumerate(addresses)}


@pytest.mark.parametrize(
    ("hostvars", "encrypted"),
    [
        (hosts("8.8.8.8", "8.8.4.4"), True),
        (hosts("8.8.8.8", "8.8.4.4", fleet_tls=False), False),
        (hosts("8.8.8.8", "8.8.4.4", fleet_tls="false"), False),
        (hosts("10.0.0.1", "10.0.0.2"), False),
        (hosts("10.0.0.1", "10.0.0.2", fleet_tls=True), True),
        (hosts("10.0.0.1", "10.0.0.2", fleet_tls="yes"), True),
        (hosts("10.0.0.1", "10.0.0.2", fleet_tls=None), False),
        (hosts("10.0.0.1", fleet_tls=True), True),
        # The address inside the fleet is what counts.
        ({"a": {"ansible_host": "8.8.8.8", "fleet_address": "10.0.0.1"}, "b": {"ansible_host": "10.0.0.2"}}, False),
        # Said for a part of the hosts it is said for all: both ends have to agree.
        ({"a": {"ansible_host": "10.0.0.1", "fleet_tls": True}, "b": {"ansible_host": "10.0.0.2"}}, True),
    ],
)
def test_the_variable_wins_over_the_addresses(hostvars, encrypted):
    assert fleet_encrypted(list(hostvars), hostvars) is encrypted
