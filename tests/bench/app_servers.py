"""What the bench of the agent service runs: real servers, the service as a host has it, and its peers."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from common import TOP

sys.path.insert(0, str(TOP / "app/tests"))

from servers import PASSWORD, Postgres, Redis, end, free_port, wait_for

PEERS = Path(__file__).parent / "app_peers"
KEY = "a-key-for-the-bench-of-this-service"
COMMAND = ("--host", "127.0.0.1", "--no-access-log", "--no-server-header", "--timeout-keep-alive", "75")


@dataclass(frozen=True)
class Server:
    """A process and its port on loopback."""

    process: subprocess.Popen[bytes]
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def resident(self) -> float:
        """Megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def processor_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def environment(name: str, requirements: Path) -> Path:
    """The Python of a virtual environment that has REQUIREMENTS and nothing else, compiled as a host's is."""
    place = TOP / ".build" / name
    installed = place / "requirements.txt"
    if not installed.exists() or installed.read_bytes() != requirements.read_bytes():
        subprocess.run(["uv", "venv", "--quiet", "--clear", "--python", sys.executable, place], check=True)
        subprocess.run(
            [
                *("uv", "pip", "install", "--quiet", "--compile-bytecode", "--require-hashes"),
                *("--python", place / "bin/python", "-r", requirements),
            ],
            check=True,
        )
        shutil.copy(requirements, installed)
    return place / "bin/python"


class Bench:
    """PostgreSQL, Redis, a model, and the environments of the service and of its peers, for as long as one run."""

    def __init__(self, directory: Path) -> None:
        self.python = environment("bench-app", TOP / "app/requirements.txt")
        self.peers = environment("bench-peers", TOP / "requirements/bench_app.txt")
        subprocess.run([self.python, "-m", "compileall", "-q", TOP / "app/src"], check=True)
        self._directory = directory
        for name in ("postgres", "redis"):
            (directory / name).mkdir()
        self.postgres = Postgres(directory / "postgres")
        self.redis = Redis(directory / "redis")
        self.postgres.create_database("agent")
        subprocess.run(
            [self.python, "-m", "alembic", "upgrade", "head"], cwd=TOP / "app", env=self._environment(), check=True
        )
        self.model = self._start("model", [self.peers, PEERS / "model.py"], os.environ)
        wait_for(lambda: self._answers(f"{self.model.url}/_count"), 20, "the model")

    def control(self, **changes: float) -> None:
        httpx.post(f"{self.model.url}/_control", json=changes).raise_for_status()

    def calls(self) -> int:
        return int(httpx.get(f"{self.model.url}/_count").json()["count"])

    def import_seconds(self, statement: str) -> float:
        began = time.monotonic()
        subprocess.run([self.python, "-c", statement], check=True)
        return time.monotonic() - began

    @contextmanager
    def service(self, **changes: str) -> Iterator[Server]:
        """One process of the agent service, everything on."""
        with self._running("service", self.python, "agent_service.main:app", self._environment(**changes)) as server:
            yield server

    @contextmanager
    def peer(self, name: str) -> Iterator[Server]:
        variables = {**os.environ, "OPENAI_BASE_URL": self.model.url, "OPENAI_API_KEY": "local"}
        with self._running(name, self.peers, f"{name}:app", {**variables, "PYTHONPATH": str(PEERS)}) as server:
            yield server

    def stop(self) -> None:
        end(self.model.process)
        self.redis.stop()
        self.postgres.stop()

    @contextmanager
    def _running(self, name: str, python: Path, app: str, variables: Mapping[str, str]) -> Iterator[Server]:
        server = self._start(name, [python, "-m", "uvicorn", app, *COMMAND, "--port"], variables)
        try:
            wait_for(lambda: self._answers(f"{server.url}/ready"), 60, name)
            yield server
        finally:
            end(server.process, 30)

    def _start(self, name: str, command: list[Any], variables: Mapping[str, str]) -> Server:
        port = free_port()
        with (self._directory / f"{name}.log").open("ab") as output:
            process = subprocess.Popen(
                [*command, str(port)], env=dict(variables), cwd=TOP / "app", stdout=output, stderr=output
            )
        return Server(process, port)

    def _environment(self, **changes: str) -> dict[str, str]:
        kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_")}
        settings = {
            "api_key": KEY,
            "database_port": self.postgres.port,
            "database_name": "agent",
            "database_user": "agent",
            "database_password": PASSWORD,
            "redis_port": self.redis.port,
            "redis_password": PASSWORD,
            "model_url": self.model.url if hasattr(self, "model") else "",
            "model_key": "local",
            "queue": "true",
            "tiers": json.dumps({"enterprise": {"requests_per_day": 100_000_000}}),
            "trusted_hosts": "127.0.0.1",
            **changes,
        }
        return {
            **kept,
            "PYTHONPATH": str(TOP / "app/src"),
            "PYTHONDONTWRITEBYTECODE": "1",
            **{f"AGENT_{name.upper()}": str(value) for name, value in settings.items() if value != ""},
        }

    def _answers(self, url: str) -> bool:
        # Not by a client that is made for it: making one takes longer than the question.
        address, path = url.removeprefix("http://").split("/", 1)
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", f"/{path}")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()


@contextmanager
def bench() -> Iterator[Bench]:
    # Not below the checkout, which may be closed to the account that PostgreSQL runs as.
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    directory.chmod(0o755)
    made = Bench(directory)
    try:
        yield made
    finally:
        made.stop()
        shutil.rmtree(directory)


def seconds_until_ready(server_context: Any) -> tuple[float, float]:
    """From the start of a process to its first ready answer, and its megabytes a moment later."""
    began = time.monotonic()
    with server_context as server:
        seconds = time.monotonic() - began
        time.sleep(2)
        return seconds, server.resident()
