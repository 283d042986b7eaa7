import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import structlog
from servers import PASSWORD, Model, Postgres, Redis
from service import Client, LocalService, migrate
from work import SECRET, TOKEN, Receiver, Site

DATABASE, TEMPLATE = "agent", "template_of_agent"
# Short, so that failures are quick; the retries' own pauses stay as they are.
MODEL_SECONDS = 2

# No property here is of how long something takes, and machines are slow at times.
hypothesis.settings.register_profile("service", deadline=None)
hypothesis.settings.load_profile("service")

# Not as rich as it would be where rich is installed: that takes seconds, and services under test wait for it.
structlog.configure(
    processors=[
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback),
    ]
)


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
def other_model_server() -> Iterator[Model]:
    server = Model()
    yield server
    server.stop()


@pytest.fixture
def other_model(other_model_server: Model) -> Model:
    """A second provider, to fall back on."""
    other_model_server.reset()
    return other_model_server


@pytest.fixture(scope="session")
def database(postgres: Postgres) -> str:
    postgres.create_database(DATABASE)
    process = migrate(postgres.port, DATABASE)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    # Nobody uses this one, as PostgreSQL wants it of what is copied.
    postgres.copy_database(DATABASE, TEMPLATE, DATABASE)
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
        # All tests are one address.
        "address_failures_per_minute": 0,
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


Run = Callable[[dict[str, Any]], LocalService]

_numbers = count()


@contextlib.contextmanager
def _services() -> Iterator[Run]:
    services: list[LocalService] = []

    def start(settings: dict[str, Any]) -> LocalService:
        # Clients of one URL and timeout share connections in a process; these services have a loop each.
        if seconds := settings.get("model_timeout_seconds"):
            settings = {**settings, "model_timeout_seconds": seconds + next(_numbers) / 1e6}
        services.append(LocalService(settings))
        return services[-1]

    yield start
    for service in services:
        service.ask_to_stop()
    for service in services:
        service.stop()


@pytest.fixture(scope="session")
def run() -> Iterator[Run]:
    with _services() as start:
        yield start


@pytest.fixture
def run_briefly() -> Iterator[Run]:
    """For many services of one test each: PostgreSQL's connections are counted."""
    with _services() as start:
        yield start


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
    postgres: Postgres, model: Model, model_settings: dict[str, Any], receiver: Receiver,
    run_briefly: Run, tmp_path: Path,
) -> Iterator[Site]:  # fmt: skip
    """A database of its own, so that no other test's jobs are in its queue."""
    name = f"site_{uuid.uuid4().hex[:12]}"
    postgres.copy_database(TEMPLATE, name, DATABASE)
    settings = {
        **model_settings,
        "database_name": name,
        "queue": True,
        "uaz_webhook_secret": SECRET,
        "uaz_url": receiver.url,
        "uaz_token": TOKEN,
    }
    made = Site(postgres, name, model, receiver, tmp_path, settings, run_briefly)
    yield made
    made.stop()
