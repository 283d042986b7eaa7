"""A stop that lets running answers end on sockets, as it does in streams."""

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

# What tells the socket's own session that the service stops, and not that the client left.
DRAINING = "draining"

_close_at_once = WebSocketsSansIOProtocol.shutdown


def _tell(self: WebSocketsSansIOProtocol) -> None:
    if self.close_sent or not self.handshake_complete:
        _close_at_once(self)
    else:
        self.queue.put_nowait({"type": "websocket.disconnect", "code": 1012, "reason": DRAINING})


def install() -> None:
    """uvicorn would cut sockets off in mid-answer. It offers no other place to say so: the command is uvicorn's own."""
    WebSocketsSansIOProtocol.shutdown = _tell  # type: ignore[method-assign]
