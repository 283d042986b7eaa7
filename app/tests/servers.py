"""Private servers for the tests: PostgreSQL, Redis and the model, each on a free loopback port."""

import contextlib
import json
import os
import pwd
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from forks import Forked

INSTALL = "apt-get install --yes postgresql redis-server"
MODEL_SERVER = Path(__file__).parents[2] / "tests" / "support" / "model_server.py"
PASSWORD = "4f0c2b7d9e61"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.05)


def binary(name: str) -> str:
    found = shutil.which(name) or next(
        (str(path) for path in sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)), None
    )
    if not found:
        pytest.exit(f"{name} is missing; install it with: {INSTALL}", returncode=3)
    return found


def unprivileged() -> list[str]:
    """PostgreSQL refuses root, so root runs it as the account that its package made."""
    return ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []


class Postgres:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._connections: dict[str, psycopg.Connection[Any]] = {}
        self._data = directory / "data"
        self._log = directory / "log"
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(directory, owner.pw_uid, owner.pw_gid)
        password = directory / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        self._run("initdb", "-U", "postgres", "-A", "scram-sha-256", f"--pwfile={password}", "-E", "UTF8",
                  "--locale=C.UTF-8", "--no-sync")  # fmt: skip
        subprocess.run(
            [*unprivileged(), "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", "/CN=localhost", "-keyout", self._data / "server.key",
             "-out", self._data / "server.crt"],
            check=True, capture_output=True,
        )  # fmt: skip
        settings = {
            "port": self.port,
            "listen_addresses": "'127.0.0.1'",
            "unix_socket_directories": f"'{directory}'",
            "ssl": "on",
            "fsync": "off",
            "shared_buffers": "'16MB'",
            # The services of a whole run, most of which stay until its end.
            "max_connections": 400,
        }
        with (self._data / "postgresql.conf").open("a") as configuration:
            configuration.writelines(f"{name} = {value}\n" for name, value in settings.items())
        self.start()

    def start(self) -> None:
        self._run("pg_ctl", "-l", str(self._log), "-w", "start")

    def stop(self) -> None:
        for database in list(self._connections):
            self.forget(database)
        self._run("pg_ctl", "-m", "immediate", "-w", "stop")

    def execute(self, statement: str, database: str = "postgres", parameters: Any = None) -> list[Any]:
        # One connection a database, since what is waited for is asked for again and again.
        connection = self._connections.get(database)
        if connection is None or not self._lives(connection):
            connection = self._connections[database] = psycopg.connect(
                host="127.0.0.1", port=self.port, dbname=database, user="postgres", password=PASSWORD, autocommit=True
            )
        result = connection.execute(statement, parameters)  # type: ignore[arg-type]
        return result.fetchall() if result.description else []

    def forget(self, database: str) -> None:
        if connection := self._connections.pop(database, None):
            connection.close()

    @staticmethod
    def _lives(connection: "psycopg.Connection[Any]") -> bool:
        """Whether the server has said nothing unasked, as it does when it stops."""
        if connection.closed:
            return False
        readable, _, _ = select.select([connection.fileno()], [], [], 0)
        return not readable

    def create_database(self, name: str) -> None:
        self.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'")
        self.execute(f"CREATE DATABASE {name} OWNER {name}")

    def copy_database(self, template: str, name: str, owner: str) -> None:
        self.execute(f"CREATE DATABASE {name} TEMPLATE {template} OWNER {owner}")

    def _run(self, name: str, *arguments: str) -> None:
        result = subprocess.run(
            [*unprivileged(), binary(name), "-D", str(self._data), *arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd="/",
        )  # fmt: skip
        if result.returncode:
            log = self._log.read_text() if self._log.exists() else ""
            raise RuntimeError(f"{name} failed: {result.stderr}{log[-2000:]}")


class Redis:
    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(
            [binary("redis-server"), "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--requirepass", PASSWORD, "--dir", str(self._directory)],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(lambda: accepts(self.port), 10, "Redis")

    def stop(self) -> None:
        if self._process:
            end(self._process)
            self._process = None


class Model:
    """The model server, and what tests tell it and ask it."""

    key = "a-key-of-the-local-model"

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(MODEL_SERVER), "--port", "0", "--key", self.key], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self.url = f"http://{self._process.stdout.readline().split()[-1]}"
        self._client = httpx.Client(base_url=self.url, trust_env=False)

    def control(self, **changes: Any) -> None:
        # With escapes, so that any string can be asked for.
        self._client.post("/_control", content=json.dumps(changes)).raise_for_status()

    def reset(self) -> None:
        self.control(reset=True)
        self._client.delete("/_requests").raise_for_status()

    def requests(self) -> list[dict[str, Any]]:
        kept: list[dict[str, Any]] = self._client.get("/_requests").json()["requests"]
        return kept

    def stop(self) -> None:
        self._client.close()
        end(self._process)


def accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def end(process: "subprocess.Popen[Any] | Forked", seconds: float = 10) -> int:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
    return process.wait()
