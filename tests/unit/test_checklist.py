"""The checklist before a deploy: each line's result and figure, from what was observed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.checklist import MISSING, OK, WARNING, Seen, items, lines

PROOF = {"file": "junit.xml", "sha256": "ab" * 32, "tests": 12, "failed": 0, "older": False}
RELEASE = {
    "id": "2.0-000000000002",
    "commit": "c0ffee" * 6,
    "proof": PROOF,
    "schema": {"revisions": ["0001", "0002"], "floor": ""},
}
SEEN = Seen(
    release=RELEASE,
    current="1.0-000000000001",
    secrets={"api_key": True, "model_key": True},
    disks={"agent1": 9000, "agent2": 8000},
    disk_wanted_mb=1024,
    certificate_days=70,
    stored=("1.0-000000000001",),
)


def line(seen: Seen, about: str) -> tuple[str, str]:
    found = [item for item in items(seen) if item.about == about]
    assert len(found) == 1
    return found[0].status, found[0].text


def test_all_is_said_and_all_is_well() -> None:
    said = lines(SEEN)
    assert said[0] == "checklist:"
    assert [item.status for item in items(SEEN)] == [OK] * 9
    assert "  ok       tests        12 passed: junit.xml, sha256 abababababab" in said
    assert "  ok       disk         agent2 has the least, 8000 MB free; at least 1024 are wanted" in said
    assert "  ok       certificate  70 days left" in said
    assert "  ok       way back     1.0-000000000001, which serves now; the edge keeps it" in said


NOW = 1_800_000_000.0
BACKED_UP = {"now": NOW, "postgres": {"at": NOW - 3 * 3600}, "redis": {"at": NOW - 4 * 3600}}


def released(**more: Any) -> Seen:
    return replace(SEEN, release={**RELEASE, **more})


def backed_up(**more: Any) -> Seen:
    return replace(SEEN, backups={"ops1": {**BACKED_UP, **more}})


@pytest.mark.parametrize(
    ("seen", "about", "status", "text"),
    [
        (released(proof=None), "tests", MISSING, "agent_proof names the file"),
        (released(proof={"file": "junit.xml", "sha256": ""}), "tests", MISSING, "there is no junit.xml"),
        (released(proof={**PROOF, "failed": 2}), "tests", WARNING, "2 of 12 failed"),
        (released(proof={**PROOF, "tests": 0}), "tests", WARNING, "no test in it"),
        (released(proof={**PROOF, "older": True}), "tests", WARNING, "before the code was committed"),
        (released(proof={**PROOF, "tests": None, "failed": None}), "tests", OK, "junit.xml, sha256"),
        (replace(SEEN, uncommitted=("a", "b", "c", "d")), "code", WARNING, "not committed: a, b, c and 1 more"),
        (released(commit=""), "code", OK, "of no commit"),
        (replace(SEEN, current=""), "way back", WARNING, "nothing was deployed before"),
        (replace(SEEN, stored=()), "way back", WARNING, "the edge does not keep it"),
        (replace(SEEN, floor="0002"), "database", OK, "needs code that knows migration 0002"),
        (replace(SEEN, floor="0003"), "database", MISSING, "0003, which this release does not"),
        (released(schema={"revisions": ["0001"], "floor": "0001"}), "database", WARNING, "then 0001"),
        (replace(SEEN, secrets={"api_key": True, "model_key": False}), "secrets", WARNING, "1 set; empty: model_key"),
        (replace(SEEN, disks={"agent1": 1500}), "disk", WARNING, "1500 MB"),
        (replace(SEEN, disks={"agent1": 900, "agent2": 9000}), "disk", MISSING, "agent1 has the least, 900 MB"),
        (replace(SEEN, disks={}), "disk", MISSING, "no host told"),
        (replace(SEEN, certificate_days=13), "certificate", WARNING, "13 days left"),
        (replace(SEEN, certificate_days=-2), "certificate", MISSING, "ended 2 days ago"),
        (replace(SEEN, certificate_days=None), "certificate", MISSING, "shows none"),
        (SEEN, "backup", OK, "not asked, for no restore point is made"),
        (replace(SEEN, backups={"ops1": None}), "backup", MISSING, "ops1, which keeps them, did not say"),
        (replace(SEEN, backups={"ops1": {"now": NOW}}), "backup", MISSING, "of PostgreSQL none yet"),
        (replace(SEEN, backups={"ops1": BACKED_UP}), "backup", OK, "postgres 3 h ago, redis 4 h ago"),
        (backed_up(postgres={"at": NOW - 30 * 3600}), "backup", WARNING, "the last backup of postgres is 30 h old"),
        (backed_up(drill={"ok": False, "at": NOW, "lines": []}), "backup", WARNING, "rehearsed restore failed"),
    ],
)
def test_what_is_not_well_says_how(seen: Seen, about: str, status: str, text: str) -> None:
    found = line(seen, about)
    assert found[0] == status
    assert text in found[1]
