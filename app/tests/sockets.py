"""A client of the socket."""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from service import KEY
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect


class Socket:
    def __init__(self, port: int, key: str | None = KEY, headers: Mapping[str, str] | None = None, query: str = "",
                 **options: Any) -> None:  # fmt: skip
        authorization = {"Authorization": f"Bearer {key}"} if key else {}
        self._connecting = connect(
            f"ws://127.0.0.1:{port}/api/chat/ws{query}", additional_headers={**authorization, **(headers or {})},
            proxy=None, **options,
        )  # fmt: skip
        self.connection: ClientConnection = self._connecting.__enter__()

    def __enter__(self) -> "Socket":
        return self

    def __exit__(self, *_: object) -> None:
        self._connecting.__exit__(None, None, None)

    def send(self, **frame: Any) -> None:
        self.connection.send(json.dumps(frame))

    def next(self) -> dict[str, Any]:
        frame: dict[str, Any] = json.loads(self.connection.recv(timeout=30))
        return frame

    def answer(self) -> list[dict[str, Any]]:
        """The frames of one answer, to its end."""
        frames = [self.next()]
        while frames[-1]["event"] not in ("done", "error"):
            frames.append(self.next())
        return frames

    def ask(self, message: str, **fields: Any) -> list[dict[str, Any]]:
        self.send(message=message, **fields)
        return self.answer()


def closed(socket: Socket) -> int:
    """The code that the service closes it with."""
    with pytest.raises(ConnectionClosed) as error:
        socket.connection.recv(timeout=20)
    assert error.value.rcvd
    return error.value.rcvd.code
