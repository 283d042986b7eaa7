"""When a self-signed certificate is made anew, and that clients accept what is made."""

import os
import ssl

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import DAY, Certificate, reason_to_make

NOW = 1_800_000_000.0
GOOD = Certificate(frozenset({"agent.example.com", "10.0.0.1"}), NOW + 100 * DAY, "KEY")
NAMES = ["Agent.Example.com", "10.0.0.1"]


@pytest.mark.parametrize(
    ("found", "key", "names", "days", "reason"),
    [
        (GOOD, "KEY", NAMES, 30, None),
        (GOOD, "KEY", NAMES, 100, None),
        (GOOD, "KEY", NAMES, 101, "100 days are left"),
        (None, "KEY", NAMES, 30, "there is none"),
        (GOOD, None, NAMES, 30, "do not belong together"),
        (GOOD, "OTHER", NAMES, 30, "do not belong together"),
        (GOOD, "KEY", ["agent.example.com"], 30, "names 10.0.0.1, agent.example.com instead of agent.example.com"),
    ],
)
def test_reasons_to_make_a_certificate(found, key, names, days, reason):
    told = reason_to_make(found, key, names, days, NOW)
    assert told == reason if reason is None else reason in told


def test_an_expired_certificate_has_negative_days():
    assert Certificate(frozenset(), NOW - 10 * DAY, "").days_left(NOW) == -10


@pytest.fixture
def site(tmp_path):
    path, key = tmp_path / "site.crt", tmp_path / "site.key"
    certificates.make(path, key, ["agent.lab.test", "10.0.0.1", "fd77::1"], 90, os.getgid())
    return path, key


def test_what_is_made_reads_back(site):
    path, key = site
    found = certificates.read(path)
    assert found.names == {"agent.lab.test", "10.0.0.1", "fd77::1"}
    assert certificates.days_left(path) in (89, 90)
    assert found.public_key == certificates.public_half(key)
    assert key.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_mode & 0o777 == 0o644
    assert sorted(entry.name for entry in path.parent.iterdir()) == ["site.crt", "site.key"]


def test_what_cannot_be_read_counts_as_none(tmp_path):
    (tmp_path / "cut.crt").write_text("-----BEGIN CERTIFICATE-----\nMIIB")
    assert certificates.read(tmp_path / "cut.crt") is None
    assert certificates.read(tmp_path / "absent.crt") is None
    assert certificates.public_half(tmp_path / "absent.key") is None


def test_it_signs_nothing_but_itself(site):
    said = certificates.openssl(
        "x509", "-in", str(site[0]), "-noout", "-ext", "basicConstraints,keyUsage,extendedKeyUsage"
    )
    assert "CA:FALSE" in said
    assert "Digital Signature" in said
    assert "TLS Web Server Authentication" in said


def handshake(site, name):
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(*site)
    client = ssl.create_default_context(cafile=str(site[0]))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    ends = [ssl.MemoryBIO() for _ in range(2)]
    sockets = [
        client.wrap_bio(ends[0], ends[1], server_hostname=name),
        server.wrap_bio(ends[1], ends[0], server_side=True),
    ]
    for end in sockets * 3:
        try:
            end.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return sockets[0].version()


def test_a_strict_client_that_trusts_the_certificate_accepts_its_names_alone(site):
    assert handshake(site, "agent.lab.test") == "TLSv1.3"
    assert handshake(site, "10.0.0.1") == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
        handshake(site, "other.lab.test")
