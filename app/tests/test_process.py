"""The process as a host runs it: start, service manager, logs, stop."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import PASSWORD, Model, Postgres, Redis, free_port
from service import KEY, ProcessService, database_environment, environment, parse_events
from sockets import Socket, closed

# uvicorn ends itself with the signal it was stopped by, which a service manager takes as success.
STOPPED = (0, -signal.SIGTERM)

Start = Callable[..., ProcessService]


@pytest.fixture
def start(postgres: Postgres, redis: Redis, database: str, tmp_path: Path) -> Iterator[Start]:
    services: list[ProcessService] = []

    def begin(**changes: str) -> ProcessService:
        settings = {
            **database_environment(postgres.port, database),
            "AGENT_REDIS_PORT": str(redis.port),
            "AGENT_REDIS_PASSWORD": PASSWORD,
        }
        services.append(ProcessService(tmp_path / f"log-{len(services)}", **{**settings, **changes}))
        return services[-1]

    yield begin
    for service in services:
        service.stop()


class Manager:
    """The service manager's end of the socket."""

    def __init__(self, address: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(address.replace("@", "\0", 1) if address.startswith("@") else address)
        self._socket.settimeout(60)

    def next(self) -> str:
        return self._socket.recv(4096).decode()

    def until(self, text: str) -> list[str]:
        states = [self.next()]
        while text not in states[-1]:
            states.append(self.next())
        return states

    def close(self) -> None:
        self._socket.close()


def test_start_and_stop_are_notified_though_the_database_is_down(start: Start, tmp_path: Path) -> None:
    listener = Manager(str(tmp_path / "notify"))
    service = start(
        NOTIFY_SOCKET=str(tmp_path / "notify"),
        WATCHDOG_USEC="400000",
        AGENT_RELEASE="r1",
        AGENT_DATABASE_PORT=str(free_port()),
        AGENT_DATABASE_WAIT_SECONDS="0.2",
    )
    assert "Release r1, model offline" in listener.until("READY=1")[-1]
    for _ in range(4):
        listener.until("WATCHDOG=1")
    service.process.terminate()
    listener.until("STOPPING=1")
    assert service.process.wait(10) in STOPPED
    listener.close()


def test_logs_are_json_without_texts_or_secrets(start: Start, model: Model) -> None:
    service = start(AGENT_MODEL_URL=model.url, AGENT_MODEL_KEY=model.key, AGENT_MODEL_RETRIES="0", AGENT_RELEASE="r2")
    service.wait()
    request = {"message": "a very private question", "session_id": "log-session", "user_id": "ana"}
    answer = service.client.post("/api/chat", json=request, headers={"X-Request-Id": "find-me"})
    assert answer.status_code == 200
    # The classifier fails first, which costs nobody an answer.
    model.control(fail_next=2, status=400)
    assert service.client.post("/api/chat", json=request).status_code == 502
    service.client.post("/api/chat", json={"message": "a very private question\x00"})
    service.client.get("/chat/stream", params={"message": "a very private question"})
    assert service.stop() in STOPPED
    lines = [json.loads(line) for line in service.log().splitlines()]
    found = next(line for line in lines if (line.get("request_id"), line["event"]) == ("find-me", "request"))
    assert found["route"] == "/api/chat"
    assert found["status"] == 200
    assert found["session_id"] == "log-session"
    assert found["release"] == "r2"
    failed = next(line for line in lines if line["event"] == "model_failed")
    assert failed["exception"][-1] == "agent_service.models.wire.Refusal"
    assert {"model-refused", "invalid-request"} <= {line.get("problem") for line in lines}
    for secret in ("private", KEY, PASSWORD, model.key):
        assert secret not in service.log()


def test_credentials_come_from_files_and_a_stop_lets_streams_end(start: Start, tmp_path: Path) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "agent_api_key").write_text("a-key-from-a-credential\n")
    (credentials / "agent_database_password").write_text(PASSWORD)
    service = start(
        CREDENTIALS_DIRECTORY=str(credentials),
        AGENT_DATABASE_PASSWORD="a-stale-variable",
        AGENT_OFFLINE_TOKENS_PER_SECOND="20",
    )
    service.wait()
    body = {"message": "Hi"}
    assert service.client.post("/api/chat", json=body).status_code == 401
    service.client.headers["Authorization"] = "Bearer a-key-from-a-credential"
    with service.client.stream("POST", "/api/chat/stream", json=body) as response:
        assert response.status_code == 200
        lines = response.iter_lines()
        head = next(lines)
        service.process.terminate()
        text = "\n".join([head, *lines])
    assert parse_events(text)[-1].name == "done"
    assert service.process.wait(10) in STOPPED


def test_stop_lets_an_answer_end_on_its_socket_and_closes_the_others(start: Start) -> None:
    service = start(AGENT_OFFLINE_TOKENS_PER_SECOND="20")
    service.wait()
    with Socket(service.port, query="?key=private") as silent, Socket(service.port) as socket:
        socket.send(message="Hi")
        socket.send(message="This one comes too late")
        assert socket.next()["event"] == "token"
        service.process.terminate()
        assert closed(silent) == 1012
        assert socket.answer()[-1]["event"] == "done"
        assert closed(socket) == 1012
    assert service.process.wait(10) in STOPPED
    assert "private" not in service.log()


def test_start_is_refused_in_one_line(start: Start) -> None:
    service = start(AGENT_API_KEY="changeme", AGENT_DATABASE_PORT="many")
    assert service.process.wait(30) == 1
    lines = sorted(service.log().splitlines())
    assert [line.partition(" ")[0] for line in lines] == ["AGENT_API_KEY", "AGENT_DATABASE_PORT"]
    assert "is a placeholder" in lines[0]


def test_hung_loop_stops_feeding_the_watchdog() -> None:
    script = """
import asyncio, time
from agent_service.core import systemd

async def main():
    async with systemd.watchdog():
        await asyncio.sleep(0.3)
        systemd.notify("STATUS=hung")
        time.sleep(0.6)
        systemd.notify("STATUS=over")

asyncio.run(main())
"""
    address = f"@agent-hang-{os.getpid()}"
    listener = Manager(address)
    process = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(NOTIFY_SOCKET=address, WATCHDOG_USEC="200000")
    )
    assert len(listener.until("STATUS=hung")) >= 3
    assert listener.until("STATUS=over") == ["STATUS=over"]
    assert process.wait(10) == 0
    listener.close()
