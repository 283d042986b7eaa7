import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import PASSWORD, Model, Postgres, Redis
from service import Client, LocalService, migrate
from work import SECRET, TOKEN, Receiver, Site

DATABASE = "agent"
# Short, so that failures are quick; the retries' own pauses stay as they are.
MODEL_SECONDS = 1


@pytest.fixture(scope="session")
def directory() -> Iterator[Path]:
    # Not pytest's own: those are closed to the account that PostgreSQL runs as.
    path = Path(tempfile.mkdtemp(prefix="agent-tests-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="session")
def postgres(directory: Path) -> Iterator[Postgres]:
    (directory / "postgres").mkdir()
    server = Postgres(directory / "postgres")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def redis(directory: Path) -> Iterator[Redis]:
    (directory / "redis").mkdir()
    server = Redis(directory / "redis")
    yield server
    server.stop()


@pytest.fixture(scope="session")
def model_server() -> Iterator[Model]:
    server = Model()
    yield server
    server.stop()


@pytest.fixture
def model(model_server: Model) -> Model:
    model_server.reset()
    return model_server


@pytest.fixture(scope="session")
def database(postgres: Postgres) -> str:
    postgres.create_database(DATABASE)
    process = migrate(postgres.port, DATABASE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return DATABASE


@pytest.fixture(scope="session")
def base_settings(postgres: Postgres, redis: Redis, database: str) -> dict[str, Any]:
    return {
        "database_port": postgres.port,
        "database_name": database,
        "database_user": database,
        "database_password": PASSWORD,
        "database_wait_seconds": 1,
        "redis_port": redis.port,
        "redis_password": PASSWORD,
    }


@pytest.fixture(scope="session")
def model_settings(base_settings: dict[str, Any], model_server: Model) -> dict[str, Any]:
    return {
        **base_settings,
        "model_url": model_server.url,
        "model_key": model_server.key,
        "model_timeout_seconds": MODEL_SECONDS,
        "model_retries": 1,
    }


@pytest.fixture(scope="session")
def run() -> Iterator[Callable[[dict[str, Any]], LocalService]]:
    services: list[LocalService] = []

    def start(settings: dict[str, Any]) -> LocalService:
        services.append(LocalService(settings))
        return services[-1]

    yield start
    for service in services:
        service.ask_to_stop()
    for service in services:
        service.stop()


@pytest.fixture(scope="session")
def service(run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any]) -> LocalService:
    return run(model_settings)


@pytest.fixture(scope="session")
def peer(run: Callable[[dict[str, Any]], LocalService], model_settings: dict[str, Any]) -> LocalService:
    """A second instance on the same database and Redis."""
    return run(model_settings)


@pytest.fixture(scope="session")
def offline(run: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any]) -> LocalService:
    return run({**base_settings, "model_key": ""})


@pytest.fixture
def client(service: LocalService, model: Model) -> Client:
    return service.client


@pytest.fixture
def session_id() -> str:
    return f"session-{uuid.uuid4()}"


@pytest.fixture
def stored(postgres: Postgres, database: str) -> Callable[[str], list[tuple[int, str, str]]]:
    """What a conversation has in the database."""

    def rows(session_id: str) -> list[tuple[int, str, str]]:
        query = "SELECT position, role, content FROM messages WHERE conversation_id = %s ORDER BY position"
        return postgres.execute(query, database, [session_id])

    return rows


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    yield server
    server.stop()


@pytest.fixture
def site(
    postgres: Postgres, redis: Redis, model: Model, model_settings: dict[str, Any], receiver: Receiver,
    run: Callable[[dict[str, Any]], LocalService], directory: Path, tmp_path: Path,
) -> Iterator[Site]:  # fmt: skip
    """A database of its own, so that no other test's jobs are in its queue."""
    name = f"site_{uuid.uuid4().hex[:12]}"
    postgres.create_database(name)
    process = migrate(postgres.port, name)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    settings = {
        **model_settings,
        "database_name": name,
        "database_user": name,
        "queue": True,
        "uaz_webhook_secret": SECRET,
        "uaz_url": receiver.url,
        "uaz_token": TOKEN,
    }
    made = Site(postgres, name, model, receiver, tmp_path, settings, run)
    yield made
    made.stop()
