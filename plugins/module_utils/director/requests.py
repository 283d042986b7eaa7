"""What the director asks itself: smoke tests through the real edge, probes of single servers, Prometheus."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.director.rollout import Condition
from ansible_collections.agentfleet.vm.plugins.module_utils.director.verdict import Measured
from ansible_collections.agentfleet.vm.plugins.module_utils.prometheus import PrometheusError, QueryError
from ansible_collections.agentfleet.vm.plugins.module_utils.prometheus import query as ask_prometheus

# HAProxy routes a request to the server that it names, whatever its weight, if it has the edge's key.
SERVER_HEADER = "X-Agentfleet-Server"
KEY_HEADER = "X-Agentfleet-Key"


@dataclass(frozen=True)
class Smoke:
    """A smoke test through Nginx: the site's name, and the requests that a new slot must answer.

    A request has `method`, `path`, `status` (200) and perhaps a `body` as JSON; `key` is sent as its bearer.
    """

    host: str = ""
    port: int = 443
    certificate: str = ""
    key: str = ""
    seconds: float = 30.0
    requests: Sequence[Mapping[str, Any]] = field(default_factory=tuple)


class NamedConnection(http.client.HTTPSConnection):
    """Connects to this machine while TLS and Host name the site."""

    def __init__(self, smoke: Smoke, context: ssl.SSLContext) -> None:
        super().__init__(smoke.host, smoke.port, timeout=smoke.seconds, context=context)
        self._smoke = smoke
        self._tls = context

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self._smoke.port), self._smoke.seconds)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self._smoke.host)


def smoke_server(smoke: Smoke, server: str, route_key: str) -> str:
    """Why SERVER does not answer as it should through the edge, or nothing."""
    context = ssl.create_default_context()
    if smoke.certificate and Path(smoke.certificate).exists():
        context.load_verify_locations(smoke.certificate)
        # What Nginx has on this machine is trusted as it is, whoever issued it.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for request in smoke.requests:
        what = f"{request.get('method', 'GET')} {request['path']} at {server}"
        headers = {
            SERVER_HEADER: server,
            KEY_HEADER: route_key,
            "User-Agent": "agentfleet-director",
            "X-Session-Id": f"smoke-{uuid.uuid4()}",
        }
        if smoke.key:
            headers["Authorization"] = f"Bearer {smoke.key}"
        body = request.get("body")
        if body is not None:
            headers["Content-Type"] = "application/json"
        connection = NamedConnection(smoke, context)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(str(request.get("method", "GET")), str(request["path"]), text, headers)
            answer = connection.getresponse()
            said = answer.read(4096)
            if answer.status != int(request.get("status", 200)):
                mend = "; the app has no such address: agent_smoke_requests says what every release must answer"
                return f"{what}: {answer.status} {reason(said)}{mend * (answer.status == HTTPStatus.NOT_FOUND)}"
        except TimeoutError:
            return f"{what}: no answer within {smoke.seconds:g} s"
        except (OSError, http.client.HTTPException) as error:
            return f"{what}: {error or type(error).__name__}"
        finally:
            connection.close()
    return ""


def reason(body: bytes) -> str:
    """What an answer says of itself: a problem document's detail, or its first line."""
    text = body.decode(errors="replace").strip()
    try:
        document = json.loads(text)
        return str(document.get("detail") or document.get("title") or text)[:200]
    except (ValueError, AttributeError):
        return text.partition("\n")[0][:200]


def probe(port: int, path: str, server: str, route_key: str, seconds: float) -> None:
    """One request to SERVER; what it came to is in HAProxy's log like any other."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=seconds)
    headers = {SERVER_HEADER: server, KEY_HEADER: route_key, "User-Agent": "agentfleet-director"}
    try:
        connection.request("GET", path, headers=headers)
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        # HAProxy logs what became of it; that is what counts.
        return
    finally:
        connection.close()


def measure(prometheus: str, conditions: Sequence[Condition], seconds: float = 5.0) -> list[Measured]:
    """What Prometheus answers; a condition without a number is not measured, one that it cannot read has a problem."""
    return [
        Measured(condition.name, condition.limit, *ask(prometheus, condition.query, seconds))
        for condition in conditions
    ]


def ask(prometheus: str, query: str, seconds: float) -> tuple[float | None, str]:
    """The largest number that answers QUERY, and what Prometheus finds wrong with it."""
    try:
        values = [value for _labels, value in ask_prometheus(prometheus, query, seconds)]
    except QueryError as error:
        return None, str(error)
    except PrometheusError:
        return None, ""
    # NaN is what a share of nothing gives.
    numbers = [value for value in values if value == value]
    return max(numbers, default=None), ""
