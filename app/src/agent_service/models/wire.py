"""How a request reaches a model's server: one session for all calls of a model, which share its connections."""

import json
import urllib.request
from collections.abc import Mapping
from typing import Any

import aiohttp


class Refusal(Exception):
    """The model's server answered, and not with success. Its text is kept from it: it may quote a key or a prompt."""

    def __init__(self, status_code: int, headers: Mapping[str, str]) -> None:
        super().__init__(str(status_code))
        self.status_code = status_code
        self.headers = headers


class Wire:
    """SECONDS is how long the server may be silent: until it is reached, and before each part of its answer."""

    def __init__(self, seconds: float) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, connect=seconds, sock_connect=seconds, sock_read=seconds)
        self._session: aiohttp.ClientSession | None = None

    async def post(self, url: str, headers: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        session = self._session or self._open()
        async with session.post(url, headers=headers, data=json.dumps(body).encode(), timeout=self._timeout) as answer:
            if not answer.ok:
                raise Refusal(answer.status, answer.headers)
            return json.loads(await answer.read())

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        # How many calls there may be at a time is not this client's to say. To look for a proxy takes time with each
        # call, and most hosts name none.
        connector = aiohttp.TCPConnector(limit=0)
        proxies = bool(urllib.request.getproxies())
        self._session = aiohttp.ClientSession(connector=connector, trust_env=proxies, raise_for_status=False)
        return self._session
