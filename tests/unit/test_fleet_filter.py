import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.agentfleet.vm.plugins.filter.fleet import (
    fleet_address,
    fleet_addresses,
    fleet_sockets,
    slot_servers,
    socket_address,
)

HOSTVARS = {
    "private": {"fleet_address": "10.0.0.1", "ansible_host": "203.0.113.1"},
    "public": {"ansible_host": "203.0.113.2"},
    "named.example.org": {},
}


@pytest.mark.parametrize(
    ("name", "address"),
    [("private", "10.0.0.1"), ("public", "203.0.113.2"), ("named.example.org", "named.example.org")],
)
def test_the_most_private_address_known_is_taken(name, address):
    assert fleet_address(name, HOSTVARS) == address


def test_addresses_keep_the_order_of_the_names():
    assert fleet_addresses(["public", "private"], HOSTVARS) == ["203.0.113.2", "10.0.0.1"]


def test_an_unknown_host_is_named():
    with pytest.raises(AnsibleFilterError, match="no host agent9"):
        fleet_address("agent9", HOSTVARS)


@pytest.mark.parametrize(
    ("address", "whole"),
    [("10.0.0.1", "10.0.0.1:80"), ("fd77::1", "[fd77::1]:80"), ("agent1.example.org", "agent1.example.org:80")],
)
def test_addresses_with_colons_are_bracketed(address, whole):
    assert socket_address(address, 80) == whole


def test_a_host_listens_where_it_says_and_else_where_all_do():
    hostvars = {"a": {"ansible_host": "fd77::1", "node_port": "9200"}, "b": {"ansible_host": "10.0.0.2"}}
    assert fleet_sockets(["a", "b"], hostvars, "node_port", 9100) == [
        {"host": "a", "address": "[fd77::1]:9200"},
        {"host": "b", "address": "10.0.0.2:9100"},
    ]


def test_every_slot_and_instance_is_a_server_and_hosts_may_differ():
    hostvars = {"a": {"ansible_host": "10.0.0.1", "agent_instances": "2"}, "b": {"agent_port": 9000}}
    assert slot_servers(["a", "b"], hostvars, port=8100, instances=1) == [
        {"name": "a-blue-1", "address": "10.0.0.1:8100", "worker": "10.0.0.1:8500", "host": "a"},
        {"name": "a-blue-2", "address": "10.0.0.1:8101", "worker": "10.0.0.1:8501", "host": "a"},
        {"name": "a-green-1", "address": "10.0.0.1:8150", "worker": "10.0.0.1:8550", "host": "a"},
        {"name": "a-green-2", "address": "10.0.0.1:8151", "worker": "10.0.0.1:8551", "host": "a"},
        {"name": "b-blue-1", "address": "b:9000", "worker": "b:9400", "host": "b"},
        {"name": "b-green-1", "address": "b:9050", "worker": "b:9450", "host": "b"},
    ]
