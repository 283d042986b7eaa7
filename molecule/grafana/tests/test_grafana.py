"""What Grafana is given, what it can be trusted with, and what a fleet does without its repository."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[3]
HOSTS = ("debian12", "debian13")
PASSWORD = "molecule-grafana-0123456789abcdef"
DIRECTORY = "/etc/grafana/agentfleet"
FETCH = "import sys, urllib.request as u; sys.stdout.write(u.urlopen(sys.argv[1], timeout=10).read().decode())"


@pytest.fixture
def seen(host):
    """The configuration as the stand-in read it."""
    return json.loads(host.file("/var/lib/grafana/seen.json").content_string)


def apply(hosts="machines", **variables):
    """The role again with other variables, on both hosts unless one is named."""
    command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", hosts]
    given = {"converge_roles": ["grafana"], **variables}
    command += [str(TOP / "molecule/shared/converge.yml"), "-e", json.dumps(given)]
    return subprocess.run(command, capture_output=True, text=True)


def test_it_listens_inside_the_fleet_alone(host, address):
    listening = {line.split()[3] for line in host.check_output("ss -Hltn 'sport = 3000'").splitlines()}
    assert listening == {f"{address}:3000"}
    answer = json.loads(host.check_output(f"python3 -c '{FETCH}' http://{address}:3000/api/health"))
    assert answer == {"database": "ok", "version": "12.1.0"}


def test_it_reads_our_configuration_and_not_the_packages(host, seen):
    assert seen["paths"]["provisioning"] == f"{DIRECTORY}/provisioning"
    assert seen["security"]["admin_password"] == PASSWORD
    assert seen["auth.anonymous"]["enabled"] == "false"
    assert seen["server"]["root_url"] == "%(protocol)s://%(domain)s/operations/grafana/"
    assert seen["server"]["serve_from_sub_path"] == "false"
    assert seen["security"]["cookie_secure"] == "true"
    assert host.check_output("dpkg --verify grafana | grep -v '^..5......   ' || true") == ""


def test_the_edges_word_counts_and_the_hosts_own_does_not(host, seen, address_of):
    """debian13 is the edge, and monitors as well."""
    if host.backend.get_hostname() == "debian13":
        assert seen["auth.proxy"] == {"enabled": "false"}
    else:
        assert seen["auth.proxy"]["enabled"] == "true"
        assert seen["auth.proxy"]["whitelist"] == address_of("debian13")
        assert seen["auth.proxy"]["header_name"] == "X-WEBAUTH-USER"


def test_data_source_and_dashboards_are_in_place(host, seen):
    provisioning = seen["paths"]["provisioning"]
    sources = yaml.safe_load(host.file(f"{provisioning}/datasources/agentfleet.yml").content_string)["datasources"]
    assert [(source["uid"], source["url"]) for source in sources] == [("agentfleet", "http://127.0.0.1:9090")]
    provider = yaml.safe_load(host.file(f"{provisioning}/dashboards/agentfleet.yml").content_string)["providers"][0]
    ours = {path.name: path.read_text() for path in (TOP / "files/dashboards").glob("*.json")}
    assert len(ours) == 6
    assert set(host.file(provider["options"]["path"]).listdir()) == set(ours)
    for name, text in ours.items():
        assert host.file(f"{provider['options']['path']}/{name}").content_string == text
    assert host.file(seen["dashboards"]["default_home_dashboard_path"]).exists


def test_it_can_read_its_files_and_others_cannot_read_its_secrets(host):
    for path in (f"{DIRECTORY}.password", f"{DIRECTORY}.ini"):
        file = host.file(path)
        assert (file.user, file.group, file.mode) == ("root", "grafana", 0o640)
        assert host.run(f"runuser -u grafana -- cat {path}").rc == 0
        assert host.run(f"runuser -u nobody -- cat {path}").rc != 0
    assert host.run(f"runuser -u grafana -- cat {DIRECTORY}/dashboards/service.json").rc == 0
    assert host.run(f"runuser -u grafana -- touch {DIRECTORY}/dashboards/service.json").rc != 0
    assert PASSWORD not in host.check_output("cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' ' '")
    assert PASSWORD not in host.check_output("systemctl cat grafana-server; systemctl show grafana-server")


def test_its_unit_is_sandboxed_and_comes_up_at_boot(host):
    host.check_output("systemd-analyze security --no-pager --threshold=25 grafana-server.service")
    assert host.service("grafana-server").is_enabled


def test_the_hosts_own_package_lists_do_not_know_the_repository(host):
    assert host.run("grep -r :8088 /etc/apt /var/lib/apt/lists").rc == 1


def test_it_comes_back(host, address):
    show = "systemctl show -P MainPID grafana-server"
    before = host.check_output(show)
    host.check_output("systemctl kill --signal=KILL grafana-server")
    ready = f'python3 -c "{FETCH}" http://{address}:3000/api/health >/dev/null 2>&1'
    host.check_output(f"timeout 30 sh -c 'until [ $({show}) != {before} ] && {ready}; do sleep 0.2; done'")


def refused(done, why):
    """Whether the role told each host that, and changed nothing."""
    return done.returncode != 0 and done.stdout.count(why) >= len(HOSTS) and "changed=1" not in done.stdout


def test_another_key_than_the_named_one_is_refused():
    done = apply(grafana_version="12.2.0", grafana_repository_fingerprint="A" * 40)
    assert refused(done, "find out whether it was replaced, and set its fingerprint"), done.stdout


def test_a_repository_that_somebody_changed_is_refused(machine):
    release = "/srv/repository/dists/stable/InRelease"
    machine("debian12").check_output(f"cp {release} {release}.whole && sed -i s/stand-in/standing/ {release}")
    try:
        done = apply(grafana_version="12.2.0")
    finally:
        machine("debian12").check_output(f"mv {release}.whole {release}")
    assert refused(done, "is not signed by the key that was given"), done.stdout


def test_a_version_that_is_not_there_is_named_with_those_that_are():
    done = apply(grafana_version="11.0.0")
    assert refused(done, "has no grafana 11.0.0; it has 12.2.0, 12.1.0"), done.stdout


def test_a_repository_that_is_away_is_said_in_one_line_and_fails_nothing(machine, address_of):
    away = f"http://{address_of('debian12')}:9"
    done = apply(grafana_version="12.2.0", grafana_repository=away, grafana_repository_key=f"{away}/key.asc")
    assert done.returncode == 0, done.stdout
    said = [line for line in done.stdout.splitlines() if "packages cannot be had" in line]
    assert len(said) == len(HOSTS)
    for name in HOSTS:
        assert any(f"{name}: Grafana stays at 12.1.0" in line and "Connection refused" in line for line in said)
        assert machine(name).service("grafana-server").is_running


def test_another_version_is_installed_when_it_is_wanted_and_nothing_else_changes(machine, address_of):
    files = f"sha256sum {DIRECTORY}.ini {DIRECTORY}/dashboards/*"
    before = {name: machine(name).check_output(files) for name in HOSTS}
    for wanted in ("12.2.0", "12.1.0"):
        done = apply(grafana_version=wanted)
        assert done.returncode == 0, done.stdout
        for name in HOSTS:
            url = f"http://{address_of(name)}:3000/api/health"
            assert json.loads(machine(name).check_output(f"python3 -c '{FETCH}' {url}"))["version"] == wanted
    assert {name: machine(name).check_output(files) for name in HOSTS} == before


def test_a_host_without_it_stays_without_while_the_repository_is_away(machine, address_of):
    host = machine("debian13")
    host.check_output("systemctl disable -q --now grafana-server && dpkg --purge --force-all grafana")
    host.check_output("rm -rf /etc/grafana /etc/systemd/system/grafana-server.service.d")
    away = f"http://{address_of('debian13')}:9"
    done = apply("debian13", grafana_repository=away)
    assert done.returncode == 0, done.stdout
    assert "debian13: no Grafana, since its packages cannot be had" in done.stdout
    assert not host.file("/etc/grafana").exists
    assert apply("debian13", grafana_repository="").returncode == 0
    assert not host.package("grafana").is_installed
    # And comes to it once the repository is there again.
    assert apply("debian13").returncode == 0
    assert host.service("grafana-server").is_running
    text = host.file(f"{DIRECTORY}.password").content
    assert hashlib.sha256(text).digest() == hashlib.sha256(PASSWORD.encode()).digest()
