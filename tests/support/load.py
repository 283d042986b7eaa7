"""An open-loop load: requests leave at a constant rate whether or not earlier ones came back, so a stall shows."""

from __future__ import annotations

import asyncio
import ssl
import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

import httpx


@dataclass
class Load:
    """POST /api/chat at RATE a second over kept-alive connections, from entering the context to leaving it."""

    base_url: str
    site: str
    tls: ssl.SSLContext
    key: str
    rate: float
    sent: int = 0
    failures: list[str] = field(default_factory=list)
    latencies: list[float] = field(default_factory=list)

    def __enter__(self) -> Load:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._drive()), daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=120)
        assert not self._thread.is_alive(), "the load's last requests did not come back"

    async def _drive(self) -> None:
        limits = httpx.Limits(max_connections=200, max_keepalive_connections=50, keepalive_expiry=30)
        headers = {"Authorization": f"Bearer {self.key}", "Host": self.site}
        async with httpx.AsyncClient(
            base_url=self.base_url, verify=self.tls, headers=headers, timeout=60, limits=limits
        ) as client:
            began = time.monotonic()
            running: set[asyncio.Task[None]] = set()
            while not self._stop.is_set():
                task = asyncio.create_task(self._one(client))
                running.add(task)
                task.add_done_callback(running.discard)
                self.sent += 1
                await asyncio.sleep(max(0.0, began + self.sent / self.rate - time.monotonic()))
            await asyncio.gather(*running)

    async def _one(self, client: httpx.AsyncClient) -> None:
        session = f"load-{uuid.uuid4()}"
        body: dict[str, Any] = {"message": "Is anybody there?", "session_id": session, "user_id": "load"}
        began = time.monotonic()
        try:
            answer = await client.post(
                "/api/chat", json=body, headers={"X-Session-Id": session}, extensions={"sni_hostname": self.site}
            )
        except httpx.HTTPError as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            return
        if answer.status_code != 200:
            self.failures.append(f"{answer.status_code}: {answer.text[:120]}")
            return
        self.latencies.append(time.monotonic() - began)

    def percentile(self, share: float) -> float:
        """The latency in seconds that SHARE of the answered requests stayed under."""
        ordered = sorted(self.latencies)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")
