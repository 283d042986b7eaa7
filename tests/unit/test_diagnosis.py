"""A diagnosis: no secret leaves the host, a command that hangs is ended, and facts become findings in plain words."""

import base64
import json
import stat
from urllib.parse import quote

import pytest
from ansible_collections.agentfleet.vm.plugins.action.diagnosis_page import results_of, safe, write
from ansible_collections.agentfleet.vm.plugins.module_utils import diagnosis
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis import findings, fleet_findings, redact
from ansible_collections.agentfleet.vm.plugins.module_utils.diagnosis_page import page
from ansible_collections.agentfleet.vm.plugins.module_utils.findings import Finding
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import read_options
from ansible_collections.agentfleet.vm.plugins.modules import diagnosis as module
from ansible_collections.agentfleet.vm.plugins.plugin_utils.secrets import texts, within
from hypothesis import given
from hypothesis import strategies as st

# Asterisks are what is put in a secret's place.
SECRETS = st.text(st.characters(exclude_characters="*", codec="utf-8"), min_size=4, max_size=60)
TOKENS = st.text("abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789", min_size=20, max_size=60)
ANYTHING = st.text(max_size=80)
WORDS = st.text("abc def\n:/{}[]\"'=,;", max_size=40)


@given(st.lists(SECRETS, min_size=1, max_size=4), st.lists(ANYTHING, max_size=6), st.data())
def test_no_known_secret_is_left_in_any_surrounding(secrets, around, data):
    parts = [part for piece in around for part in (piece, data.draw(st.sampled_from(secrets)))]
    left = redact("".join(parts), secrets)
    assert [secret for secret in secrets if secret in left] == []


@given(TOKENS, WORDS, WORDS)
def test_a_secret_is_seen_in_other_forms(secret, before, after):
    spoken = f'p@ss/{secret}"\n'
    for form in (
        quote(spoken, safe=""),
        json.dumps({"value": spoken}),
        base64.b64encode(spoken.encode()).decode(),
        base64.b64encode(secret.encode()).decode(),
    ):
        left = redact(f"{before} {form} {after}", [spoken, secret])
        assert secret not in left
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in left
        assert base64.b64encode(spoken.encode()).decode().rstrip("=") not in left


FORMS = [
    "Authorization: Bearer {}",
    "authorization: Basic {}",
    '"Authorization": "Bearer {}"',
    "curl -H 'Authorization: Token {}' https://x",
    "password={}",
    "PGPASSWORD={} psql",
    'AGENT_API_KEY="{}"',
    '{{"client_secret": "{}", "id": 7}}',
    "access_token='{}'",
    "CREATE ROLE x PASSWORD '{}'",
    "tool --password {} --host y",
    "tool --api-key={}",
    "postgresql://shop:{}@10.0.0.31:5432/shop",
    "redis://:{}@10.0.0.31",
    "amqp://user:p@{}@host/",
    "key sk-{} was refused",
    "sk-ant-api03-{}",
    "ghp_{}",
    "eyJhbGciOiJI.{}.sig",
    "-----BEGIN RSA PRIVATE KEY-----\n{}\n-----END RSA PRIVATE KEY-----",
    "-----BEGIN PRIVATE KEY-----\n{}",
]


@pytest.mark.parametrize("form", FORMS)
@given(TOKENS, WORDS, WORDS)
def test_what_looks_like_a_secret_goes_though_nobody_knows_it(form, secret, before, after):
    assert secret not in redact(f"{before}\n{form.format(secret)}\n{after}", [])


def test_a_vaults_text_goes():
    blob = "\n".join(["$ANSIBLE_VAULT;1.1;AES256", *(f"          {'3961' * 20}" for _line in range(3)), "next: line"])
    assert redact(blob, []) == f"{diagnosis.HIDDEN}\nnext: line"


@pytest.mark.parametrize(
    "line",
    [
        "2026-01-31T12:00:00+0000 agent1 agent[7]: GET /ready 200",
        "used_tokens=40 model=offline",
        'tcp LISTEN 0 4096 10.0.0.21:8100 0.0.0.0:* users:(("python",pid=7,fd=6))',
        "see https://example.com/a:b?c=d",
        "/opt/agent/slots/blue/credentials/api_key",
        "PasswordAuthentication no",
    ],
)
def test_what_tells_something_stays(line):
    assert redact(line, []) == line


def test_documents_are_cleaned_to_their_depth():
    left = diagnosis.redact_all({"a": ["x hunter2x y", {"hunter2x": 1}], "b": 3, "c": None}, ["hunter2x"])
    assert left == {"a": [f"x {diagnosis.HIDDEN} y", {diagnosis.HIDDEN: 1}], "b": 3, "c": None}


def test_variables_that_should_have_been_secrets_count_as_such():
    given_ = {"STRIPE_API_KEY": "abc123", "AGENT_OFFLINE_TOKENS": "4096", "DB_PASSWORD": "", "PLAIN": "x"}
    assert diagnosis.secret_variables(given_) == ["abc123"]


def test_secrets_of_the_inventory_are_those_that_options_name():
    options = read_options(
        "postgres",
        {
            "databases": {
                "type": "list",
                "options": {"name": {"type": "str"}, "password": {"type": "str", "no_log": True}},
            },
            "more": {"type": "dict", "no_log": True},
        },
    )
    assert list(within(options["databases"], [{"name": "shop", "password": "one"}])) == ["one"]
    assert list(within(options["more"], {"a": "two", "b": ["three", 4]})) == ["two", "three"]
    assert list(texts(None)) == []


def test_a_command_that_hangs_is_ended_and_one_that_is_missing_is_told():
    assert module.said(["sleep", "60"], 0.1).endswith("(ended after 0.1 s)\n")
    assert "(not run: No such file or directory)" in module.said(["nowhere-at-all"], 5)
    assert module.said(["sh", "-c", "echo out; echo wrong >&2; exit 3"], 5).splitlines()[1:3] == ["out", "wrong"]


def test_what_is_looked_at_follows_the_hosts_groups():
    names = {
        group: {section.name for section in diagnosis.sections([group], "shop")}
        for group in ("agents", "edge", "postgres")
    }
    assert "releases" in names["agents"]
    assert {"director", "nginx"} <= names["edge"]
    assert "postgres" in names["postgres"]
    assert "director" not in names["agents"]
    assert diagnosis.units_of(["agents"], "shop") == [f"shop{kind}@*.service" for kind in ("", "-worker", "-migrate")]


WELL = {
    "disks": [{"path": "/", "used": 40, "inodes": 3}],
    "failed_units": [],
    "memory_free_percent": 60,
    "memory_pressure": 0.0,
    "oom": [],
    "clock_synchronized": None,
    "slots": {"blue": {"state": "running", "release": "shop-1"}, "green": {"state": "stopped", "release": None}},
    "restarts": {"shop@blue-1.service": 1},
    "probes": [{"unit": "shop@blue-1.service", "port": 8100, "path": "/ready", "status": 200, "said": "{}"}],
    "edge": True,
    "release": "shop-1",
    "problems": [],
    "servers_down": [],
    "certificate": {"days": 60, "issuer": "x", "problem": "", "since": None},
    "site": {"name": "shop.example.com", "status": 200, "said": "{}"},
    "dns": {"name": "shop.example.com", "addresses": ["192.0.2.1"], "own": ["10.0.0.11", "192.0.2.1"]},
}


@pytest.mark.parametrize(
    ("changed", "text", "mend"),
    [
        ({"disks": [{"path": "/var", "used": 93, "inodes": None}]}, "/var is 93 % full", "journalctl --vacuum-size"),
        ({"disks": [{"path": "/", "used": 3, "inodes": 99}]}, "/ has used 99 % of its inodes", "du -xh"),
        ({"failed_units": ["ssh.service"]}, "ssh.service has failed", "systemctl restart ssh.service"),
        ({"restarts": {"shop@blue-1.service": 7}}, "shop@blue-1.service was restarted 7 times", "rollback.yml"),
        ({"oom": ["shop killed"]}, "memory ran out: shop killed", "agent_memory_max"),
        ({"memory_free_percent": 4}, "4 % of the memory is free", "ps -eo"),
        ({"memory_pressure": 31.5}, "waited for memory in 31.5 %", "free -m"),
        ({"clock_synchronized": False}, "not synchronized", "systemctl restart systemd-timesyncd"),
        (
            {"slots": {"blue": {"state": "stopped", "release": "x"}, "green": {"state": "empty", "release": None}}},
            "no slot of shop runs",
            "site.yml --limit web1,edge",
        ),
        (
            {
                "probes": [
                    {"unit": "shop@blue-1.service", "port": 8100, "path": "/ready", "status": 503, "said": "down"}
                ]
            },
            "/ready of shop@blue-1.service says 503 down",
            "systemctl status postgresql",
        ),
        ({"release": None}, "there is no current release", "deploy.yml"),
        ({"problems": ["HAProxy cannot be reached"]}, "HAProxy cannot be reached", "systemctl restart"),
        (
            {"servers_down": [{"name": "a-blue-1", "state": "down", "check": "L4CON"}]},
            "a-blue-1 should answer",
            "below",
        ),
        ({"certificate": {"days": 3, "problem": ""}}, "ends in 3 days", "site.yml --limit edge"),
        ({"certificate": {"days": 30, "problem": "DNS"}}, "no new certificate: DNS", "site.yml --limit edge"),
        (
            {"site": {"name": "shop.x", "status": 0, "said": "refused"}},
            "https://shop.x/health says refused",
            "nginx -t",
        ),
        (
            {"backups": ["backing up redis failed: a; b; try again with: ansible-playbook playbooks/backup.yml"]},
            "backing up redis failed: a; b",
            "ansible-playbook playbooks/backup.yml",
        ),
        ({"backups": ["the last rehearsed restore failed: x"]}, "rehearsed restore failed", "drill.yml"),
        ({"dns": {"name": "shop.x", "addresses": [], "own": []}}, "shop.x does not resolve", "address record"),
        (
            {"dns": {"name": "shop.x", "addresses": ["192.0.2.9"], "own": ["192.0.2.1"]}},
            "leads to 192.0.2.9",
            "address record",
        ),
    ],
)
def test_what_is_wrong_is_said_once_with_what_mends_it(changed, text, mend):
    found = findings("web1", {**WELL, **changed}, "shop")
    assert len(found) == 1, found
    assert text in found[0].text
    assert mend in found[0].mend
    assert found[0].host == "web1"


def test_a_host_that_is_well_or_knows_nothing_has_no_findings():
    assert findings("web1", WELL, "shop") == []
    assert findings("web1", {}, "shop") == []


def test_who_cannot_be_asked_comes_first():
    found = fleet_findings(
        {"web1": {"facts": {**WELL, "release": None}}, "web2": {"unreachable": True, "why": "no route"}}, "shop"
    )
    assert [finding.host for finding in found] == ["web2", "web1"]
    assert found[0].text == "cannot be reached: no route"


def test_the_page_needs_nothing_else_and_shows_texts_as_they_are():
    results = {
        "web1": {"facts": WELL, "sections": [{"name": "disk", "title": "Disks", "text": "<script>alert(1)</script>"}]},
        "web2": {"unreachable": True, "why": "no route"},
    }
    text = page("shop", "2026-01-31 12:00:00", [Finding("it <is> wrong", "mend & go", "web1")], results)
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)" in text
    assert "it &lt;is&gt; wrong" in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert "http://" not in text
    assert "not looked at: no route" in text


def test_nobody_else_may_read_the_folder(tmp_path):
    results = {"../web1": {"facts": {}, "sections": [{"name": "disk", "title": "Disks", "text": "full"}]}}
    folder = tmp_path / "diagnosis" / "shop-1"
    write(folder, "page", results)
    assert (folder / safe("../web1") / "disk.txt").read_text() == "full"
    for path in (folder, *folder.rglob("*")):
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_host_that_said_nothing_has_its_reason():
    hostvars = {
        "web1": {"__diagnosis": {"facts": {"os": "Debian 13"}, "sections": []}},
        "web2": {"__diagnosis": {"unreachable": True, "msg": "no route\nmore"}},
        "web3": {},
    }
    found = results_of(hostvars, hostvars)
    assert found["web1"]["facts"] == {"os": "Debian 13"}
    assert found["web2"] == {"unreachable": True, "why": "no route"}
    assert found["web3"] == {"unreachable": False, "why": "no reason given"}
