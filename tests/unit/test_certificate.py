"""When a self-signed certificate is made anew, and that clients accept what is made."""

import os
import ssl
from dataclasses import replace

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import (
    DAY,
    Certificate,
    covers,
    plain,
    reason_to_make,
    reason_to_refuse,
)

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


def test_what_an_authority_issued_stays_only_for_a_stand_in():
    issued = replace(GOOD, issuer="R11", expires=NOW - DAY)
    assert reason_to_make(issued, "KEY", NAMES, 30, NOW) == "it is from R11"
    assert reason_to_make(issued, "KEY", ["other"], 30, NOW, stand_in=True) is None
    assert "belong together" in reason_to_make(issued, "OTHER", NAMES, 30, NOW, stand_in=True)
    assert reason_to_make(replace(GOOD, expires=NOW), "KEY", NAMES, 30, NOW, stand_in=True) == "0 days are left"


@pytest.mark.parametrize(
    ("found", "key", "names", "reason"),
    [
        (GOOD, "KEY", NAMES, None),
        (GOOD, "KEY", ["agent.example.com"], None),
        (None, "KEY", NAMES, "tls_certificate_file holds no certificate"),
        (GOOD, None, NAMES, "tls_key_file holds no private key"),
        (GOOD, "OTHER", NAMES, "tls_certificate_file and tls_key_file do not belong together"),
        (replace(GOOD, expires=NOW - 3 * DAY), "KEY", NAMES, "tls_certificate_file ended 3 days ago"),
        (replace(GOOD, begins=NOW + 1), "KEY", NAMES, "tls_certificate_file is not good before 2027-01-15 08:00 UTC"),
        (GOOD, "KEY", [*NAMES, "www.example.com"], "and not for www.example.com of tls_names"),
        (replace(GOOD, names=frozenset({"*.example.com"})), "KEY", ["Agent.example.com"], None),
    ],
)
def test_reasons_to_refuse_a_pair_of_files(found, key, names, reason):
    told = reason_to_refuse(found, key, names, NOW)
    assert told == reason if reason is None else reason in told


@pytest.mark.parametrize(
    ("pattern", "name", "serves"),
    [
        ("*.example.com", "a.example.com", True),
        ("*.example.com", "a.b.example.com", False),
        ("*.example.com", "example.com", False),
        ("*.example.com", ".example.com", False),
        ("a.example.com", "a.example.com", True),
        ("a.example.com", "b.example.com", False),
    ],
)
def test_a_wildcard_serves_one_label(pattern, name, serves):
    assert covers(pattern, name) is serves


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("CN=R11,O=Let's Encrypt,C=US", "Let's Encrypt R11"),
        ("CN=Pebble Intermediate CA 5b", "Pebble Intermediate CA 5b"),
        ("CN=Example\\, Inc. CA,O=Example\\, Inc.", "Example, Inc. Example, Inc. CA"),
        ("OU=somebody", "OU=somebody"),
        ("", "an unknown authority"),
    ],
)
def test_an_issuer_is_told_as_people_know_it(name, told):
    assert plain(name) == told


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
    assert found.issuer == ""
    assert found.expires - found.begins == 90 * DAY
    assert certificates.days_left(path) in (89, 90)
    assert found.public_key == certificates.public_half(key)
    assert key.stat().st_mode & 0o777 == 0o640
    assert path.stat().st_mode & 0o777 == 0o644
    *made, links = sorted(entry.name for entry in path.parent.iterdir() if entry.name not in ("site.crt", "site.key"))
    assert links == "site.pair"
    assert len(made) == 1, "what was there before is gone"


def test_files_of_before_are_swapped_at_once(tmp_path):
    """Wherever it is interrupted, certificate and key belong together: here, before every single link."""
    path, key = tmp_path / "site.crt", tmp_path / "site.key"
    certificates.make(tmp_path / "other.crt", tmp_path / "other.key", ["a"], 90, os.getgid())
    path.write_bytes((tmp_path / "other.crt").read_bytes())
    key.write_bytes((tmp_path / "other.key").read_bytes())
    link, seen = certificates.disk.link, []

    def look(*arguments):
        seen.append(certificates.read(path).public_key == certificates.public_half(key))
        link(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(certificates.disk, "link", look)
        for name in ("b", "c"):
            certificates.make(path, key, [name], 90, os.getgid())
            assert certificates.read(path).names == {name}
    assert seen == [True] * 5
    assert len(list(tmp_path.glob(".site.pair-*"))) == 1, "a key of before stays nowhere"


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
