"""Tools of real MCP servers, by both transports, and of one that is away."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from servers import Model, accepts, end, free_port, wait_for
from service import Client, LocalService

Run = Callable[[dict[str, Any]], LocalService]

SERVER = Path(__file__).with_name("mcp_server.py")


class HttpServer:
    def __init__(self) -> None:
        self.port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self.process = subprocess.Popen([sys.executable, str(SERVER), "streamable-http", str(self.port)])
        wait_for(lambda: accepts(self.port), 20, "the MCP server")

    def stop(self) -> None:
        if self.process:
            end(self.process)


@pytest.fixture
def http_server() -> Iterator[HttpServer]:
    server = HttpServer()
    yield server
    server.stop()


def team_file(directory: Path, **servers: Any) -> str:
    general = {"id": "general", "name": "G", "description": "All.", "prompt": "Answer.", "mcp_servers": list(servers)}
    path = directory / "team.yml"
    path.write_text(yaml.safe_dump({"specialists": [general], "mcp_servers": servers}))
    return str(path)


def offered(client: Client, model: Model) -> list[str]:
    client.chat("Hello")
    return [tool["function"]["name"] for tool in model.requests()[-1]["body"].get("tools", [])]


def state(client: Client, name: str) -> str:
    response = client.get("/ready")
    assert response.status_code == 200
    return str(response.json()["checks"][f"mcp_{name}"]["status"])


def use(client: Client, model: Model, name: str, item: str) -> str:
    model.control(tool_call={"name": name, "arguments": {"item": item}}, answer="Done.")
    assert client.chat("Hello").json()["response"] == "Done."
    message = model.requests()[-1]["body"]["messages"][-1]
    assert message["role"] == "tool"
    return str(message["content"])


def test_stdio_server(
    run: Run, model_settings: dict[str, Any], model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHELF_NUMBER", "on shelf 3")
    stock = {"transport": "stdio", "command": sys.executable, "args": [str(SERVER), "stdio"],
             "env": {"SHELF": "${SHELF_NUMBER}"}}  # fmt: skip
    client = run({**model_settings, "team_file": team_file(tmp_path, stock=stock), "mcp_seconds": 20}).client
    assert state(client, "stock") == "ok"
    assert offered(client, model) == ["stock_count"]
    assert "7 of apples on shelf 3" in use(client, model, "stock_count", "apples")
    # What fails there is told to the model.
    assert "no such thing" in use(client, model, "stock_count", "unicorn")


def test_http_server_that_comes_and_goes(
    run: Run,
    model_settings: dict[str, Any],
    model: Model,
    tmp_path: Path,
    http_server: HttpServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("agent_service.team.mcp.RETRY_SECONDS", 0.1)
    monkeypatch.setattr("agent_service.team.mcp.PING_SECONDS", 0.1)
    stock = {"transport": "streamable_http", "url": f"http://127.0.0.1:{http_server.port}/mcp"}
    client = run({**model_settings, "team_file": team_file(tmp_path, stock=stock)}).client
    assert state(client, "stock") == "degraded"
    assert client.get("/ready").json()["status"] == "degraded"
    assert offered(client, model) == []
    for _ in range(2):
        http_server.start()
        wait_for(lambda: state(client, "stock") == "ok", 20, "its tools")
        assert offered(client, model) == ["stock_count"]
        assert "7 of pears" in use(client, model, "stock_count", "pears")
        model.reset()
        http_server.stop()
        wait_for(lambda: state(client, "stock") == "degraded", 20, "that it is gone")
        assert offered(client, model) == []
