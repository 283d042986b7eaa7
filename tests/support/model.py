"""The server that speaks a model provider's wire protocol, for as long as a test needs it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

SCRIPT = Path(__file__).with_name("model_server.py")


@contextmanager
def model_server(address: str, port: int, key: str, log: Path) -> Iterator[httpx.Client]:
    """The server; the client that is given is for its controls."""
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, SCRIPT, "--host", address, "--port", str(port), "--key", key], stdout=output, stderr=output
        )
        try:
            base = f"http://{address}:{port}"
            with httpx.Client(base_url=base, transport=httpx.HTTPTransport(retries=8)) as client:
                client.get("/_requests").raise_for_status()
                yield client
        finally:
            server.terminate()
            server.wait()
