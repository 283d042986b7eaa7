"""A conversation with the service as a client holds it, and in one line why it could not be held."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

MESSAGES = ("Hello! This is a smoke test. What can you do?", "And what did I just say?")
USER = "smoke-test"
CONNECT_SECONDS = 10


class SmokeError(Exception):
    """One line for the user: what is wrong, and what mends it."""


class Connection(http.client.HTTPConnection):
    """Connects to one address while TLS and Host name the site."""

    def __init__(self, site: Site) -> None:
        super().__init__(site.host, site.port, timeout=site.seconds)
        self._site = site

    def connect(self) -> None:
        site = self._site
        seconds = min(site.seconds, CONNECT_SECONDS)
        try:
            self.sock = socket.create_connection((site.address or site.host, site.port), seconds)
        except TimeoutError as error:
            raise SmokeError(
                f"{site.where} cannot be reached within {seconds:g} s; is that its address, and port {site.port} open?"
            ) from error
        self.sock.settimeout(site.seconds)
        if site.context:
            self.sock = site.context.wrap_socket(self.sock, server_hostname=site.host)


@dataclass
class Site:
    """Where the service is, and how it lets us in."""

    url: str
    address: str
    key: str
    seconds: float
    context: ssl.SSLContext | None
    host: str
    port: int
    timings: dict[str, float] = field(default_factory=dict)

    @property
    def where(self) -> str:
        return f"{self.url} at {self.address} port {self.port}" if self.address else self.url


def open_site(url: str, address: str, ca: str, key: str, seconds: float) -> Site:
    """A site by its URL; its certificate is verified by CA, or by the system's authorities."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/") or parts.query:
        raise SmokeError(f"smoke_url must be like https://agent.example.com, and is {url!r}")
    context = None
    if parts.scheme == "https":
        try:
            context = ssl.create_default_context(cafile=ca or None)
        except (OSError, ssl.SSLError) as error:
            raise SmokeError(f"smoke_ca {ca} cannot be read as certificates: {error.strerror or error}") from error
    port = parts.port or (443 if context else 80)
    return Site(url.rstrip("/"), address, key, seconds, context, parts.hostname, port)


def explain(site: Site, error: Exception) -> str:
    """Why nothing was answered."""
    if isinstance(error, ssl.SSLCertVerificationError):
        mend = "name its authority's file with -e smoke_ca=FILE, or renew it with playbooks/site.yml"
        return f"{site.where}: its certificate is not trusted ({error.verify_message}); {mend}"
    if isinstance(error, ssl.SSLError):
        return f"{site.where}: no TLS with the name {site.host} ({error.reason or error}); is it edge_server_name?"
    if isinstance(error, socket.gaierror):
        name = site.address or site.host
        return f"{name} cannot be resolved ({error.strerror}); set its DNS record, or give -e smoke_address=ADDRESS"
    if isinstance(error, ConnectionRefusedError):
        return f"{site.where} refuses connections; see on the edge: systemctl status nginx"
    if isinstance(error, TimeoutError):
        return f"{site.where} did not answer within {site.seconds:g} s; see: ansible-playbook playbooks/status.yml"
    return f"{site.where}: the connection broke ({error or type(error).__name__}); see on the edge: journalctl -u nginx"


def refusal(what: str, status: int, reason: str, body: bytes) -> str:
    """Why an answer is not the one wanted: what a problem document says, and what mends it."""
    try:
        document = json.loads(body)
        detail = document.get("detail") or document.get("title") or ""
    except (ValueError, AttributeError):
        detail = body.decode(errors="replace").strip().splitlines()[0][:120] if body.strip() else ""
    mends = {
        401: "give the right key with -e smoke_api_key=KEY",
        403: "give the right key with -e smoke_api_key=KEY",
        404: "is this the agent service?",
        429: "wait a second, or raise edge_api_rate",
        **dict.fromkeys((502, 503, 504), "see: ansible-playbook playbooks/status.yml"),
    }
    mend = f"; {mends[status]}" if status in mends else ""
    return f"{what}: {status} {reason}{f': {detail}' if detail else ''}{mend}"


def ask(site: Site, method: str, path: str, body: Mapping[str, Any] | None, session: str) -> http.client.HTTPResponse:
    """An answer with status 200, its body not read yet."""
    headers = {"Accept": "application/json, text/event-stream", "User-Agent": "agentfleet-smoke"}
    if body is not None:
        headers |= {"Content-Type": "application/json", "X-Session-Id": session}
        headers |= {"Authorization": f"Bearer {site.key}"} if site.key else {}
    try:
        connection = Connection(site)
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        if answer.status != 200:
            raise SmokeError(refusal(f"{method} {path}", answer.status, answer.reason, answer.read(65536)))
    except (OSError, http.client.HTTPException) as error:
        raise SmokeError(explain(site, error)) from error
    return answer


def read_json(site: Site, what: str, answer: http.client.HTTPResponse) -> dict[str, Any]:
    try:
        document = json.loads(answer.read())
    except ValueError as error:
        raise SmokeError(f"{what}: the answer is not JSON; is {site.url} the agent service?") from error
    except (OSError, http.client.HTTPException) as error:
        raise SmokeError(explain(site, error)) from error
    if not isinstance(document, dict):
        raise SmokeError(f"{what}: the answer is no JSON object; is {site.url} the agent service?")
    return document


def judge_answer(what: str, document: Mapping[str, Any], session: str) -> None:
    """An answer that a client can use: a text, the model that gave it, the conversation that it belongs to."""
    for name in ("response", "model"):
        if not isinstance(document.get(name), str) or not document[name].strip():
            raise SmokeError(f"{what}: the answer has no {name}: {json.dumps(document, ensure_ascii=False)[:200]}")
    if document.get("session_id") != session:
        raise SmokeError(f"{what}: the answer is of session {document.get('session_id')!r}, not of {session!r}")


def events(lines: Iterator[bytes]) -> Iterator[tuple[str, str]]:
    """Name and data of each server-sent event; one that was cut off is none."""
    name = "message"
    data: list[str] = []
    for line in lines:
        text = line.decode(errors="replace").rstrip("\r\n")
        if not text:
            if data:
                yield name, "\n".join(data)
            name, data = "message", []
        elif not text.startswith(":"):
            key, _, value = text.partition(":")
            if key == "event":
                name = value.strip()
            elif key == "data":
                data.append(value.removeprefix(" "))


def judge_stream(what: str, found: list[tuple[str, str]], session: str) -> dict[str, Any]:
    """Tokens, then one last event that carries the whole answer."""
    names = [name for name, _data in found]
    errors = [data for name, data in found if name == "error"]
    if errors:
        raise SmokeError(f"{what}: the stream ended with an error: {errors[0][:200]}")
    if names.count("done") != 1 or names[-1] != "done":
        raise SmokeError(f"{what}: the stream ended without a last event 'done' ({len(found)} events)")
    if "token" not in names:
        raise SmokeError(f"{what}: the stream has no event 'token'")
    try:
        document = json.loads(found[-1][1])
    except ValueError as error:
        raise SmokeError(f"{what}: the event 'done' is not JSON: {found[-1][1][:120]}") from error
    judge_answer(what, document, session)
    return dict(document)


@dataclass(frozen=True)
class Timed:
    """How long something took until its first byte and until its end."""

    first: float
    total: float


def check_health(site: Site, clock: Callable[[], float]) -> Timed:
    began = clock()
    ask(site, "GET", "/health", None, "").read()
    return Timed(clock() - began, clock() - began)


def check_chat(site: Site, message: str, session: str, clock: Callable[[], float]) -> tuple[dict[str, Any], Timed]:
    what = "POST /api/chat"
    began = clock()
    body = {"message": message, "session_id": session, "user_id": USER}
    answer = ask(site, "POST", "/api/chat", body, session)
    first = clock() - began
    document = read_json(site, what, answer)
    judge_answer(what, document, session)
    return document, Timed(first, clock() - began)


def check_stream(site: Site, message: str, session: str, clock: Callable[[], float]) -> tuple[int, Timed]:
    what = "POST /api/chat/stream"
    began = clock()
    body = {"message": message, "session_id": session, "user_id": USER}
    answer = ask(site, "POST", "/api/chat/stream", body, session)
    kind = answer.headers.get_content_type()
    if kind != "text/event-stream":
        raise SmokeError(f"{what}: the answer is {kind}, not text/event-stream")
    found: list[tuple[str, str]] = []
    first = 0.0
    try:
        for event in events(iter(answer)):
            first = first or clock() - began
            found.append(event)
    except (OSError, http.client.HTTPException) as error:
        raise SmokeError(explain(site, error)) from error
    judge_stream(what, found, session)
    return sum(name == "token" for name, _data in found), Timed(first, clock() - began)


def converse(site: Site, clock: Callable[[], float] = time.monotonic) -> dict[str, Any]:
    """Health, an answer, a second turn of the same conversation as a stream."""
    session = f"smoke-{uuid.uuid4()}"
    health = check_health(site, clock)
    answer, chat = check_chat(site, MESSAGES[0], session, clock)
    tokens, stream = check_stream(site, MESSAGES[1], session, clock)
    second, again = check_chat(site, MESSAGES[1], session, clock)
    return {
        "url": site.url,
        "session_id": session,
        "agent": answer.get("agent"),
        "model": answer["model"],
        "response": answer["response"],
        "second_response": second["response"],
        "tokens": tokens,
        "seconds": {
            "health": round(health.total, 3),
            "chat": round(chat.total, 3),
            "stream_first_byte": round(stream.first, 3),
            "stream": round(stream.total, 3),
            "second_turn": round(again.total, 3),
        },
    }


def lines(result: Mapping[str, Any]) -> list[str]:
    """The same for people."""
    seconds = result["seconds"]
    said = " ".join(str(result["response"]).split())
    return [
        f"{result['url']} answers",
        f"  health        {seconds['health']:.3f} s",
        f"  conversation  {seconds['chat']:.3f} s, second turn {seconds['second_turn']:.3f} s",
        f"  stream        {seconds['stream']:.3f} s, {result['tokens']} tokens, first after"
        f" {seconds['stream_first_byte']:.3f} s",
        f"  model         {result['model']}",
        f"  answer        {said[:100]}{'…' if len(said) > 100 else ''}",
    ]
