"""What of a slot was changed by hand, and what was not."""

import json

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import drift
from ansible_collections.agentfleet.vm.plugins.module_utils.identity import identity
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import Service

RELEASE = "agent-111111111111"
ENVIRONMENT, SECRETS, UNITS = {"A": "1"}, {"api_key": "s3cret"}, {"service": "aa", "worker": "bb"}
RECORD = {
    "release": RELEASE,
    "instances": 2,
    "units": UNITS,
    "identity": identity(RELEASE, ENVIRONMENT, SECRETS, 2, UNITS),
}
AS_IT_WAS = {"intact": True, "environment": ENVIRONMENT, "secrets": SECRETS, "units": UNITS}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, []),
        ({"intact": False}, [f"the files of {RELEASE} are not those of its id"]),
        ({"environment": {"A": "2"}}, ["its variables or credentials were changed by hand"]),
        ({"secrets": {}}, ["its variables or credentials were changed by hand"]),
        ({"units": {**UNITS, "service": "cc"}}, ["the unit of its service is another than it was started with"]),
        ({"units": {"service": "aa"}}, ["the unit of its worker is another than it was started with"]),
    ],
)
def test_a_slot_is_what_its_record_says_or_drifts(changes, words):
    found = drift.judge(RECORD, **{**AS_IT_WAS, **changes})
    assert found == words
    assert "s3cret" not in json.dumps(found)


def test_a_unit_that_site_wrote_anew_is_no_change_of_variables():
    """Limits are part of the identity; what is compared is what the slot was started with."""
    found = drift.judge(RECORD, **{**AS_IT_WAS, "units": {"service": "cc", "worker": "dd"}})
    assert found == ["the unit of its service and worker is another than it was started with"]


def test_what_was_added_beside_a_unit_is_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(drift, "UNITS", tmp_path)
    for name in (
        "agent@.service.d/runtime.conf",
        "agent@.service.d/override.conf",
        "agent-worker@blue-1.service.d/x.conf",
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    (tmp_path / "agents@.service.d").mkdir()
    (tmp_path / "agents@.service.d/other.conf").write_text("")
    found = drift.additions(Service("agent", tmp_path))
    assert [line.removeprefix(f"{tmp_path}/") for line in found] == [
        "agent-worker@blue-1.service.d/x.conf was added by hand",
        "agent@.service.d/override.conf was added by hand",
    ]


def test_a_damaged_slot_is_told_once(tmp_path):
    slots = {"blue": {"release": RELEASE, "state": "damaged"}, "green": {"release": None, "state": "empty"}}
    assert drift.of_host(Service("none-of-this-name", tmp_path), slots) == ["blue is damaged"]
