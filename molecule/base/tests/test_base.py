"""Who logs in and how, what is trusted, what is upgraded unattended, and what a container is spared."""

import os
import subprocess

import pytest

LOGIN = ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", "-o", "ControlPath=none"]


@pytest.fixture
def login(address):
    """SSH from the controller, with a new connection each time."""
    credentials = f"{os.environ['MOLECULE_EPHEMERAL_DIRECTORY']}/credentials"
    known = f"UserKnownHostsFile={credentials}/known_hosts_{os.environ.get('LAB_NAME', 'molecule')}"

    def call(user, command, *options):
        words = ["ssh", *LOGIN, "-o", known, "-i", f"{credentials}/ssh_key", *options, f"{user}@{address}", command]
        return subprocess.run(words, capture_output=True, text=True)

    return call


@pytest.mark.parametrize("user", ["root", "ops"])
def test_only_a_key_opens_a_login(login, user):
    refused = login(user, "true", "-o", "PreferredAuthentications=none")
    assert "Permission denied (publickey)" in refused.stderr
    assert login(user, "true").returncode == 0


def test_sshd_has_taken_the_settings(host):
    settings = host.check_output("sshd -T").splitlines()
    assert {
        "permitrootlogin without-password",
        "passwordauthentication no",
        "kbdinteractiveauthentication no",
        "x11forwarding no",
        "clientaliveinterval 60",
    } <= set(settings)


def test_root_is_for_those_who_may(login):
    assert login("ops", "sudo -n id -u").stdout.strip() == "0"
    assert login("guest", "sudo -n id -u").returncode != 0


def test_the_companys_authority_is_trusted(host):
    host.check_output("openssl verify -no-CAfile -CApath /etc/ssl/certs /usr/local/share/ca-certificates/authority.crt")


def test_the_journal_is_kept_and_limited(host):
    host.check_output("journalctl --flush && systemctl restart systemd-journald")
    said = host.check_output("journalctl --no-pager --unit=systemd-journald | grep /var/log/journal | tail -n 1")
    assert "max 64.0M" in said or "max 64M" in said


def test_the_clock_shows_the_zone(host):
    assert host.check_output("date +%z") == "-0300"
    assert host.check_output("cat /etc/timezone") == "America/Sao_Paulo"


def test_security_upgrades_come_unattended_and_nothing_else(host):
    said = host.check_output("unattended-upgrade --dry-run --debug 2>&1")
    origins = [line for line in said.splitlines() if line.startswith("Allowed origins are:")]
    release = host.check_output(". /etc/os-release; echo $VERSION_CODENAME")
    assert origins == [f"Allowed origins are: origin=Debian,codename={release}-security,label=Debian-Security"]
    assert "postgresql-" in host.check_output("apt-config dump Unattended-Upgrade::Package-Blacklist")
    assert host.service("apt-daily-upgrade.timer").is_running
    assert host.service("apt-daily-upgrade.timer").is_enabled


def test_a_container_is_spared_what_its_host_has_to_do(host):
    assert host.service("systemd-timesyncd").is_enabled
    assert not host.file("/etc/sysctl.d/60-agentfleet.conf").exists
    assert host.check_output("systemctl is-system-running") == "running"
