"""A certificate that clients on the controller can verify, and the key that nobody else reads."""

import subprocess
from pathlib import Path

import pytest

DIRECTORY = "/etc/agentfleet/tls"


def test_the_key_is_roots_and_its_groups(host):
    assert host.check_output(f"stat -L -c '%U %G %a' {DIRECTORY}/agent.key") == "root ssl-cert 640"
    assert host.run(f"sudo -u nobody cat {DIRECTORY}/agent.key").rc != 0
    assert host.check_output(f"stat -L -c %a {DIRECTORY}/agent.crt") == "644"


def test_certificate_and_key_belong_together(host):
    certificate = host.check_output(f"openssl x509 -in {DIRECTORY}/agent.crt -noout -pubkey")
    assert certificate == host.check_output(f"openssl pkey -in {DIRECTORY}/agent.key -pubout")


def test_it_is_good_for_the_name_and_almost_a_year(host):
    assert "DNS:agent.lab.test" in host.check_output(
        f"openssl x509 -in {DIRECTORY}/agent.crt -noout -ext subjectAltName"
    )
    host.run_expect([0], f"openssl x509 -in {DIRECTORY}/agent.crt -noout -checkend {364 * 86400}")
    host.run_expect([1], f"openssl x509 -in {DIRECTORY}/agent.crt -noout -checkend {366 * 86400}")


def test_the_controller_has_the_first_edges_certificate_and_no_key(host):
    if host.backend.get_hostname() != "debian12":
        pytest.skip("the first edge's is the one that is copied")
    import os

    credentials = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"]) / "inventory" / "credentials"
    text = (credentials / "molecule-agent.crt").read_text()
    assert text == host.file(f"{DIRECTORY}/agent.crt").content_string
    assert "PRIVATE" not in text
    assert not list(credentials.glob("*.key"))
    told = subprocess.run(["openssl", "x509", "-noout", "-subject"], input=text, capture_output=True, text=True)
    assert "agent.lab.test" in told.stdout
