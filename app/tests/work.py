"""A service, its workers and the systems around them, for the tests of what is done in the background."""

import json
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from servers import Model, Postgres, wait_for
from service import Client, LocalService, Worker, agentctl

SECRET = "a-secret-of-the-webhook"
TOKEN = "a-token-of-the-instance"


class Receiver:
    """A real HTTP server in place of UazAPI and of a CRM: keeps what it gets, refuses on command."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.statuses: list[int] = []
        self.usual = 200
        self.gate = threading.Event()
        self.gate.set()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                receiver.requests.append(
                    {
                        "method": self.command,
                        "path": self.path,
                        "headers": dict(self.headers),
                        "body": json.loads(body) if body else None,
                    }
                )
                receiver.gate.wait(30)
                status = receiver.statuses.pop(0) if receiver.statuses else receiver.usual
                self.send_response(status)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            do_GET = do_POST = _answer

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def posts(self) -> list[dict[str, Any]]:
        return [request for request in self.requests if request["method"] == "POST"]

    def stop(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()


@dataclass
class Site:
    """One database of its own, with what works on it."""

    postgres: Postgres
    database: str
    model: Model
    receiver: Receiver
    directory: Path
    settings: dict[str, Any]
    run: Callable[[dict[str, Any]], LocalService]
    workers: list[Worker] = field(default_factory=list)

    def api(self, release: str, **changes: Any) -> Client:
        return self.run({**self.settings, "release": release, **changes}).client

    def environment(self, release: str, **changes: Any) -> dict[str, str]:
        values = {**self.settings, "release": release, **changes}
        return {f"AGENT_{name.upper()}": str(value) for name, value in values.items()}

    def worker(self, release: str, **changes: Any) -> Worker:
        log = self.directory / f"worker-{len(self.workers)}.log"
        self.workers.append(Worker(log, **self.environment(release, **changes)))
        return self.workers[-1]

    def control(self, release: str, *arguments: str) -> str:
        result = agentctl(*arguments, **self.environment(release))
        assert result.returncode == 0, result.stderr
        return result.stdout

    def rows(self, query: str, parameters: Any = None) -> list[Any]:
        return self.postgres.execute(query, self.database, parameters)

    def count(self, what: str) -> int:
        return int(self.rows(f"SELECT count(*) FROM {what}")[0][0])

    def stop(self) -> None:
        for worker in self.workers:
            worker.stop()
        self.postgres.forget(self.database)


def finished(client: Client, task_id: str, seconds: float = 30, **query: str) -> dict[str, Any]:
    status: dict[str, Any] = {}

    def look() -> bool:
        response = client.get(f"/api/status/{task_id}", params=query)
        assert response.status_code == 200, response.text
        status.update(response.json())
        return status["state"] in ("done", "failed")

    wait_for(look, seconds, f"task {task_id}")
    return status


def message(text: str, /, chat: str = "551199990000", **fields: Any) -> dict[str, Any]:
    """What UazAPI sends for a text."""
    return {
        "EventType": "messages",
        "BaseUrl": "https://example.uazapi.test",
        "token": SECRET,
        "chat": {"wa_name": "Ana"},
        "message": {
            "chatid": f"{chat}@s.whatsapp.net",
            "messageid": uuid.uuid4().hex.upper(),
            "sender": "180182702931994@lid",
            "sender_pn": f"{chat}@s.whatsapp.net",
            "fromMe": False,
            "isGroup": False,
            "wasSentByApi": False,
            "type": "text",
            "text": text,
            **fields,
        },
    }
