"""`agentctl dev`: what a checkout and Python are enough for."""

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import accepts, free_port, wait_for
from service import APP, KEY, Client, environment

PAGE = APP / "src" / "agent_service" / "page" / "chat.html"


class Developer:
    """Somebody at a terminal."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self._log = directory / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, *arguments: str) -> None:
        bare = {name: value for name, value in environment().items() if not name.startswith("AGENT_")}
        with self._log.open("w") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "agent_service.cli", "dev", "--port", str(self.port), *arguments],
                cwd=self.directory, env=bare, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip

    def text(self) -> str:
        return self._log.read_text()

    def wait(self, times: int = 1) -> None:
        def started() -> bool:
            assert self._process and self._process.poll() is None, self.text()
            return self.text().count('"event": "started"') >= times

        wait_for(started, 90, "start-up")

    def interrupt(self) -> int:
        """As Ctrl-C does: to all that the terminal runs."""
        assert self._process
        os.killpg(self._process.pid, signal.SIGINT)
        return self._process.wait(30)

    def wait_for_end(self) -> int:
        assert self._process
        return self._process.wait(60)

    def end(self) -> int:
        assert self._process
        if self._process.poll() is None:
            self._process.terminate()
        return self.wait_for_end()


@pytest.fixture
def developer(directory: Path) -> Iterator[Developer]:
    # Not pytest's own directory, which is closed to the account that PostgreSQL runs as.
    place = Path(tempfile.mkdtemp(prefix="developer-", dir=directory))
    place.chmod(0o755)
    person = Developer(place)
    yield person
    person.end()


def test_one_command_and_nothing_else(developer: Developer) -> None:
    (developer.directory / ".env").write_text("AGENT_OFFLINE_TOKENS=3\n")
    developer.start()
    developer.wait()
    key = (developer.directory / ".agent-dev" / "key").read_text()
    assert f"http://127.0.0.1:{developer.port}/\n" in developer.text()
    assert f"curl -s http://127.0.0.1:{developer.port}/api/chat -H 'Authorization: Bearer {key}'" in developer.text()
    client = Client(developer.port, key)
    ready = client.get("/ready").json()
    assert ready["status"] == "ready"
    assert ready["checks"]["redis"] == {"status": "off", "limits": "counted by each process alone"}
    assert ready["checks"]["model"]["name"] == "offline"
    assert client.get("/").status_code == 200
    assert client.chat("Hello", session_id="dev").json()["usage"]["output_tokens"] == 3
    # A change, as an editor makes it.
    os.utime(PAGE)
    developer.wait(times=2)
    with Client(developer.port, key) as again:
        assert again.chat("Hello", session_id="dev").status_code == 200
    postmaster = developer.directory / ".agent-dev" / "postgres" / "postmaster.pid"
    assert postmaster.exists()
    server = int(postmaster.read_text().splitlines()[0])
    assert developer.interrupt() == 0
    assert not accepts(developer.port)
    wait_for(lambda: not Path(f"/proc/{server}").exists(), 10, "PostgreSQL's end")
    # Nobody commits what is kept there.
    assert (developer.directory / ".agent-dev" / ".gitignore").read_text() == "*\n"


def test_another_database_is_used_by_its_url(
    developer: Developer, base_settings: dict[str, Any], database: str
) -> None:
    (developer.directory / ".env").write_text(f"AGENT_API_KEY={KEY}\n")
    url = f"postgresql://{database}:{base_settings['database_password']}@127.0.0.1:{base_settings['database_port']}/{database}"
    developer.start("--no-reload", "--database", url)
    developer.wait()
    with Client(developer.port) as client:
        assert client.chat("Hello").status_code == 200
    assert developer.end() == 128 + signal.SIGTERM
    assert not (developer.directory / ".agent-dev").exists()


def test_url_that_is_none_is_told_in_a_line(developer: Developer) -> None:
    developer.start("--database", "nonsense")
    assert developer.wait_for_end() == 1
    assert developer.text().count("\n") == 1
    assert developer.text().startswith("--database is no URL of PostgreSQL")
