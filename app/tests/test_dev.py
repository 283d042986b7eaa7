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
from servers import PASSWORD, accepts, free_port, wait_for
from service import APP, Client, environment

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

    def key(self) -> str:
        return (self.directory / ".agent-dev" / "key").read_text()

    def text(self) -> str:
        return self._log.read_text()

    def wait(self, times: int = 1) -> None:
        def started() -> bool:
            assert self._process and self._process.poll() is None, self.text()
            # The line comes before the port is open.
            return self.text().count('"event": "started"') >= times and accepts(self.port)

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


def test_command_is_enough_where_there_is_a_database(
    developer: Developer, base_settings: dict[str, Any], database: str
) -> None:
    (developer.directory / ".env").write_text("AGENT_OFFLINE_TOKENS=3\n")
    url = f"postgresql://{database}:{PASSWORD}@127.0.0.1:{base_settings['database_port']}/{database}"
    developer.start("--no-reload", "--database", url)
    developer.wait()
    key = developer.key()
    assert f"http://127.0.0.1:{developer.port}/\n" in developer.text()
    assert f"curl -s http://127.0.0.1:{developer.port}/api/chat -H 'Authorization: Bearer {key}'" in developer.text()
    with Client(developer.port, key) as client:
        ready = client.get("/ready").json()
        assert ready["status"] == "ready"
        assert ready["checks"]["redis"] == {"status": "off", "limits": "counted by each process alone"}
        assert ready["checks"]["model"]["name"] == "offline"
        assert client.get("/").status_code == 200
        assert client.chat("Hello").json()["usage"]["output_tokens"] == 3
    assert developer.interrupt() == 0
    assert not accepts(developer.port)
    # Nobody commits what is kept there.
    assert (developer.directory / ".agent-dev" / ".gitignore").read_text() == "*\n"


@pytest.mark.soak
def test_database_is_brought_along_and_changes_are_taken_up(developer: Developer) -> None:
    developer.start()
    developer.wait()
    with Client(developer.port, developer.key()) as client:
        assert client.chat("Hello", session_id="dev").status_code == 200
    # As an editor does it.
    os.utime(PAGE)
    developer.wait(times=2)
    with Client(developer.port, developer.key()) as client:
        assert client.chat("Hello", session_id="dev").status_code == 200
    server = int((developer.directory / ".agent-dev" / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    assert developer.interrupt() == 0
    assert not accepts(developer.port)
    wait_for(lambda: not Path(f"/proc/{server}").exists(), 10, "PostgreSQL's end")


def test_url_that_is_none_is_told_in_a_line(developer: Developer) -> None:
    developer.start("--database", "nonsense")
    assert developer.wait_for_end() == 1
    assert developer.text().count("\n") == 1
    assert developer.text().startswith("--database is no URL of PostgreSQL")
