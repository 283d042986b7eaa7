import shutil
import subprocess
from pathlib import Path
from typing import Any

from servers import Postgres, free_port
from service import APP, migrate

MIGRATION = """
from alembic import op
from agent_service.memory.floor import raise_floor

revision = {revision!r}
down_revision = {before!r}


def upgrade() -> None:
    {body}
"""


# Of this release, in their order.
VERSIONS = sorted(path.name[:4] for path in (APP / "migrations/versions").glob("0*.py"))
NEXT = f"{int(VERSIONS[-1]) + 1:04}"


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    output, errors = process.communicate(timeout=60)
    return process.returncode, output, errors


def tables(postgres: Postgres, database: str) -> list[Any]:
    query = "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1"
    return [name for (name,) in postgres.execute(query, database)]


def test_from_empty_by_several_at_once_and_again(postgres: Postgres) -> None:
    postgres.create_database("several")
    processes = [migrate(postgres.port, "several") for _ in range(2)]
    results = [finish(process) for process in processes]
    assert [code for code, _, _ in results] == [0, 0], results
    assert sum(output.count("Running upgrade") for _, output, _ in results) == len(VERSIONS)
    expected = {"alembic_version", "analyses", "audit", "cash_entries", "conversations", "feedback", "messages",
                "model_calls"}  # fmt: skip
    assert expected <= set(tables(postgres, "several"))
    code, output, _ = finish(migrate(postgres.port, "several"))
    assert code == 0
    assert "Running upgrade" not in output


def test_a_library_that_the_migration_was_not_made_for_is_one_line(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create_database("unpinned")
    app = release(tmp_path)
    other = "99.00.00_01_something_else"
    patch = f"from agent_service.work import schema\nschema.packaged = lambda: [{other!r}]\n"
    (app / "migrations/env.py").write_text(patch + (app / "migrations/env.py").read_text())
    code, _, errors = finish(migrate(postgres.port, "unpinned", app))
    assert code != 0
    assert errors.startswith(f"The migration stopped: procrastinate's tables are of {other}, this release's migrations")
    assert "Traceback" not in errors
    assert "procrastinate_jobs" not in tables(postgres, "unpinned")


def test_database_that_does_not_answer_is_one_line() -> None:
    code, _, errors = finish(migrate(free_port(), "nobody"))
    assert code != 0
    assert errors.startswith("The migration stopped: connection failed")
    assert "Traceback" not in errors


def release(directory: Path, *bodies: str) -> Path:
    """The app with further migrations of its own."""
    app = directory / f"with-{len(bodies)}"
    shutil.copytree(APP / "migrations", app / "migrations")
    shutil.copy(APP / "alembic.ini", app)
    before = VERSIONS[-1]
    for number, body in enumerate(bodies, int(NEXT)):
        text = MIGRATION.format(revision=f"{number:04}", before=before, body=body)
        before = f"{number:04}"
        (app / "migrations/versions" / f"{before}_more.py").write_text(text)
    return app


def test_older_code_finds_nothing_to_do_in_a_newer_database_until_that_contracts(
    postgres: Postgres, tmp_path: Path
) -> None:
    postgres.create_database("contracted")
    expand = 'op.execute("ALTER TABLE conversations ADD COLUMN title text")'
    contract = f'op.execute("ALTER TABLE conversations DROP COLUMN user_id"); raise_floor("{NEXT}")'
    older, middle, newer = release(tmp_path), release(tmp_path, expand), release(tmp_path, expand, contract)

    def run(app: Path) -> tuple[int, str, str]:
        return finish(migrate(postgres.port, "contracted", app))

    assert run(middle)[0] == 0
    code, output, errors = run(older)
    assert code == 0, errors
    assert "newer than this release" in output
    assert run(newer)[0] == 0
    assert run(middle)[0] == 0
    code, _, errors = run(older)
    assert code != 0
    assert errors.startswith(f"The migration stopped: the database needs code that knows migration {NEXT}")
    assert "Traceback" not in errors


def test_a_contract_migration_that_fails_raises_nothing(postgres: Postgres, tmp_path: Path) -> None:
    postgres.create_database("unraised")
    app = release(tmp_path, 'raise_floor("0001"); op.execute("DROP TABLE nothing")')
    assert finish(migrate(postgres.port, "unraised", app))[0] != 0
    assert "schema_floor" not in tables(postgres, "unraised")
