import subprocess
from typing import Any

from servers import Postgres, free_port
from service import migrate


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
    assert sum(output.count("Running upgrade") for _, output, _ in results) == 1
    assert tables(postgres, "several") == ["alembic_version", "conversations", "messages"]
    code, output, _ = finish(migrate(postgres.port, "several"))
    assert code == 0
    assert "Running upgrade" not in output


def test_database_that_does_not_answer_is_one_line() -> None:
    code, _, errors = finish(migrate(free_port(), "nobody"))
    assert code != 0
    assert errors.startswith("The migration stopped: connection failed")
    assert "Traceback" not in errors
