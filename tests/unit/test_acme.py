"""When an authority is asked for a certificate, what its refusals come to, and that the old one stays meanwhile."""

import os
from dataclasses import replace
from itertools import pairwise

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import acme
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils.acme import Order, explain, reason_to_issue
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import DAY, Certificate

NOW = 1_800_000_000.0
CA = "https://ca.example.com/directory"
ORDER = Order(
    service="agent",
    names=("agent.example.com", "WWW.example.com"),
    mail="admin@example.com",
    directory=CA,
    webroot="/var/www/acme",
    certificate="/etc/agentfleet/tls/agent.crt",
    key="/etc/agentfleet/tls/agent.key",
)


def issued(days, lifetime=90, names=("agent.example.com", "www.example.com")):
    expires = NOW + days * DAY
    return Certificate(frozenset(names), expires, "KEY", expires - lifetime * DAY, "R11")


@pytest.mark.parametrize(
    ("found", "directory", "reason"),
    [
        (None, "", "there is none yet"),
        (issued(60), CA, None),
        (issued(30), CA, None),
        (issued(29), CA, "29 days are left"),
        (issued(-2), CA, "-2 days are left"),
        (issued(3, lifetime=6), CA, None),
        (issued(1.9, lifetime=6), CA, "1 days are left"),
        (issued(60, names=("agent.example.com",)), CA, "it names agent.example.com instead of agent.example.com, www"),
        (issued(60), "https://staging.example.com", "it is from https://staging.example.com instead of"),
    ],
)
def test_reasons_to_ask(found, directory, reason):
    told = reason_to_issue(found, directory, ORDER, NOW)
    assert told == reason if reason is None else reason in told


CHALLENGE = """
Certbot failed to authenticate some domains (authenticator: webroot). The Certificate Authority reported these problems:
  Domain: agent.example.com
  Type:   connection
  Detail: 203.0.113.9: Fetching http://agent.example.com/.well-known/acme-challenge/x: Timeout during connect
(likely firewall problem)

  Domain: www.example.com
  Type:   dns
  Detail: DNS problem: NXDOMAIN looking up A for www.example.com

Hint: The Certificate Authority failed to download the temporary challenge files created by Certbot.

Some challenges have failed.
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile /x or re-run Certbot.
"""
LIMIT = """Saving debug log to /x/letsencrypt.log
Requesting a certificate for agent.example.com
An unexpected error occurred:
There were too many requests of a given type :: too many certificates (5) already issued for this set of domains
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile /x or re-run Certbot.
"""
DOWN = """Saving debug log to /x/letsencrypt.log
An unexpected error occurred:
requests.exceptions.ConnectionError: HTTPSConnectionPool(host='ca.example.com', port=443): Max retries exceeded with
url: /directory (Caused by NewConnectionError('<x>: Failed to establish a new connection: [Errno 111] Connection
refused'))
Ask for help or search for solutions at https://community.letsencrypt.org. See the logfile /x or re-run Certbot.
"""


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        (CHALLENGE, ["the challenge failed, agent.example.com: 203.0.113.9: Fetching http://agent.example.com/"]),
        (CHALLENGE, ["Timeout during connect (likely firewall problem) (connection); www.example.com: DNS problem"]),
        (CHALLENGE, ["DNS must lead agent.example.com, www.example.com to this host, and its port 80 be open"]),
        (
            LIMIT,
            [f"{CA} refuses for now, its rate limit is reached (too many certificates (5) already"],
        ),
        (DOWN, [f"{CA} cannot be reached (Connection refused)"]),
        (DOWN.replace("[Errno 111] Connection\nrefused", "new"), [f"{CA} cannot be reached (no answer)"]),
        (
            "requests.exceptions.SSLError: Max retries exceeded: [SSL: CERTIFICATE_VERIFY_FAILED] unable to get",
            ["not trusted; name its authority's file by tls_acme_ca"],
        ),
        ("An unexpected error occurred:\nsome other thing\n", [f"{CA} did not issue: some other thing"]),
        (
            "AttributeError: can't set\nacme.messages.Error: urn:ietf:params:acme:error:rateLimited :: x :: wait",
            ["its rate limit is reached (wait)"],
        ),
        ("", ["certbot gave no reason"]),
    ],
)
def test_a_refusal_is_one_line(said, lines):
    told = explain(said, ORDER)
    assert "\n" not in told
    for line in lines:
        assert line in told


def lay(path, names, days=90):
    path.mkdir(parents=True, exist_ok=True)
    certificates.make(path / "fullchain.pem", path / "privkey.pem", names, days, os.getgid())


@pytest.fixture
def order(tmp_path, monkeypatch):
    """A site that serves a certificate of its own, an authority that issues, and a Nginx that takes everything."""
    served = tmp_path / "tls"
    served.mkdir()
    certificates.make(served / "agent.crt", served / "agent.key", ["agent.example.com"], 365, os.getgid())
    state = tmp_path / "state"
    order = replace(
        ORDER,
        names=("agent.example.com",),
        certificate=str(served / "agent.crt"),
        key=str(served / "agent.key"),
        units=("nginx.service",),
    )

    def issue(order, state):
        lay(state / "live/agent", list(order.names))
        (state / "renewal").mkdir(exist_ok=True)
        (state / "renewal/agent.conf").write_text(f"[renewalparams]\nserver = {order.directory}\n")
        return ""

    monkeypatch.setattr(acme, "issue", issue)
    monkeypatch.setattr(acme, "fails", lambda *words: "")
    monkeypatch.setattr(acme.shutil, "which", lambda name: f"/usr/sbin/{name}")
    return order, state


def now():
    return certificates.time.time()


def test_it_is_asked_once_and_put_in_place(order):
    order, state = order
    before = certificates.read(acme.Path(order.certificate)).public_key
    assert acme.foresee(order, state, now()).changed
    assert not state.exists(), "a dry run leaves nothing"
    done = acme.obtain(order, state, now())
    assert (done.reason, done.changed, done.problem) == ("there is none yet", True, "")
    assert certificates.read(acme.Path(order.certificate)).public_key != before
    assert not acme.foresee(order, state, now()).changed
    again = acme.obtain(order, state, now())
    assert (again.reason, again.changed, again.problem) == ("", False, "")
    assert acme.noted(state, "agent")["problem"] == ""


def test_a_refusal_leaves_the_old_one_and_is_noted_since_when(order, monkeypatch):
    order, state = order
    before = acme.Path(order.certificate).read_text()
    monkeypatch.setattr(acme, "issue", lambda order, state: "refused")
    assert acme.obtain(order, state, 100.0).problem == "refused"
    done = acme.obtain(order, state, 200.0)
    assert (done.changed, done.authority) == (False, False)
    assert acme.Path(order.certificate).read_text() == before
    assert acme.noted(state, "agent") == {"problem": "refused", "tried": 200.0, "since": 100.0}


def test_what_nginx_does_not_take_goes_back_and_is_tried_again(order, monkeypatch):
    order, state = order
    files = [acme.Path(order.certificate), acme.Path(order.key)]
    before = [path.read_text() for path in files]
    said = {"nginx": "nginx: [emerg] broken"}
    ran = []
    monkeypatch.setattr(acme, "fails", lambda *words: ran.append(words) or said.get(words[0], ""))
    done = acme.obtain(order, state, now())
    assert "the old one stays: nginx: [emerg] broken" in done.problem
    assert [path.read_text() for path in files] == before
    assert ("systemctl", "reload", "nginx.service") not in ran
    said.clear()
    done = acme.obtain(order, state, now())
    assert (done.reason, done.changed, done.problem) == ("", True, ""), "nobody is asked for it again"
    assert ran[-1] == ("systemctl", "reload", "nginx.service")


def test_what_was_put_in_place_and_not_read_is_made_good(order, monkeypatch):
    order, state = order
    said = {("systemctl", "reload"): "no"}
    monkeypatch.setattr(acme, "fails", lambda *words: said.get(words[:2], ""))
    assert acme.obtain(order, state, now()).problem == "nginx.service could not be reloaded: no"
    assert acme.foresee(order, state, now()).changed
    said.clear()
    assert acme.obtain(order, state, now()).changed
    assert not acme.obtain(order, state, now()).changed


def test_certbot_is_asked_for_all_names_at_the_authority_wanted(tmp_path):
    words = acme.command(ORDER, tmp_path)
    assert words[:2] == ["certbot", "certonly"]
    assert words[-4:] == ["--domain", "agent.example.com", "--domain", "WWW.example.com"]
    pairs = dict(pairwise(words))
    assert (pairs["--server"], pairs["--cert-name"], pairs["--email"]) == (CA, "agent", "admin@example.com")
    assert pairs["--config-dir"] == str(tmp_path)


def test_the_log_is_asked_for_the_authoritys_own_words(tmp_path):
    assert acme.error_in_log(tmp_path) == ""
    (tmp_path / "logs").mkdir()
    said = "2026-11-21 17:24:06:DEBUG:x\nTraceback\nacme.messages.Error: urn:a :: b :: c\nAttributeError: can't\n"
    (tmp_path / "logs/letsencrypt.log").write_text(said)
    assert acme.error_in_log(tmp_path) == "acme.messages.Error: urn:a :: b :: c"


def test_the_order_reads_what_the_role_writes():
    raw = {"service": "a", "names": ["b.c"], "mail": "m", "directory": CA, "webroot": "/w", "units": ["nginx.service"]}
    order = Order.read({**raw, "certificate": "/c", "key": "/k", "renew_days": "20", "more": 1})
    assert (order.names, order.units, order.renew_days, order.authority) == (("b.c",), ("nginx.service",), 20, "")
