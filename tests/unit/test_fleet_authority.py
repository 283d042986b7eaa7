"""When a host gets another certificate of the fleet's authority, and that clients who know the authority accept it."""

import socket
import ssl
import threading
from dataclasses import replace

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.fleet import fleet_requests
from ansible_collections.agentfleet.vm.plugins.module_utils import fleet_authority as authorities
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import (
    DAY,
    Certificate,
    CertificateError,
    describe,
    openssl,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.fleet_authority import (
    CERTIFICATE_DAYS,
    RENEW_DAYS,
    Authority,
    Pair,
    host_pair,
    new_key,
    parse_pair,
    reason_to_issue,
    request,
    requested_key,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError
from ansible_collections.agentfleet.vm.plugins.modules import fleet_authority as signing
from ansible_collections.agentfleet.vm.plugins.modules import fleet_certificate as hosting

NOW = 1_800_000_000.0
NAMES = ["198.51.100.31", "data1"]
GOOD = Certificate(frozenset(NAMES), NOW + CERTIFICATE_DAYS * DAY, "KEY", issuer="Agentfleet shop hosts")


@pytest.mark.parametrize(
    ("found", "key", "names", "ours", "reason"),
    [
        (GOOD, "KEY", NAMES, True, None),
        (replace(GOOD, expires=NOW + RENEW_DAYS * DAY), "KEY", NAMES, True, None),
        (replace(GOOD, expires=NOW + RENEW_DAYS * DAY - 1), "KEY", NAMES, True, "364 days are left"),
        (None, "KEY", NAMES, True, "there is none"),
        (GOOD, "OTHER", NAMES, True, "it is of another key"),
        (GOOD, None, NAMES, True, "it is of another key"),
        (GOOD, "KEY", NAMES, False, "the fleet has another authority"),
        (GOOD, "KEY", ["203.0.113.9", "data1"], True, "it names 198.51.100.31, data1 instead of 203.0.113.9, data1"),
    ],
)
def test_reasons_to_issue_another(found, key, names, ours, reason):
    assert reason_to_issue(found, key, names, ours, NOW) == reason


def test_a_pair_is_read_as_it_was_written():
    key = "-----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY-----\n"
    certificate = "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
    for pair in (Pair(key, certificate), Pair(key), Pair()):
        assert parse_pair(pair.text()) == pair


@pytest.fixture
def host(tmp_path):
    """A host's own files, and the first edge's directory."""
    own = tmp_path / "host"
    own.mkdir()
    return own / "fleet/host.pem", own / "agentfleet-fleet.pem"


@pytest.fixture
def authority(tmp_path):
    return Authority(tmp_path / "edge/fleet", "shop")


@pytest.fixture(autouse=True)
def owners(monkeypatch):
    """Tests need not be root, nor may they touch this machine's services."""
    monkeypatch.setattr(hosting.certificates, "own", lambda *_: False)
    followed = []
    monkeypatch.setattr(hosting, "show", lambda: followed.append("show"))
    monkeypatch.setattr(hosting, "verify", lambda: followed.append("verify"))
    return followed


def site(host, authority, names=NAMES, check=False):
    """The tasks of one run on one host; whether each changed something, and why a certificate was issued."""
    asked = hosting.ask(*host, check)
    said = {part: asked[part] for part in ("request", "certificate", "authority")}
    signed = signing.run(authority, [{"host": "data1", "names": names, **said}], check)
    put = {"changed": False}
    if "data1" in signed["issued"]:
        put = hosting.put(*host, signed["issued"]["data1"], check)
    changed = (asked["changed"], signed["changed"], put["changed"])
    return changed, signed["issued"].get("data1", {}).get("reason")


def test_the_first_run_issues_and_the_second_changes_nothing(host, authority, owners):
    assert site(host, authority, check=True) == ((True, True, True), "the fleet has a new authority")
    assert not host[0].exists()
    assert site(host, authority) == ((True, True, True), "there is none")
    assert host[0].stat().st_mode & 0o777 == 0o600
    assert authority.key.stat().st_mode & 0o777 == 0o600
    assert host[1].read_text() == authority.text()
    before = host[0].read_text()
    assert site(host, authority) == ((False, False, False), None)
    assert site(host, authority, check=True) == ((False, False, False), None)
    assert host[0].read_text() == before
    # Nothing ran by another authority before.
    assert owners == []


def test_other_names_are_another_certificate_for_the_same_key(host, authority):
    site(host, authority)
    key = host_pair(host[0]).key
    _, reason = site(host, authority, names=["203.0.113.9", "data1"])
    assert reason == "it names 198.51.100.31, data1 instead of 203.0.113.9, data1"
    assert host_pair(host[0]).key == key
    assert describe(host_pair(host[0]).certificate).names == {"203.0.113.9", "data1"}


def test_a_lost_edge_is_a_new_authority_that_what_runs_follows(host, authority, owners):
    site(host, authority)
    authority.key.unlink()
    assert site(host, authority) == ((False, True, True), "the fleet has another authority")
    assert authority.issued(host_pair(host[0]).certificate)
    assert host[1].read_text() == authority.text()
    assert owners == ["show", "verify"]


def test_what_sends_the_log_shows_each_new_certificate_where_it_is_there(host, authority, tmp_path, monkeypatch):
    restarted = []
    monkeypatch.setattr(hosting, "UNITS", tmp_path)
    monkeypatch.setattr(hosting.systemd, "systemctl", lambda *words: restarted.append(words))
    site(host, authority)
    assert restarted == []
    (tmp_path / "agentfleet-logs.service").touch()
    site(host, authority, names=["203.0.113.9", "data1"])
    site(host, authority, names=["203.0.113.9", "data1"])
    assert restarted == [("try-restart", "--no-block", "agentfleet-logs.service")]


def test_what_could_not_follow_follows_in_the_next_run(host, authority, owners, monkeypatch):
    site(host, authority)
    authority.key.unlink()

    def fail():
        raise CommandError("systemctl try-restart: Interrupted")

    with monkeypatch.context() as failing:
        failing.setattr(hosting, "show", fail)
        with pytest.raises(CommandError):
            site(host, authority)
    assert owners == []
    assert site(host, authority) == ((False, False, True), "the authority's own was not there")
    assert owners == ["show", "verify"]


def test_a_host_that_lost_the_authoritys_certificate_gets_it_again(host, authority):
    site(host, authority)
    pair = host[0].read_text()
    host[1].unlink()
    assert site(host, authority) == ((False, False, True), "the authority's own was not there")
    assert host[0].read_text() == pair


def test_a_damaged_key_is_replaced(host, authority):
    site(host, authority)
    host[0].write_text("-----BEGIN PRIVATE KEY-----\nno\n-----END PRIVATE KEY-----\n")
    assert site(host, authority) == ((True, False, True), "there is none")


def test_the_names_are_the_inventorys_and_a_request_without_its_key_is_refused(authority):
    authority.directory.mkdir(parents=True)
    authority.make()
    asked = request(new_key())
    found = describe(authority.sign(asked, "data1", NAMES))
    assert found.names == set(NAMES)
    assert found.public_key == requested_key(asked)
    forged = asked.replace(asked.splitlines()[2], asked.splitlines()[2][::-1])
    with pytest.raises(CertificateError, match="data1 asks"):
        authority.sign(forged, "data1", NAMES)


def test_a_key_is_known_whatever_else_openssl_says(monkeypatch):
    asked = request(new_key())
    known = requested_key(asked)

    def talkative(*words, **given):
        return f"Certificate request self-signature verify OK\n{openssl(*words, **given)}"

    monkeypatch.setattr(authorities, "openssl", talkative)
    assert requested_key(asked) == known


@pytest.mark.parametrize(
    ("address", "names", "accepted"),
    [
        ("127.0.0.1", ["127.0.0.1", "data1"], True),
        ("data1", ["127.0.0.1", "data1"], True),
        ("127.0.0.1", ["127.0.0.2", "data1"], False),
        ("agent1", ["127.0.0.1", "data1"], False),
    ],
)
def test_clients_verify_the_address_by_which_they_come(host, authority, address, names, accepted):
    """As strictly as Python can: newer ones do by themselves."""
    site(host, authority, names=names)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(host[0], host[0])
    asking = ssl.create_default_context(cafile=str(host[1]))
    asking.verify_flags |= ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN
    ours, theirs = socket.socketpair()

    def serve():
        try:
            with serving.wrap_socket(theirs, server_side=True):
                pass
        except OSError:
            theirs.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        if accepted:
            asking.wrap_socket(ours, server_hostname=address).close()
        else:
            with pytest.raises(ssl.SSLCertVerificationError, match="mismatch"):
                asking.wrap_socket(ours, server_hostname=address)
    finally:
        ours.close()
        thread.join()


def test_what_hosts_ask_is_gathered_with_the_inventorys_names():
    asked = {"changed": False, "request": "R", "certificate": "", "authority": "", "failed": False}
    hostvars = {
        "edge1": {"ansible_host": "203.0.113.1", "__tls_fleet_asked": asked},
        "203.0.113.2": {"__tls_fleet_asked": asked},
        "gone": {"ansible_host": "203.0.113.3", "__tls_fleet_asked": {"unreachable": True}},
        "later": {"ansible_host": "203.0.113.4"},
    }
    kept = {"request": "R", "certificate": "", "authority": ""}
    assert fleet_requests(list(hostvars), hostvars) == [
        {"host": "edge1", "names": ["203.0.113.1", "edge1"], **kept},
        {"host": "203.0.113.2", "names": ["203.0.113.2"], **kept},
    ]
