"""A small MCP server for the tests: `python mcp_server.py stdio`, or `streamable-http PORT`."""

import os
import sys

from mcp.server.fastmcp import FastMCP

server = FastMCP("stock", host="127.0.0.1", port=int(sys.argv[2]) if len(sys.argv) > 2 else 0, log_level="ERROR")


@server.tool()
def count(item: str) -> str:
    """How many of an item are in stock."""
    if item == "unicorn":
        raise ValueError("no such thing")
    return f"7 of {item} {os.environ.get('SHELF', '')}"


server.run(sys.argv[1])  # type: ignore[arg-type]
