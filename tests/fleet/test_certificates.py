"""Certificates of authorities, on hosts that are nothing but an edge: what is served, whatever the authority does."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml
from support.deploys import until
from support.fleet import BIN, TOP, Fleet, Result, copy_inventory
from support.pebble import Authority, pebble, refusing

SITE, OTHER = "agent.lab.test", "www.lab.test"
KEY = "/etc/agentfleet/tls/agent.key"
RENEW = "systemctl start agentfleet-certificate-agent.service"
AGAIN = "The certificate before it goes on serving; try again with: ansible-playbook playbooks/site.yml --limit edge"
# A lab that stays up has what an earlier run left.
EMPTY = "systemctl stop nginx; rm -rf /etc/agentfleet /etc/nginx/agentfleet /var/lib/agentfleet/certbot"
SUITES = {"site1": "trixie", "site2": "bookworm"}


@dataclass
class Edge:
    """One edge, to which site.yml's part for it is applied."""

    fleet: Fleet
    host: str
    inventory: Path
    playbook: Path
    words: dict[str, object] = field(default_factory=dict)

    def site(self, *options: str, **words: object) -> Result:
        given = {"fleet_name": f"{self.fleet.name}-{self.host}", "edge_server_name": SITE, **self.words, **words}
        command = [str(BIN / "ansible-playbook"), "-i", str(self.inventory), str(self.playbook), "--limit", self.host]
        return self.fleet.run(*command, "-e", f"@{self.fleet.variables}", "-e", json.dumps(given), *options)

    def on(self, command: str) -> Result:
        return self.fleet.on(self.host, command)

    @property
    def copy(self) -> Path:
        """What lets clients verify a certificate that signed itself."""
        return self.fleet.credentials / f"{self.fleet.name}-{self.host}-agent.crt"

    def handshake(self, ca: Path, name: str = SITE) -> dict[str, object]:
        """The certificate that Nginx serves, verified by CA."""
        context = ssl.create_default_context(cafile=str(ca))
        with (
            socket.create_connection((self.fleet.address(self.host), 443), 10) as plain,
            context.wrap_socket(plain, server_hostname=name) as secure,
        ):
            return dict(secure.getpeercert() or {})

    def serial(self, ca: Path) -> object:
        return self.handshake(ca)["serialNumber"]

    def seen(self) -> dict[str, object]:
        """What status.yml knows of the certificate."""
        words = [str(BIN / "ansible"), self.host, "-i", str(self.inventory), "-m", "agentfleet.vm.agent_info"]
        told = self.fleet.run(*words, "-e", f"@{self.fleet.variables}", "-a", "parts=edge").ok().stdout
        return dict(json.loads(told.partition("=> ")[2])["certificate"])


def edge_of(fleet: Fleet, host: str, directory: Path) -> Edge:
    inventory = copy_inventory(fleet.inventory, directory / "lab")
    hosts = {host: {"lab_suite": SUITES[host], "ansible_host": fleet.address(host)}}
    groups = {"all": {"children": {"machines": {"children": {"edge": {"hosts": hosts}}}}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(groups))
    # The balancer has no part in this.
    plays = [play for play in yaml.safe_load((TOP / "playbooks/site.yml").read_text()) if play.get("hosts") == "edge"]
    plays = [play for play in plays if play["name"] in ("Edge", "Certificate")]
    plays[0]["roles"] = [role for role in plays[0]["roles"] if "balancer" not in role["role"]]
    (directory / "site.yml").write_text(yaml.safe_dump(plays, sort_keys=False))
    fleet.board(inventory, host)
    return Edge(fleet, host, inventory, directory / "site.yml")


def wanted(authority: Authority) -> dict[str, object]:
    return {
        "tls_mode": "certbot",
        "tls_mail": "admin@lab.test",
        "tls_acme_directory": authority.directory,
        "tls_acme_ca": str(authority.ca),
    }


def changed(run: Result) -> int:
    return sum(run.changed().values())


@pytest.fixture(scope="module")
def edge(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    return edge_of(lab, "site1", tmp_path_factory.mktemp("site1"))


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority")


@pytest.fixture(scope="module")
def without_authority(edge: Edge) -> Result:
    """The first run, with an authority that does not answer."""
    edge.on(EMPTY)
    return edge.site(tls_mode="certbot", tls_mail="admin@lab.test", tls_acme_directory=gone(edge))


def gone(edge: Edge) -> str:
    """The address of an authority where there is none."""
    return f"https://{edge.fleet.prefix}.1:14009/dir"


@pytest.fixture(scope="module")
def authority(lab: Fleet, work: Path) -> Iterator[Authority]:
    with pebble(f"{lab.prefix}.1", work) as authority:
        yield authority


@pytest.fixture(scope="module")
def issued(edge: Edge, without_authority: Result, authority: Authority) -> Result:
    authority.names_lead_to(edge.fleet.address(edge.host))
    edge.words = wanted(authority)
    return edge.site().ok()


def test_without_its_authority_a_new_site_serves_what_it_signed_itself(edge: Edge, without_authority: Result) -> None:
    assert without_authority.returncode != 0
    told = f"{gone(edge)} cannot be reached (Connection refused). {AGAIN}"
    assert told in without_authority.stdout, without_authority.stdout[-3000:]
    edge.handshake(edge.copy)
    seen = edge.seen()
    assert seen["issuer"] == "itself"
    assert "cannot be reached" in str(seen["problem"])


def test_one_run_gets_the_certificate(edge: Edge, authority: Authority, issued: Result) -> None:
    edge.handshake(authority.root)
    assert not edge.copy.exists()
    assert edge.on(f"stat -L -c '%U %G %a' {KEY}").ok().stdout.split() == ["root", "ssl-cert", "640"]
    seen = edge.seen()
    assert "Pebble" in str(seen["issuer"])
    assert (seen["days"], seen["problem"]) == (89, "")


def test_another_run_changes_nothing(edge: Edge, issued: Result) -> None:
    assert changed(edge.site().ok()) == 0


def test_an_authority_that_is_gone_takes_nothing_away(edge: Edge, authority: Authority, issued: Result) -> None:
    before = edge.serial(authority.root)
    run = edge.site(tls_acme_directory=gone(edge))
    assert run.returncode != 0
    assert f"{gone(edge)} cannot be reached" in run.stdout
    assert edge.serial(authority.root) == before
    assert edge.on("systemctl is-active nginx").ok()
    assert "cannot be reached" in str(edge.seen()["problem"])
    edge.on(f"{RENEW}; systemctl reset-failed")
    assert edge.serial(authority.root) == before


@pytest.fixture(scope="module")
def second(lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Edge:
    """An edge of Debian 12, on which tests may follow each other in any order."""
    second = edge_of(lab, "site2", tmp_path_factory.mktemp("site2"))
    second.on(EMPTY)
    return second


@pytest.fixture(scope="module")
def ours(second: Edge, authority: Authority) -> Authority:
    """The authority, for the second edge."""
    second.words = wanted(authority)
    authority.names_lead_to(second.fleet.address(second.host))
    second.site().ok()
    return authority


@pytest.mark.soak
def test_a_dry_run_tells_what_a_run_would_do(second: Edge, ours: Authority) -> None:
    names = {"tls_names": [SITE, OTHER]}
    before = second.serial(ours.root)
    assert changed(second.site("--check", "--diff", **names).ok()) > 0
    assert second.serial(ours.root) == before
    assert changed(second.site("--check").ok()) == 0


@pytest.mark.soak
def test_other_names_are_another_certificate(second: Edge, ours: Authority) -> None:
    second.site(tls_names=[SITE, OTHER]).ok()
    second.handshake(ours.root, SITE)
    served = second.handshake(ours.root)["subjectAltName"]
    assert served == (("DNS", SITE), ("DNS", OTHER))
    second.site().ok()
    assert second.handshake(ours.root)["subjectAltName"] == (("DNS", SITE),)


@pytest.mark.soak
def test_an_authority_that_comes_by_ipv6_finds_the_site(second: Edge, ours: Authority) -> None:
    address = second.fleet.address(second.host)
    ours.names_lead_to("", f"fd{address.split('.')[1]}::{address.rsplit('.', 1)[1]}")
    try:
        second.site(tls_names=[SITE, OTHER]).ok()
    finally:
        ours.names_lead_to(address)
    second.site().ok()


@pytest.mark.soak
def test_a_challenge_that_fails_says_whose(second: Edge, ours: Authority) -> None:
    before = second.serial(ours.root)
    # Nothing listens on port 80 there.
    ours.names_lead_to(f"{second.fleet.prefix}.1")
    try:
        run = second.site(tls_names=[SITE, OTHER])
    finally:
        ours.names_lead_to(second.fleet.address(second.host))
    assert run.returncode != 0
    assert "the challenge failed, " in run.stdout
    assert "to this host, and its port 80 be open to the world" in run.stdout
    assert "connection refused" in run.stdout
    assert AGAIN in run.stdout
    assert second.serial(ours.root) == before
    second.site().ok()
    assert second.seen()["problem"] == ""


@pytest.mark.soak
def test_a_rate_limit_is_told_and_what_serves_stays(second: Edge, ours: Authority, work: Path) -> None:
    before = second.serial(ours.root)
    said = "too many certificates (5) already issued for this exact set of domains in the last 168h0m0s"
    with refusing(f"{second.fleet.prefix}.1", work, "rateLimited", said) as refusal:
        run = second.site(tls_acme_directory=refusal.directory)
    assert run.returncode != 0
    assert "refuses for now, its rate limit is reached (" in run.stdout
    assert said in run.stdout
    assert second.serial(ours.root) == before
    assert "rate limit" in str(second.seen()["problem"])


@pytest.mark.soak
def test_an_authority_that_is_not_trusted_names_the_variable(second: Edge, ours: Authority) -> None:
    run = second.site(tls_acme_ca="", tls_names=[SITE, OTHER])
    assert run.returncode != 0
    assert "name its authority's file by tls_acme_ca" in run.stdout


@pytest.mark.soak
def test_back_to_a_certificate_of_its_own_and_to_files(second: Edge, ours: Authority, work: Path) -> None:
    second.site(tls_mode="self_signed").ok()
    second.handshake(second.copy)
    assert second.on("systemctl list-unit-files --no-legend 'agentfleet-certificate-agent.*'").stdout.strip() == ""
    assert changed(second.site(tls_mode="self_signed").ok()) == 0

    given = {"tls_certificate_file": str(work / "given.crt"), "tls_key_file": str(work / "given.key")}
    given["tls_mode"] = "files"
    (work / "given.crt").write_text(second.on("cat /etc/agentfleet/tls/agent.crt").stdout)
    (work / "given.key").write_text((work / "authority.key").read_text())
    run = second.site(**given)
    assert run.returncode != 0
    assert "tls_certificate_file and tls_key_file do not belong together" in run.stdout
    (work / "given.key").write_text(second.on(f"cat {KEY}").stdout)
    secret = work / "vault-password"
    secret.write_text("a password of the test's own\n")
    unlock = ["--vault-password-file", str(secret)]
    second.fleet.run(str(BIN / "ansible-vault"), "encrypt", *unlock, str(work / "given.key")).ok()
    assert (work / "given.key").read_text().startswith("$ANSIBLE_VAULT")
    second.site(*unlock, **given).ok()
    second.handshake(work / "given.crt")
    assert not second.copy.exists()
    assert changed(second.site(*unlock, **given).ok()) == 0

    before = second.on("cat /var/lib/agentfleet/certbot/live/agent/fullchain.pem").stdout
    second.site().ok()
    second.handshake(ours.root)
    assert second.on("cat /etc/agentfleet/tls/agent.crt").stdout == before, "no authority is asked on the way back"


@pytest.mark.soak
def test_what_nginx_does_not_take_is_not_left_with_it(second: Edge, ours: Authority) -> None:
    second.site().ok()
    before = second.serial(ours.root)
    broken = "/etc/nginx/agentfleet/broken.conf"
    # Names that change ask for a new one; a site of somebody else keeps Nginx from loading anything.
    order = "/etc/agentfleet/certificates/agent.json"
    second.on(f'echo \'nonsense;\' >{broken}; sed -i \'s/"{SITE}"/"{SITE}", "{OTHER}"/\' {order}').ok()
    try:
        assert second.on(RENEW).returncode != 0
        told = second.on("journalctl -u agentfleet-certificate-agent -n 5 --no-pager").stdout
        assert "Nginx does not take the new certificate, so the old one stays" in told
        assert f"in {broken}:1" in told
        assert second.serial(ours.root) == before
    finally:
        second.on(f"rm {broken}").ok()
    second.on(RENEW).ok()
    until(lambda: second.serial(ours.root) != before, "Nginx with the new certificate")
    second.site().ok()


@pytest.mark.soak
def test_renewed_when_it_ends_without_anybody(second: Edge, ours: Authority, work: Path) -> None:
    def ended() -> bool:
        try:
            second.handshake(brief.root)
        except ssl.SSLCertVerificationError as error:
            return "expired" in str(error)
        return False

    with pebble(f"{second.fleet.prefix}.1", work / "brief", seconds=40, port=14100) as brief:
        brief.names_lead_to(second.fleet.address(second.host))
        second.site(**wanted(brief)).ok()
        before = second.on("openssl x509 -noout -serial -in /etc/agentfleet/tls/agent.crt").ok().stdout
        until(ended, "the end of a certificate")
        second.on(RENEW).ok()
        # Nginx takes a moment to let its new processes answer.
        until(lambda: not ended(), "Nginx with the new certificate")
        assert second.on("openssl x509 -noout -serial -in /etc/agentfleet/tls/agent.crt").ok().stdout != before
    second.site().ok()
    second.handshake(ours.root)


@pytest.mark.soak
def test_a_service_beside_has_a_certificate_of_its_own(second: Edge, ours: Authority) -> None:
    first = second.on(f"cat {KEY}").stdout
    second.site(agent_name="shop", edge_server_name="shop.lab.test", balancer_port=8081).ok()
    assert second.handshake(ours.root, "shop.lab.test")["subjectAltName"] == (("DNS", "shop.lab.test"),)
    second.handshake(ours.root, SITE)
    assert second.on(f"cat {KEY}").stdout == first
    assert changed(second.site().ok()) == 0
