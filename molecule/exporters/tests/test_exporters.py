"""Where the node exporter listens, what it shows, and that it stays."""

import pytest


@pytest.fixture
def figures(host, address):
    fetch = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())"
    return lambda: host.check_output(f"python3 -c '{fetch}' http://{address}:9100/metrics")


def test_it_listens_inside_the_fleet_alone(host, address):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 9100'").splitlines()}
    assert listening == {f"{address}:9100"}


def test_it_shows_the_host(figures):
    shown = figures()
    for name in ("node_memory_MemAvailable_bytes", "node_cpu_seconds_total", "node_filesystem_avail_bytes"):
        assert f"\n{name}" in shown


def test_further_options_count_as_they_are_written(host, figures):
    shown = figures()
    assert 'node_network_receive_bytes_total{device="host0"}' in shown
    assert 'node_network_receive_bytes_total{device="lo"}' not in shown
    command = host.check_output("tr '\\0' ' ' </proc/$(systemctl show -P MainPID prometheus-node-exporter)/cmdline")
    assert "--collector.netdev.device-exclude=^(lo|veth%.*)$" in command


def test_it_shows_what_root_writes_into_the_textfile_directory(host, figures):
    directory = "/var/lib/prometheus/node-exporter"
    host.check_output(f"cd {directory} && echo 'molecule_wrote_this 42' >.new && mv .new molecule.prom")
    assert "\nmolecule_wrote_this 42\n" in figures()
    assert host.run(f"runuser -u nobody -- touch {directory}/other.prom").rc != 0


def test_it_starts_at_boot_and_comes_back(host):
    assert host.service("prometheus-node-exporter").is_enabled
    show = "systemctl show -P MainPID prometheus-node-exporter"
    before = host.check_output(show)
    host.check_output("systemctl kill --signal=KILL prometheus-node-exporter")
    again = f"[ $({show}) != {before} ] && systemctl --quiet is-active prometheus-node-exporter"
    host.check_output(f"timeout 20 sh -c 'until {again}; do sleep 0.1; done'")
    assert host.check_output("dpkg --verify prometheus-node-exporter") == ""
