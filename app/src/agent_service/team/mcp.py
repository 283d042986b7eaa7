"""Tools of MCP servers: a session is kept open to each, and one that is away is left out until it is back."""

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from langchain_core.tools import BaseTool

from agent_service.core.logs import get_logger
from agent_service.team.definition import McpServer, StdioServer

# How often a server is asked whether it is there, and how often one that is away is tried anew.
PING_SECONDS = 15
RETRY_SECONDS = 15

_REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")

logger = get_logger(__name__)


class McpAway(Exception):
    """The server does not answer."""


class McpServers:
    def __init__(self, servers: dict[str, McpServer], seconds: float) -> None:
        self.generation = 0
        self._seconds = seconds
        self._servers = servers
        self._tools: dict[str, list[BaseTool]] = {}
        self._tried = {name: asyncio.Event() for name in servers}
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Connect to all at once; those that do not answer in time are tried again later."""
        self._tasks = [asyncio.create_task(self._keep(name)) for name in self._servers]
        with contextlib.suppress(TimeoutError):
            # One that cannot even be given up in time must not hold the start back.
            async with asyncio.timeout(self._seconds + 1):
                await asyncio.gather(*(tried.wait() for tried in self._tried.values()))

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def tools(self, names: Iterable[str]) -> list[BaseTool]:
        return [tool for name in names for tool in self._tools.get(name, ())]

    def names(self) -> Iterable[str]:
        return self._servers

    async def check(self, name: str) -> None:
        if name not in self._tools:
            raise McpAway(name)

    async def _keep(self, name: str) -> None:
        """Hold a session for as long as it lasts, and begin a new one when it breaks."""
        while True:
            try:
                await self._session(name)
            except Exception as error:
                logger.warning("mcp_away", server=name, exc_info=error)
            finally:
                self._tried[name].set()
                if self._tools.pop(name, None) is not None:
                    self.generation += 1
            await asyncio.sleep(RETRY_SECONDS)

    async def _session(self, name: str) -> None:
        # Half a second of imports, for those who use it.
        from langchain_mcp_adapters.sessions import create_session
        from langchain_mcp_adapters.tools import load_mcp_tools

        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(self._seconds):
                session = await stack.enter_async_context(create_session(_connection(self._servers[name])))
                await session.initialize()
                tools = await load_mcp_tools(session, server_name=name, tool_name_prefix=True)
            self._tools[name] = tools
            self.generation += 1
            self._tried[name].set()
            logger.info("mcp_connected", server=name, tools=len(tools))
            while True:
                await asyncio.sleep(PING_SECONDS)
                async with asyncio.timeout(self._seconds):
                    await session.send_ping()


def _connection(server: McpServer) -> Any:
    if isinstance(server, StdioServer):
        environment = {name: _fill(value) for name, value in server.env.items()}
        return {"transport": "stdio", "command": server.command, "args": server.args, "env": environment or None}
    headers = {name: _fill(value) for name, value in server.headers.items()}
    return {"transport": "streamable_http", "url": server.url, "headers": headers}


def _fill(value: str) -> str:
    """Put secrets where `${NAME}` stands: a credential of that name, else a variable of the environment."""
    return _REFERENCE.sub(lambda found: _secret(found[1]), value)


def _secret(name: str) -> str:
    if directory := os.environ.get("CREDENTIALS_DIRECTORY"):
        with contextlib.suppress(FileNotFoundError):
            return Path(directory, name).read_text(encoding="utf-8").strip()
    return os.environ.get(name, "")
