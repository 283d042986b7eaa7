"""Where the exporters listen, what they show, with which rights, and that they stay."""

import re
import sys
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[3]
sys.path.insert(0, str(TOP / "tests"))

from support import promql  # noqa: E402 - the path above finds it

PORTS = {"node": 9100, "nginx": 9113, "redis": 9121, "postgres": 9187}
# What each begins its metrics with.
PREFIXES = {"node_": 9100, "nginx_": 9113, "redis_": 9121, "pg_": 9187}
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1]).read().decode())"


@pytest.fixture
def figures(host, address):
    return lambda port=9100: host.check_output(f"python3 -c '{FETCH}' http://{address}:{port}/metrics")


@pytest.mark.parametrize(("name", "port"), PORTS.items())
def test_it_listens_inside_the_fleet_alone(host, address, name, port):
    listening = {line.split()[3] for line in host.check_output(f"ss -Hltn 'sport = {port}'").splitlines()}
    assert listening == {f"{address}:{port}"}


def test_who_asks_the_site_is_asked_on_the_host_itself_alone(host):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 9115'").splitlines()}
    assert listening == {"127.0.0.1:9115"}


@pytest.mark.parametrize(("figure", "port"), [("nginx_up", 9113), ("redis_up", 9121), ("pg_up", 9187)])
def test_what_it_shows_answers_it(figures, figure, port):
    assert re.search(rf"^{figure}(\{{.*\}})? 1$", figures(port), re.MULTILINE)


def named():
    """Metrics of these exporters that a rule or a dashboard names."""
    files = (TOP / "files/alerts").glob("*.yml")
    rules = [rule for path in files for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
    found = set().union(*(promql.of_rules(rules) | promql.of_dashboards()).values())
    return sorted(metric for metric in found if metric.startswith(tuple(PREFIXES)))


@pytest.mark.parametrize("metric", named())
def test_what_rules_and_panels_name_is_shown(figures, metric):
    port = next(port for prefix, port in PREFIXES.items() if metric.startswith(prefix))
    assert re.search(rf"^{metric}[ {{]", figures(port), re.MULTILINE)


def test_the_role_of_the_exporter_reads_no_table(host):
    host.check_output("runuser -u postgres -- psql -Xq -d agent -c 'CREATE TABLE IF NOT EXISTS secret (words text)'")
    ask = "runuser -u prometheus -- psql -X -A -t -d {} -c '{}'"
    assert host.check_output(ask.format("postgres", "SELECT count(*) > 0 FROM pg_stat_database")) == "t"
    refused = host.run(ask.format("agent", "SELECT * FROM secret"))
    assert re.search("permission denied|no pg_hba.conf entry", refused.stderr)
    attributes = "SELECT rolsuper OR rolcreatedb OR rolcreaterole FROM pg_roles WHERE rolname = current_user"
    assert host.check_output(ask.format("postgres", attributes)) == "f"


def test_no_password_is_in_a_command_line_or_readable_by_all(host):
    password = host.check_output("cat /etc/redis/agentfleet/metrics-password")
    assert len(password) == 48
    assert password not in host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert host.run("runuser -u nobody -- cat /etc/redis/agentfleet/metrics-password").rc != 0


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
