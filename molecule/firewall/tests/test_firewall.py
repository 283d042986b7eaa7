"""What gets through from outside and from another host, whose rules go, and what an unconfirmed change comes to."""

import json
import os
import socket
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

LISTEN = """
import selectors, socket, sys
waiting = selectors.DefaultSelector()
for port in sys.argv[1:]:
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    waiting.register(listener, selectors.EVENT_READ)
while True:
    for ready, _events in waiting.select():
        ready.fileobj.accept()[0].close()
"""
PORTS = (
    *(80, 443, 5432, 6379, 7000, 8100, 8101, 8102, 8150, 8151, 8500, 8501, 8551),
    *(9090, 9093, 9100, 9113, 9121, 9187, 9999),
)


@pytest.fixture(scope="module", autouse=True)
def _listeners(machine):
    """Something answers on every port of both hosts, so that only the firewall can be in the way."""
    hosts = [machine("debian12"), machine("debian13")]
    for host in hosts:
        host.check_output(
            f"systemd-run --quiet --collect --unit=probe /usr/bin/python3 -c '{LISTEN}' {' '.join(map(str, PORTS))}"
        )
        host.check_output("timeout 20 sh -c 'until ss -Hltn sport = 9999 | grep -q .; do sleep 0.1; done'")
    yield
    for host in hosts:
        host.check_output("systemctl stop probe")


def reached(address, ports):
    """Which ports of ADDRESS the controller gets through to."""

    def connects(port):
        try:
            with socket.create_connection((address, port), timeout=2):
                return True
        except TimeoutError:
            return False

    with ThreadPoolExecutor(len(ports)) as pool:
        return {port for port, connected in zip(ports, pool.map(connects, ports), strict=True) if connected}


def reached_from(host, address):
    """Which ports of ADDRESS another host gets through to."""
    tried = " ".join(f"(timeout 2 bash -c '</dev/tcp/{address}/{port}' 2>/dev/null && echo {port}) &" for port in PORTS)
    return {int(port) for port in host.check_output(f"{tried} wait").split()}


def ansible(host, module, arguments):
    command = ["ansible", host, "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-m", module, "-a", arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(("name", "open_ports"), [("debian12", {22, 9999}), ("debian13", {22, 80, 443, 9999})])
def test_from_outside_only_the_edge_is_open(address_of, name, open_ports):
    assert reached(address_of(name), {22, *PORTS}) == open_ports


def test_the_edge_reaches_both_slots_of_an_agent_and_prometheus(machine, address_of):
    assert reached_from(machine("debian13"), address_of("debian12")) == {8100, 8101, 8150, 8151, 9090, 9093, 9999}


def test_an_agent_reaches_the_database_and_prometheus_a_hosts_figures(machine, address_of):
    assert reached_from(machine("debian12"), address_of("debian13")) == {80, 443, 5432, 9100, 9113, 9187, 9999}


def test_ipv6_is_no_way_around(machine, address_of):
    link = machine("debian12").check_output("ip -6 -json address show dev host0 scope global")
    address = json.loads(link)[0]["addr_info"][0]["local"]
    assert reached(address, {22, 5432, 8100, 9999}) == {22, 9999}


def test_stale_rules_of_ours_go_and_others_stay(machine):
    host = machine("debian12")
    host.check_output("ufw allow 7000/tcp comment 'agentfleet: gone'")
    host.check_output("ufw allow 7001/tcp comment 'agentfleet billing: instances'")
    host.check_output("ufw allow 7002/tcp")
    ansible("debian12", "ansible.builtin.include_role", "name=agentfleet.vm.firewall")
    rules = host.check_output("ufw show added")
    assert "7000" not in rules
    assert "7001" in rules
    assert "7002" in rules
    assert not host.service("agentfleet-firewall-undo.timer").is_running


def test_a_change_that_nobody_confirms_is_put_back(machine, address_of):
    host, address = machine("debian13"), address_of("debian13")
    before = host.check_output("ufw show added")
    rules = [{"name": "ssh", "ports": [22], "sources": ["any"]}, {"name": "new", "ports": [7000], "sources": ["any"]}]
    ansible("debian13", "agentfleet.vm.firewall_rules", json.dumps({"rules": rules, "undo_seconds": 10}))
    assert reached(address, {22, 80, 7000}) == {22, 7000}
    deadline = time.monotonic() + 30
    while host.check_output("ufw show added") != before and time.monotonic() < deadline:
        time.sleep(0.5)
    assert host.check_output("ufw show added") == before
    assert "Status: active" in host.check_output("ufw status")
    assert reached(address, {22, 80, 7000}) == {22, 80}
