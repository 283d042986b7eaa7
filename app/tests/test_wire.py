"""What reaches a model's server and what comes back, against servers that misbehave on the wire."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from servers import free_port

from agent_service.models.failures import asked_wait, model_problem
from agent_service.models.wire import Refusal, Wire

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{"fine": true}'


async def request(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return head + await reader.readexactly(length)


def saying(*parts: bytes, stays: bool = False) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request(reader)
        for part in parts:
            writer.write(part)
        await writer.drain()
        if stays:
            await reader.read()
        writer.close()

    return serve


def posted(serve: Serve, seconds: float = 5, times: int = 1) -> Any:
    """What the last of some calls gives."""

    async def run() -> Any:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        wire = Wire(seconds)
        try:
            for _ in range(times):
                answer = await wire.post(f"http://127.0.0.1:{port}/v1", {"Authorization": "Bearer k"}, {"model": "m"})
                # The end of a connection that is closed behind an answer takes a moment to arrive.
                await asyncio.sleep(0)
            return answer
        finally:
            await wire.close()
            server.close()

    return asyncio.run(run())


def test_request_and_answer() -> None:
    seen: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await request(reader))
        writer.write(ANSWER)

    assert posted(serve) == {"fine": True}
    head, _, body = seen[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v1 HTTP/1.1\r\n")
    assert b"Authorization: Bearer k" in head
    assert body == b'{"model": "m"}'


def test_one_connection_serves_many_calls() -> None:
    connections = 0

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            try:
                await request(reader)
            except asyncio.IncompleteReadError:
                return
            writer.write(ANSWER)

    assert posted(serve, times=3) == {"fine": True}
    assert connections == 1


def test_server_that_closes_behind_each_answer_is_reached_anew() -> None:
    answer = ANSWER.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
    assert posted(saying(answer), times=3) == {"fine": True}


@pytest.mark.parametrize(
    ("serve", "code"),
    [
        (saying(), "model-unreachable"),
        (saying(ANSWER[:-5]), "model-unreachable"),
        (saying(b"no HTTP at all\r\n\r\n"), "model-failed"),
        (saying(ANSWER.replace(b'{"fine": true}', b"<html>no</html")), "model-failed"),
        (saying(ANSWER[:-5], stays=True), "model-timeout"),
        (saying(stays=True), "model-timeout"),
    ],
    ids=["nothing", "half", "no HTTP", "no JSON", "half, then silence", "silence"],
)
def test_failure_is_what_it_is(serve: Serve, code: str) -> None:
    with pytest.raises(Exception) as failure:
        posted(serve, seconds=0.3)
    assert model_problem(failure.value).code == code


def test_port_that_nobody_listens_on() -> None:
    async def run() -> None:
        wire = Wire(5)
        try:
            await wire.post(f"http://127.0.0.1:{free_port()}/v1", {}, {})
        finally:
            await wire.close()

    with pytest.raises(Exception) as failure:
        asyncio.run(run())
    assert model_problem(failure.value).code == "model-unreachable"


@pytest.mark.parametrize(("status", "code"), [(429, "model-busy"), (401, "model-refused"), (503, "model-failed")])
def test_refusal_keeps_its_status_and_the_wait_it_asks_for(status: int, code: str) -> None:
    refusal = b'HTTP/1.1 %d No\r\nRetry-After: 7\r\nContent-Length: 6\r\n\r\n"text"' % status
    with pytest.raises(Refusal) as failure:
        posted(saying(refusal))
    assert model_problem(failure.value).code == code
    assert asked_wait(failure.value) == 7
    assert "text" not in str(failure.value)
