"""Many streams at a time on one process."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from service import KEY, LocalService, parse_events

STREAMS = 500
TOKENS = 60
# Opened as clients come: what is tried is how many are open, not how many come at once.
OPENING = 25


@pytest.mark.soak
def test_five_hundred_streams_hold(
    run_briefly: Callable[[dict[str, Any]], LocalService], base_settings: dict[str, Any]
) -> None:
    """Slow enough that all are open at a time; each has all of its pieces, in order, and its end."""
    settings = {**base_settings, "model_key": "", "offline_tokens": TOKENS, "offline_tokens_per_second": 1}
    service = run_briefly({**settings, "turn_seconds": 600})

    async def all_of_them() -> tuple[list[str], int]:
        opening, open_now, most = asyncio.Semaphore(OPENING), 0, 0
        limits = httpx.Limits(max_connections=None)
        headers = {"Authorization": f"Bearer {KEY}"}
        url = f"http://127.0.0.1:{service.port}/api/chat/stream"

        async def one(client: httpx.AsyncClient) -> str:
            nonlocal open_now, most
            async with opening:
                request = client.build_request("POST", url, json={"message": "How is our cash flow?"})
                response = await client.send(request, stream=True)
            open_now += 1
            most = max(most, open_now)
            text = (await response.aread()).decode()
            open_now -= 1
            assert response.status_code == 200, text
            return text

        async with httpx.AsyncClient(headers=headers, limits=limits, timeout=600, trust_env=False) as client:
            return await asyncio.gather(*(one(client) for _ in range(STREAMS))), most

    texts, most = asyncio.run(all_of_them())
    assert most == STREAMS
    for text in texts:
        events = parse_events(text)
        tokens = [event.data["token"] for event in events if event.name == "token"]
        assert events[-1].name == "done", events[-1].data
        assert len(tokens) == TOKENS
        assert events[-1].data["response"] == "".join(tokens)
