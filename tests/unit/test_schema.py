"""What a release's migrations are, read from their source, and what may run on a database that was contracted."""

from __future__ import annotations

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.schema import (
    Schema,
    SchemaError,
    left_behind,
    raises,
    schema_from,
    schema_of,
    unfit,
)


def migration(revision: str, before: object, *floors: str) -> bytes:
    calls = "".join(f"    raise_floor({floor!r})\n" for floor in floors) or "    pass\n"
    return f"revision = {revision!r}\ndown_revision = {before!r}\n\ndef upgrade():\n{calls}".encode()


def files(*migrations: bytes) -> dict[str, bytes]:
    # Named against their order, which down_revision alone gives.
    return {f"db/versions/{9 - number}_x.py": source for number, source in enumerate(migrations)}


def test_migrations_are_read_in_their_order_wherever_they_lie() -> None:
    made = files(migration("a1", None), migration("b2", "a1"), migration("c3", "a1"), migration("d4", ("b2", "c3")))
    assert schema_of(made).revisions in (("a1", "b2", "c3", "d4"), ("a1", "c3", "b2", "d4"))
    annotated = b"revision: str = 'e5'\ndown_revision: str | None = 'd4'\n"
    assert schema_of({**made, "db/versions/e.py": annotated}).revisions[-1] == "e5"


def test_what_is_no_migration_counts_for_nothing() -> None:
    others = {
        "src/shop/versions/list.py": b"VERSIONS = 1\n",
        "migrations/versions/note.txt": b"revision = 'x'\ndown_revision = None\n",
        "migrations/old/0001.py": migration("0001", None),
        "migrations/versions/partial.py": b"down_revision = None\n",
    }
    assert schema_of(others) == Schema()


def test_a_contract_migration_leaves_a_floor() -> None:
    made = files(migration("1", None), migration("2", "1"), migration("3", "2", "2"), migration("4", "3"))
    assert schema_of(made) == Schema(("1", "2", "3", "4"), "2")
    attribute = b"revision = '5'\ndown_revision = '4'\ndef upgrade():\n    floor.raise_floor('5')\n"
    assert schema_of({**made, "db/versions/5.py": attribute}).floor == "5"


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (files(migration("1", None, "2"), migration("2", "1")), "names no migration up to its own"),
        (files(migration("1", None, "0")), "names no migration up to its own"),
        (files(migration("1", None), migration("2", "1", "2"), migration("3", "2", "1")), "below '2'"),
        (files(migration("1", "2"), migration("2", "1")), "in a circle"),
        ({"m/versions/1.py": b"revision = '1'\ndown_revision = None\nraise_floor(f())\n"}, "written out"),
        ({"m/versions/1.py": b"revision = '1'\ndown_revision = None\nraise_floor()\n"}, "written out"),
        ({"m/versions/1.py": b"down_revision =\n"}, "is no Python"),
    ],
)
def test_a_floor_that_cannot_be_told_is_refused(made: dict[str, bytes], problem: str) -> None:
    with pytest.raises(SchemaError, match=problem):
        schema_of(made)


def test_what_is_kept_comes_back() -> None:
    schema = Schema(("1", "2"), "2")
    assert schema_from(schema.to_dict()) == schema
    assert schema_from(None) is None
    assert schema_from({}) is None


def test_a_release_that_does_not_know_the_floor_is_unfit() -> None:
    assert unfit("1.0", Schema(("1", "2")), "") == ""
    assert unfit("1.0", None, "") == ""
    assert unfit("1.0", Schema(("1", "2")), "2") == ""
    text = unfit("1.0", Schema(("1", "2")), "3")
    assert text.startswith("release 1.0 knows migrations up to 2, and the database needs code that knows migration 3:")
    assert "deploy a newer release, or restore" in text
    assert "does not say which" in unfit("1.0", None, "3")
    assert "knows no migrations" in unfit("1.0", Schema(), "3")
    assert left_behind("1.0", Schema(("1",)), "1", "2.0") == ""
    assert "release 1.0 serves and knows migrations up to 1" in left_behind("1.0", Schema(("1",)), "2", "2.0")


def test_a_floor_only_rises() -> None:
    schema = Schema(("1", "2", "3"), "2")
    assert raises(schema, "")
    assert raises(schema, "1")
    assert not raises(schema, "2")
    assert not raises(schema, "3")
    assert not raises(Schema(("1", "2")), "")
    assert not raises(None, "")
