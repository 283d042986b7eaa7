"""From bare hosts to a provisioned fleet, through site.yml."""

from __future__ import annotations

from support.fleet import Fleet, Result

HOSTS = {"edge1", "agent1", "agent2", "data1", "ops1"}


def test_check_on_bare_hosts_does_not_fail_and_reports_changes(provisioning: dict[str, Result]) -> None:
    checked = provisioning["check"].ok()
    assert set(checked.changed()) >= HOSTS
    assert all(checked.changed()[host] > 0 for host in HOSTS)


def test_second_run_changes_nothing(provisioning: dict[str, Result]) -> None:
    again = provisioning["again"].ok()
    assert set(again.changed()) >= HOSTS
    assert {host: count for host, count in again.changed().items() if count} == {}


def test_hosts_of_two_debian_releases_make_one_fleet(lab: Fleet, provisioning: dict[str, Result]) -> None:
    releases = {host: lab.on(host, ". /etc/os-release; echo $VERSION_ID").ok().stdout.strip() for host in HOSTS}
    assert (releases["agent1"], releases["agent2"]) == ("12", "13")


def test_no_unit_failed(lab: Fleet, provisioning: dict[str, Result]) -> None:
    failed = {host: lab.on(host, "systemctl --failed --no-legend --plain").ok().stdout for host in HOSTS}
    assert {host: units for host, units in failed.items() if units.strip()} == {}
