"""What Prometheus reads of the fleet, from where it can be asked, and what outlives its end."""

import json
import os
import subprocess
import time
from pathlib import Path
from urllib.parse import urlencode

import pytest

HOSTS = ("debian12", "debian13")
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=10).read().decode())"
SECONDS = 60


@pytest.fixture(scope="module", autouse=True)
def _stand_ins(machine, address_of):
    """Slot blue runs with both instances, slot green is stopped; the balancer shows its figures."""
    text = Path(__file__).with_name("figures.py").read_text()
    for name in HOSTS:
        host = machine(name)
        host.run_expect([0], f"cat >/usr/local/lib/figures.py <<'EOF'\n{text}\nEOF")
        host.run_expect(
            [0],
            "systemctl is-active -q figures || systemd-run -q --collect --unit=figures"
            f" python3 /usr/local/lib/figures.py {address_of(name)} 8100 8101 8405",
        )


@pytest.fixture
def ask(host):
    """The answer of this host's Prometheus, at the loopback unless another address is given."""

    def call(path, address="127.0.0.1", **words):
        url = f"http://{address}:9090/api/v1/{path}?{urlencode(words)}"
        return json.loads(host.check_output(f"python3 -c '{FETCH}' '{url}'"))["data"]

    return call


@pytest.fixture
def query(ask):
    """Value by instance."""

    def call(words, **more):
        result = ask("query", query=words, **more)["result"]
        return {series["metric"]["instance"]: float(series["value"][1]) for series in result}

    return call


def await_that(condition):
    deadline = time.monotonic() + SECONDS
    while not (seen := condition()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert seen


def test_it_reads_both_slots_of_every_agent_host_and_names_them_as_the_balancer_does(query):
    slots = {
        f"{host}-{slot}-{number}": float(slot == "blue")
        for host in HOSTS
        for slot in ("blue", "green")
        for number in (1, 2)
    }
    await_that(lambda: query('up{job="agent"}') == slots)
    # Whatever the port is, its figure is that of the instance which listens there.
    assert query("stand_in_port")["debian13-blue-2"] == 8101
    assert set(query('up{service="shop", host="debian12", slot="green", number="2"}')) == {"debian12-green-2"}


@pytest.mark.parametrize("job", ["node", "haproxy"])
def test_it_reads_every_host(query, job):
    await_that(lambda: query(f'up{{job="{job}"}}') == dict.fromkeys(HOSTS, 1.0))


def test_it_reads_itself(host, query):
    name = host.backend.get_hostname()
    await_that(lambda: query("prometheus_build_info").get(name) == 1.0)


def test_it_listens_on_the_loopback_and_inside_the_fleet_alone(host, address):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 9090'").splitlines()}
    assert listening == {"127.0.0.1:9090", f"{address}:9090"}


def test_nothing_is_left_of_the_packages_own_targets(query):
    assert "localhost:9090" not in query("up")


def test_another_host_asks_it(query, address_of):
    for name in HOSTS:
        assert query('up{job="prometheus"}', address=address_of(name)) == {name: 1.0}


def test_what_it_keeps_is_limited(ask):
    flags = ask("status/flags")
    assert flags["storage.tsdb.retention.time"] in ("7d", "1w")
    assert flags["storage.tsdb.retention.size"] == "4GiB"


@pytest.mark.parametrize("unit", ["prometheus.service", "agentfleet-prometheus.service"])
def test_its_units_are_sandboxed(host, unit):
    host.check_output(f"systemd-analyze security --no-pager --threshold=20 {unit}")


def test_a_killed_prometheus_comes_back_with_its_figures(host, query):
    """Those of before its end: the oldest sample of the last ten minutes stays the same one."""
    oldest = 'min_over_time(timestamp(up{job="prometheus"})[10m:1s])'
    await_that(lambda: query(oldest))
    before = query(oldest)
    show = "systemctl show -P MainPID prometheus"
    process = host.check_output(show)
    host.check_output("systemctl kill --signal=KILL prometheus")
    ready = f'python3 -c "{FETCH}" http://127.0.0.1:9090/-/ready >/dev/null 2>&1'
    host.check_output(f"timeout 30 sh -c 'until [ $({show}) != {process} ] && {ready}; do sleep 0.2; done'")
    assert query(oldest) == before


def test_both_ways_to_it_come_up_at_boot(host):
    for unit in ("prometheus.service", "agentfleet-prometheus.socket"):
        assert host.service(unit).is_enabled


def test_what_promtool_refuses_is_not_put_in_place(host):
    config = "/etc/prometheus/agentfleet.yml"
    before = host.file(config).content_string
    done = apply(host.backend.get_hostname(), prometheus_agent_scrape_seconds=-1)
    assert "failed to validate" in done.stdout
    assert host.file(config).content_string == before


def apply(host, **variables):
    """The role's configuration again, on HOST with other variables."""
    command = ["ansible", host, "-i", os.environ["MOLECULE_INVENTORY_FILE"], "-m", "ansible.builtin.include_role"]
    command += ["-a", "name=agentfleet.vm.prometheus tasks_from=configure", "-e", json.dumps(variables)]
    return subprocess.run(command, capture_output=True, text=True)
