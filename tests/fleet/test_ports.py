"""What answers somebody who is not of the fleet: this machine, whose address no rule names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from support.fleet import Fleet
from support.ports import answers

HOSTS = ("edge1", "agent1", "agent2", "data1", "ops1")
PUBLIC = {"edge1": {22, 80, 443}}
# What shows figures and what tells of them, of which nobody outside shall have any.
MONITORING = {
    "edge1": {8405, 9100, 9113},
    "agent1": {8100, 8150, 8500, 8550, 9100},
    "agent2": {8100, 8150, 8500, 8550, 9100},
    "data1": {9100, 9121, 9187},
    "ops1": {9090, 9093, 9100},
}
# One slot's are enough: the other may be stopped.
SLOTS = ({8100, 8500}, {8150, 8550})


def listening(fleet: Fleet, host: str) -> set[int]:
    """Ports on which something on the host waits for whoever gets through."""
    lines = fleet.on(host, "ss -Hltn").ok().stdout.splitlines()
    places = [line.split()[3].rpartition(":") for line in lines]
    return {int(port) for address, _, port in places if address not in ("127.0.0.1", "[::1]", "127.0.0.53%lo")}


def test_from_outside_only_what_is_public_answers_on_either_protocol(fleet: Fleet) -> None:
    network6 = f"fd{fleet.network.split('.')[1]}::"
    for host in HOSTS:
        heard = listening(fleet, host)
        expected = MONITORING[host]
        missing = expected - heard
        assert not missing or missing in SLOTS, (host, missing)
        ports = sorted(heard | expected | {22, 80, 443})
        assert len(ports) > len(PUBLIC.get(host, {22})), "nothing listens that the firewall could have kept"
        for address in (fleet.address(host), f"{network6}{fleet.address(host).rpartition('.')[2]}"):
            with ThreadPoolExecutor(len(ports)) as pool:
                there = pool.map(answers, [address] * len(ports), ports)
                open_ports = {port for port, answered in zip(ports, there, strict=True) if answered}
            assert open_ports == PUBLIC.get(host, {22}), (host, address)
