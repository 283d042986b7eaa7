"""The smoke test against services that answer as they should, or in every other way."""

import json
import os
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import certificate, smoke

KEY = "the-right-key"


def answer_to(request, **changes):
    whole = {"response": f"You said: {request['message']}", "session_id": request["session_id"], "model": "offline"}
    return {**whole, "agent": "general", **changes}


def event(name, data):
    return f"event: {name}\ndata: {json.dumps(data)}\n\n".encode()


class Service(BaseHTTPRequestHandler):
    """Ways of going wrong are switched on by name in server.wrong."""

    protocol_version = "HTTP/1.0"

    def send(self, status, body, kind="application/json"):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body if isinstance(body, bytes) else json.dumps(body).encode())

    def do_GET(self):
        self.server.seen.append(dict(self.headers))
        if "unhealthy" in self.server.wrong:
            self.send(
                503, {"title": "Service Unavailable", "detail": "No instance can answer."}, "application/problem+json"
            )
        else:
            self.send(200, {"status": "ok"})

    def do_POST(self):
        self.server.seen.append(dict(self.headers))
        wrong = self.server.wrong
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {KEY}":
            self.send(401, {"detail": "The key is not known."}, "application/problem+json")
        elif self.path == "/api/chat/stream":
            self.stream(request, wrong)
        elif "html" in wrong:
            self.send(200, b"<html>welcome</html>", "text/html")
        elif "list" in wrong:
            self.send(200, [])
        else:
            changes = {"response": ""} if "empty" in wrong else {"session_id": "other"} if "session" in wrong else {}
            changes |= {"model": None} if "model" in wrong else {}
            self.send(200, answer_to(request, **changes))

    def stream(self, request, wrong):
        done = event("done", answer_to(request))
        bodies = {
            "cut": event("token", {"token": "a"}) + done[:-1],
            "error": event("token", {"token": "a"}) + event("error", {"detail": "the model is gone"}),
            "no tokens": b": waiting\n\n" + done,
            "twice": done + event("token", {"token": "a"}) + done,
            "late token": event("token", {"token": "a"}) + done + event("token", {"token": "b"}),
        }
        whole = b": waiting\n\n" + event("token", {"token": "Hel"}) + event("token", {"token": "lo"}) + done
        body = next((bodies[name] for name in wrong if name in bodies), whole)
        self.send(200, body, "application/json" if "no stream" in wrong else "text/event-stream; charset=utf-8")

    def log_message(self, *_arguments):
        pass


@pytest.fixture
def service():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    server.wrong, server.seen = set(), []
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join(5)


@pytest.fixture
def secured(service, tmp_path):
    certificate.make(tmp_path / "crt", tmp_path / "key", ["agent.lab.test"], 10, os.getgid())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "crt", tmp_path / "key")
    service.socket = context.wrap_socket(service.socket, server_side=True)
    service.ca = str(tmp_path / "crt")
    return service


def talk(service, url="http://agent.lab.test:{port}", address="127.0.0.1", ca="", key=KEY, seconds=5):
    site = smoke.open_site(url.format(port=service.server_port), address, ca, key, seconds)
    return smoke.converse(site)


def test_a_whole_conversation(service):
    result = talk(service)
    assert result["model"] == "offline"
    assert result["tokens"] == 2
    assert "what did I just say" in result["second_response"]
    assert set(result["seconds"]) == {"health", "chat", "stream_first_byte", "stream", "second_turn"}
    assert "offline" in "\n".join(smoke.lines(result))
    assert "Authorization" not in service.seen[0], "the health is nobody's secret"
    sessions = {seen["X-Session-Id"] for seen in service.seen[1:]}
    assert sessions == {result["session_id"]}


def test_the_site_is_named_and_verified_where_only_an_address_is_known(secured):
    result = talk(secured, "https://agent.lab.test:{port}", ca=secured.ca)
    assert result["response"]
    assert secured.seen[0]["Host"] == f"agent.lab.test:{secured.server_port}"


@pytest.mark.parametrize(
    ("url", "ca", "words"),
    [
        ("https://agent.lab.test:{port}", False, "not trusted .*self-signed certificate.*smoke_ca=FILE"),
        ("https://other.lab.test:{port}", True, "not trusted .*mismatch"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(secured, url, ca, words):
    with pytest.raises(smoke.SmokeError, match=words):
        talk(secured, url, ca=secured.ca if ca else "")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ("unhealthy", r"^GET /health: 503 Service Unavailable: No instance can answer\.; see: .*status\.yml$"),
        ("html", "^POST /api/chat: the answer is not JSON"),
        ("list", "^POST /api/chat: the answer is no JSON object"),
        ("empty", "^POST /api/chat: the answer has no response"),
        ("model", "^POST /api/chat: the answer has no model"),
        ("session", "^POST /api/chat: the answer is of session 'other', not of 'smoke-"),
        ("no stream", "^POST /api/chat/stream: the answer is application/json, not text/event-stream"),
        ("cut", "ended without a last event 'done'"),
        ("twice", "ended without a last event 'done'"),
        ("late token", "ended without a last event 'done'"),
        ("error", "ended with an error: .*the model is gone"),
        ("no tokens", "has no event 'token'"),
    ],
)
def test_every_wrong_answer_is_one_line(service, wrong, words):
    service.wrong.add(wrong)
    with pytest.raises(smoke.SmokeError, match=words) as caught:
        talk(service)
    assert "\n" not in str(caught.value)


def test_a_wrong_key_is_named_and_not_shown(service):
    with pytest.raises(smoke.SmokeError, match=r"401 Unauthorized: The key is not known\.; .*smoke_api_key") as caught:
        talk(service, key="wrong-secret")
    assert "wrong-secret" not in str(caught.value)


def test_nobody_there(service):
    with pytest.raises(smoke.SmokeError, match=r"at 127\.0\.0\.2 port .* refuses connections; .*nginx"):
        talk(service, address="127.0.0.2")
    with pytest.raises(smoke.SmokeError, match=r"name\.invalid cannot be resolved .*smoke_address"):
        talk(service, "http://name.invalid:{port}", address="")


def test_silence_ends(service):
    service.shutdown()
    with pytest.raises(smoke.SmokeError, match=r"did not answer within 0\.2 s"):
        talk(service, seconds=0.2)


def test_an_address_that_swallows_connections_is_told_in_seconds(service, monkeypatch):
    def swallow(_address, seconds):
        raise TimeoutError(f"after {seconds}")

    monkeypatch.setattr(smoke.socket, "create_connection", swallow)
    with pytest.raises(smoke.SmokeError, match=r"cannot be reached within 10 s; .*port \d+ open"):
        talk(service, seconds=60)


def test_tls_where_there_is_none(service):
    with pytest.raises(smoke.SmokeError, match=r"no TLS with the name agent\.lab\.test"):
        talk(service, "https://agent.lab.test:{port}")


@pytest.mark.parametrize("url", ["agent.example.com", "ftp://x", "https://", "https://x/api", "https://x?y=1"])
def test_a_url_that_is_none(url):
    with pytest.raises(smoke.SmokeError, match="smoke_url must be like https://"):
        smoke.open_site(url, "", "", "", 1)


def test_an_authority_that_is_none(tmp_path):
    (tmp_path / "empty").write_text("nothing")
    for name in ("absent", "empty"):
        with pytest.raises(smoke.SmokeError, match=f"smoke_ca .*{name} cannot be read"):
            smoke.open_site("https://x", "", str(tmp_path / name), "", 1)
