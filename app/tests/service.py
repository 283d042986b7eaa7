"""The service under test: in this process for speed, or as the process that a host runs."""

import json
import os
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import forks
import httpx
import shipped
import uvicorn
from servers import PASSWORD, accepts, end, free_port, wait_for

from agent_service.application import create_app
from agent_service.core.settings import Settings

APP = Path(__file__).parents[1]
KEY = "a-key-for-the-tests-of-this-service"

shipped.share()


@dataclass
class Event:
    name: str
    data: dict[str, Any]


def parse_events(text: str) -> list[Event]:
    events = []
    for block in text.split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if line and not line.startswith(":"))
        if lines:
            events.append(Event(lines["event"], json.loads(lines["data"])))
    return events


class Client(httpx.Client):
    def __init__(self, port: int, key: str | None = KEY) -> None:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        super().__init__(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=30, trust_env=False)

    def chat(self, message: str, **fields: Any) -> httpx.Response:
        return self.post("/api/chat", json={"message": message, **fields})

    def events(self, message: str, **fields: Any) -> list[Event]:
        response = self.post("/api/chat/stream", json={"message": message, **fields})
        assert response.status_code == 200, response.text
        return parse_events(response.text)

    def metric(self, name: str) -> float:
        """The sum over a metric's samples."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


class LocalService:
    """A real uvicorn on a real port, in a thread."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.settings = Settings(_env_file=None, **{"api_key": KEY, **settings})
        self.port = free_port()
        config = uvicorn.Config(
            create_app(self.settings), host="127.0.0.1", port=self.port, log_config=None, access_log=False,
            proxy_headers=False,
        )  # fmt: skip
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        wait_for(lambda: self._server.started or not self._thread.is_alive(), 60, "start-up")
        self.client = Client(self.port)

    def ask_to_stop(self) -> None:
        self.client.close()
        self._server.should_exit = True

    def stop(self) -> None:
        self.ask_to_stop()
        self._thread.join(20)


def environment(**changes: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AGENT_")}
    return {**kept, "PYTHONPATH": str(APP / "src"), "AGENT_API_KEY": KEY, **changes}


def database_environment(port: int, name: str) -> dict[str, str]:
    return {
        "AGENT_DATABASE_PORT": str(port),
        "AGENT_DATABASE_NAME": name,
        "AGENT_DATABASE_USER": name,
        "AGENT_DATABASE_PASSWORD": PASSWORD,
    }


def migrate(port: int, name: str, app: Path = APP) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "alembic", "upgrade", "head"],
        cwd=app, env=environment(**database_environment(port, name)),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


class ProcessService:
    """The command of the unit on a host."""

    def __init__(self, log: Path, **changes: str) -> None:
        self.port = free_port()
        self._log = log
        with log.open("w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "uvicorn", "agent_service.main:app", "--host", "127.0.0.1",
                 "--port", str(self.port), "--no-access-log", "--no-proxy-headers",
                 "--timeout-graceful-shutdown", "20"],
                cwd=APP, env=environment(**changes), stdout=output, stderr=subprocess.STDOUT,
            )  # fmt: skip
        self.client = Client(self.port)

    def wait(self, seconds: float = 60) -> None:
        wait_for(lambda: self.process.poll() is not None or accepts(self.port), seconds, "start-up")
        assert self.process.poll() is None, self.log()

    def log(self) -> str:
        return self._log.read_text()

    def stop(self) -> int:
        self.client.close()
        return end(self.process, 30)


class Worker:
    """The worker's process."""

    def __init__(self, log: Path, **changes: str) -> None:
        self.port = free_port()
        self._log = log
        changes = {"AGENT_QUEUE": "true", "AGENT_WORKER_METRICS_PORT": str(self.port), **changes}
        with log.open("w") as output:
            self.process = forks.start("worker", cwd=APP, env=environment(**changes), stdout=output, stderr=output)
        self.client = Client(self.port, key=None)

    def wait(self) -> "Worker":
        wait_for(lambda: self.process.poll() is not None or '"event": "started"' in self.log(), 60, "start-up")
        assert self.process.poll() is None, self.log()
        return self

    def log(self) -> str:
        return self._log.read_text()

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.client.close()
        return end(self.process, 60)


def agentctl(*arguments: str, **changes: str) -> "subprocess.CompletedProcess[str]":
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = forks.start("agentctl", *arguments, cwd=APP, env=environment(**changes), stdout=output, stderr=errors)
        code = process.wait()
        for file in (output, errors):
            file.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read(), errors.read())
