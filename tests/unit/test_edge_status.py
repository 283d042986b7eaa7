"""The status pages as the edge makes them: what it can tell without entering a host, and what a page may not do."""

import json
import re
from html.parser import HTMLParser

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import edge_status, status, status_page
from ansible_collections.agentfleet.vm.plugins.module_utils.prometheus import alerts_of

NOW = 1_800_000_000.0
RELEASE = "agent-222222222222"
NAMES = {
    "edge1": ["edge"],
    "agent1": ["agents", "mine"],
    "agent2": ["agents"],
    "data1": ["postgres", "redis"],
    "ops1": ["monitoring", "backup"],
}
EVIL = "<script>alert(1)</script>"


def server(name, weight, state=""):
    state = state or ("up" if weight else "down")
    return {"name": name, "weight": weight, "state": state, "check": "L7OK 200", "ready": True, "sessions": 0}


SEEN = {
    "traffic": {
        name: server(name, weight)
        for name, weight in {
            "agent1-blue-1": 100,
            "agent1-green-1": 0,
            "agent2-blue-1": 100,
            "agent2-green-1": 0,
        }.items()
    },
    "release": RELEASE,
    "placed": {"agent1-blue": RELEASE, "agent2-blue": RELEASE},
    "figures": {"seconds": 300, "requests": 40, "error_rate": 0.0, "p95_seconds": 0.2, "slots": {}},
    "certificate_days": 60,
    "certificate": {"days": 60, "issuer": "R11", "problem": "", "since": None},
    "disk_free_percent": 70,
    "problems": [],
    "history": [
        {"kind": "deploy", "outcome": "promoted", "release": RELEASE, "strategy": "canary", "by": EVIL, "began_at": NOW}
    ],
}
FIGURES = {
    "up": [({"host": name}, 1.0) for name in NAMES],
    "os": [({"host": "data1", "name": "Debian GNU/Linux", "version_id": "13"}, 1.0)],
    "disk": [({"host": "data1"}, 0.427)],
    "backup": [({"host": "ops1", "what": "postgres"}, NOW - 7200), ({"host": "ops1", "what": "redis"}, NOW - 3600)],
    "drill_at": [({"host": "ops1"}, NOW - 86400)],
    "drill_ok": [({"host": "ops1"}, 1.0)],
    "drift": [({"host": "agent2", "what": "blue: its variables or credentials were changed by hand"}, 1.0)],
}


def compose(seen=SEEN, figures=FIGURES, alerts=[]):  # noqa: B006 - nobody changes it
    hosts = edge_status.hosts_of(NAMES, "edge1", seen, figures, alerts, NOW)
    return status.compose("lab", hosts, made_at=NOW, made_from=status.EDGE)


def of(document, name):
    return next(host for host in document["hosts"] if host["name"] == name)


def test_with_prometheus_it_knows_what_a_status_knows():
    document = compose()
    assert (document["state"], document["release"], document["traffic"]) == ("up", RELEASE, {RELEASE: 1.0})
    assert of(document, "data1")["os"] == "Debian 13"
    assert of(document, "data1")["disk_free_percent"] == 42
    assert of(document, "agent1")["groups"] == ["agents"]
    assert of(document, "agent1")["slots"]["blue"]["share"] == 0.5
    assert of(document, "agent1")["slots"]["green"]["state"] == "empty"
    assert of(document, "agent2")["drift"] == ["blue: its variables or credentials were changed by hand"]
    assert document["last_backup_hours"] == 2.0
    assert document["backups"]["drill"] == {"at": NOW - 86400, "ok": True}
    assert document["alerts"] == []


def test_without_prometheus_it_says_what_it_does_not_know():
    document = compose(figures={}, alerts=None)
    assert of(document, "data1")["reachable"] is None
    assert of(document, "agent1")["reachable"] is True
    assert document["alerts"] is document["last_backup_hours"] is None
    assert "has no Prometheus to ask" in status_page.page(document)


@pytest.mark.parametrize(("figures", "who"), [(FIGURES, "Prometheus"), ({}, "HAProxy")])
def test_a_host_that_is_away_is_a_row(figures, who):
    traffic = {**SEEN["traffic"], "agent2-blue-1": server("agent2-blue-1", 100, "down")}
    traffic["agent2-green-1"] = server("agent2-green-1", 0, "down")
    up = [(labels, 0.0 if labels["host"] == "agent2" else 1.0) for labels, _value in figures.get("up", ())]
    document = compose(SEEN | {"traffic": traffic}, {**figures, **({"up": up} if up else {})})
    assert of(document, "agent2")["reachable"] is False
    assert f"does not answer {who}" in of(document, "agent2")["attention"][0]
    assert document["state"] == "degraded"


class Reader(HTMLParser):
    """Refuses what is not closed, and remembers what a page would load."""

    VOID = ("meta", "link", "br", "img", "input")

    def __init__(self):
        super().__init__()
        self.open, self.loads = [], []

    def handle_starttag(self, tag, attrs):
        if tag in ("script", "link", "img", "iframe", "object"):
            self.loads.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.mark.parametrize("evil", ["", EVIL, '"><img src=x onerror=alert(1)>', "' onclick='x"])
def test_pages_load_nothing_and_escape_what_they_show(evil):
    names = {f"{name}{evil}": groups for name, groups in NAMES.items()}
    alert = {"severity": evil, "name": "X", "host": evil, "since": "", "summary": evil}
    hosts = edge_status.hosts_of(names, f"edge1{evil}", SEEN | {"release": f"r{evil}"}, {}, [alert], NOW)
    document = status.compose(f"lab{evil}", hosts, made_at=NOW, made_from=status.EDGE)
    for text in (status_page.page(document), status_page.public_page(status_page.short(document))):
        reader = Reader()
        reader.feed(text)
        assert (reader.open, reader.loads) == ([], [])
        assert "onerror=alert(1)>" not in text
        assert not re.search(r"url\(|@import|https?://", text)


@pytest.mark.parametrize("state", ["up", "degraded", "down", "maintenance", None])
def test_everybody_is_told_a_word_and_no_details(state):
    document = compose() | {"state": state}
    short = status_page.short(document)
    assert short == {"status": state or "unknown", "at": "2027-01-15T08:00:00Z"}
    text = status_page.public_page(short)
    assert f">{state or 'unknown'}</span>" in text
    assert not any(word in text for word in (RELEASE, "agent1", "lab", "%</"))


def test_the_page_with_details_is_written_only_for_operators(tmp_path):
    edge_status.write(tmp_path / "a", compose(), operators=False)
    edge_status.write(tmp_path / "b", compose(), operators=True)
    assert sorted(path.name for path in (tmp_path / "a").rglob("*.*")) == ["public.html", "public.json"]
    assert json.loads((tmp_path / "b/operations/status.json").read_text())["fleet"] == "lab"
    assert RELEASE in (tmp_path / "b/operations/index.html").read_text()


def test_alerts_that_fire_come_the_worst_first():
    def alert(name, severity, state="firing"):
        labels = {"alertname": name, "severity": severity, "instance": "agent1"}
        return {"state": state, "labels": labels, "annotations": {"summary": "Look."}, "activeAt": "2026"}

    found = alerts_of({"alerts": [alert("B", "ticket"), alert("A", "page"), alert("C", "page", "pending")]})
    assert [one["name"] for one in found] == ["A", "B"]
    assert found[0] == {"name": "A", "severity": "page", "host": "agent1", "since": "2026", "summary": "Look."}


def test_one_service_that_is_half_removed_keeps_no_other_from_its_pages(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(edge_status, "SETTINGS", tmp_path)
    monkeypatch.setattr(edge_status, "PAGES", tmp_path / "pages")
    (tmp_path / "broken.json").write_text("{")
    names = {"service": "shop", "fleet": "lab", "host": "edge1", "hosts": NAMES, "prometheus": "", "operators": True}
    (tmp_path / "shop.json").write_text(json.dumps({**names, "certificate": str(tmp_path / "none.crt")}))
    assert edge_status.main() == 1
    assert "broken.json" in capsys.readouterr().err
    assert json.loads((tmp_path / "pages/shop/public.json").read_text())["status"] == "unknown"
