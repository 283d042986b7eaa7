"""A migration that takes something away from older code: whom it keeps out, and what the edge knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support.deploys import Change, appended, committed, options, serving, shares
from support.fleet import TOP, Fleet
from support.load import load_on

EXPAND = 'op.execute("ALTER TABLE conversations ADD COLUMN title text")'
CONTRACT = 'op.execute("ALTER TABLE conversations DROP COLUMN title"); raise_floor("0002")'
UNDO = """
    DROP TABLE IF EXISTS schema_floor;
    ALTER TABLE conversations DROP COLUMN IF EXISTS title;
    UPDATE alembic_version SET version_num = '0001';
"""


def migrating(*bodies: str) -> Change:
    def change(app: Path) -> None:
        appended((TOP / "tests/support/faulty.py").read_text())(app)
        for number, body in enumerate(bodies, 2):
            (app / f"migrations/versions/{number:04}_more.py").write_text(
                "from alembic import op\nfrom agent_service.memory.floor import raise_floor\n\n"
                f"revision = '{number:04}'\ndown_revision = '{number - 1:04}'\n\n\ndef upgrade() -> None:\n    {body}\n"
            )

    return change


@pytest.fixture
def restored(fleet: Fleet) -> Iterator[None]:
    """Afterwards the database is as it was, and the director told so, as after a restore."""
    yield
    fleet.sql(UNDO)
    assert fleet.on("edge1", "agentfleet-director floor --set ''").ok().stdout.strip() == "none"


@pytest.mark.soak
def test_older_code_stays_away_from_a_database_that_was_contracted(
    fleet: Fleet, app: Path, stable: str, restored: None, tmp_path: Path
) -> None:
    expanded = committed(fleet, tmp_path / "expanded", migrating(EXPAND))
    contracted = committed(fleet, tmp_path / "contracted", migrating(EXPAND, CONTRACT))

    hasty = fleet.playbook("deploy", *options(contracted, "hasty", 0))
    assert hasty.returncode != 0
    assert f"release {stable} serves and knows migrations up to 0001" in hasty.stdout
    assert (shares(fleet), fleet.sql("SELECT version_num FROM alembic_version")) == ({stable: 1.0}, "0001")

    with load_on(fleet, 20) as requests:
        fleet.playbook("deploy", *options(expanded, "expanded", 0)).ok()
        middle = serving(fleet)
        fleet.playbook("deploy", *options(contracted, "contracted", 0)).ok()
        newest = serving(fleet)
    assert requests.failures == []
    assert fleet.on("edge1", "agentfleet-director floor").ok().stdout.strip() == "0002"

    for playbook, words in (("rollback", ["-e", f"release={stable}"]), ("deploy", options(app, "stable", 0))):
        refused = fleet.playbook(playbook, *words)
        assert refused.returncode != 0
        assert f"{stable} knows migrations up to 0001, and the database needs code that knows" in refused.stdout
        assert set(refused.changed().values()) == {0}
        assert shares(fleet) == {newest: 1.0}

    # What knows the floor may have the traffic again, warm or started anew, though the database is newer than it.
    fleet.on("edge1", "agentfleet-director rollback").ok()
    assert serving(fleet) == middle
    again = options(expanded, "expanded", 0, agent_environment={"ANOTHER": "value"})
    fleet.playbook("deploy", *again).ok()
    assert serving(fleet) == middle
