"""Where Alertmanager listens, what it tells and to whom, and who may read its secrets."""

import json
import time
from pathlib import Path

import pytest

CONFIG = "/etc/prometheus/agentfleet-alertmanager.yml"
TOLD = "/run/molecule-told"
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=10).read().decode())"
SECRETS = ("molecule-mail-secret", "molecule-webhook-secret")


@pytest.fixture(autouse=True)
def _receiver(host):
    text = Path(__file__).with_name("receiver.py").read_text()
    host.run_expect([0], f"cat >/usr/local/lib/receiver.py <<'EOF'\n{text}\nEOF")
    begin = f"systemd-run -q --collect --unit=receiver python3 /usr/local/lib/receiver.py {TOLD}"
    host.run_expect([0], f"systemctl is-active -q receiver || {begin}")


def told(host):
    lines = host.run(f"cat {TOLD}").stdout.splitlines()
    return [json.loads(line) for line in lines]


def await_that(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not (seen := condition()) and time.monotonic() < deadline:
        time.sleep(0.3)
    assert seen


def test_it_listens_on_the_loopback_and_inside_the_fleet_alone(host, address):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 9093'").splitlines()}
    assert listening == {"127.0.0.1:9093", f"{address}:9093"}
    # It looks for no other.
    assert host.check_output("ss -Hltun 'sport = 9094'") == ""


def test_an_alert_is_told_and_so_is_its_end(host):
    name = f"Tried{time.monotonic_ns()}"
    amtool = "amtool --alertmanager.url=http://127.0.0.1:9093 alert add"
    words = f"{amtool} {name} service=agent --annotation=summary='It was tried'"
    host.check_output(f"{words} --end=$(date -u -d '+4 seconds' +%Y-%m-%dT%H:%M:%SZ)")

    def ways(status):
        groups = [group for group in told(host) if group["groupLabels"]["alertname"] == name]
        return [group["alerts"][0]["annotations"]["summary"] for group in groups if group["status"] == status]

    await_that(lambda: ways("firing") == ["It was tried"])
    await_that(lambda: ways("resolved") == ["It was tried"])


def test_its_secrets_are_read_by_root_and_itself_alone(host):
    file = host.file(CONFIG)
    assert (file.user, file.group, file.mode) == ("root", "prometheus", 0o640)
    assert all(secret in file.content_string for secret in SECRETS)
    lists = host.check_output("cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
    assert not any(secret in lists for secret in SECRETS)


def test_it_leads_back_to_where_people_reach_it(host):
    status = json.loads(host.check_output(f'python3 -c "{FETCH}" http://127.0.0.1:9093/api/v2/status'))
    assert status["cluster"]["status"] == "disabled"
    command = host.check_output("tr '\\0' ' ' </proc/$(systemctl show -P MainPID prometheus-alertmanager)/cmdline")
    assert "--web.external-url=https://" in command


def test_its_unit_is_sandboxed(host):
    host.check_output("systemd-analyze security --no-pager --threshold=20 prometheus-alertmanager.service")


def test_it_starts_at_boot_and_comes_back(host):
    assert host.service("prometheus-alertmanager").is_enabled
    show = "systemctl show -P MainPID prometheus-alertmanager"
    before = host.check_output(show)
    host.check_output("systemctl kill --signal=KILL prometheus-alertmanager")
    again = f"[ $({show}) != {before} ] && systemctl --quiet is-active prometheus-alertmanager"
    host.check_output(f"timeout 30 sh -c 'until {again}; do sleep 0.1; done'")
