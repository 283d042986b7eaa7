import base64
import hmac
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx
import jwt
import pytest
from access import FREE, GUARD, PRO, SECRET, SMALL, bearer, token
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat
from servers import Model
from service import KEY, Client, LocalService

Run = Callable[[dict[str, Any]], LocalService]


@pytest.fixture(scope="session")
def guarded(run: Run, model_settings: dict[str, Any]) -> LocalService:
    return run({**model_settings, **GUARD, "jwt_issuer": "", "jwt_audience": ""})


@pytest.fixture
def ask(guarded: LocalService, model: Model) -> Callable[..., httpx.Response]:
    def request(credential: str, message: str = "Hi", **fields: Any) -> httpx.Response:
        return guarded.client.post("/api/chat", json={"message": message, **fields}, headers=bearer(credential))

    return request


def user() -> str:
    return f"user-{uuid.uuid4()}"


def unsigned(claims: dict[str, Any]) -> str:
    parts = [json.dumps(part).encode() for part in ({"alg": "none", "typ": "JWT"}, claims)]
    return ".".join([*(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts), ""])


@pytest.mark.parametrize("credential", [KEY, PRO])
def test_keys_act_for_any_user(ask: Callable[..., httpx.Response], credential: str) -> None:
    for name in (user(), user(), None):
        assert ask(credential, user_id=name).status_code == 200


def test_token_speaks_for_its_own_user_whatever_the_body_says(
    ask: Callable[..., httpx.Response], session_id: str
) -> None:
    ana, eve = user(), user()
    assert ask(token(ana), session_id=session_id, user_id=eve).status_code == 200
    # The conversation is Ana's, not the one's whom the body named.
    assert ask(KEY, session_id=session_id, user_id=eve).status_code == 403
    assert ask(KEY, session_id=session_id, user_id=ana).status_code == 200


NOW = int(time.time())
REFUSED: dict[str, tuple[Callable[[], str], str]] = {
    "of another key": (lambda: token(key=SECRET[::-1]), "token-signature"),
    "over": (lambda: token(exp=NOW - 1), "token-expired"),
    "long over": (lambda: token(exp=NOW - 10**6), "token-expired"),
    "without an end": (lambda: token(exp=None), "token-without-exp"),
    "without a user": (lambda: token(None), "token-without-sub"),
    "of an empty user": (lambda: token(""), "token-subject"),
    "of a long user": (lambda: token("x" * 129), "token-subject"),
    "of a user with a line": (lambda: token("a\nb"), "token-subject"),
    "of later": (lambda: token(nbf=NOW + 3600), "token-not-yet"),
    "for somebody": (lambda: token(aud="others"), "token-audience"),
    "of a tier that is none": (lambda: token(tier="gold"), "token-tier"),
    "of a tier that is a list": (lambda: token(tier=["pro"]), "token-tier"),
    "unsigned": (lambda: unsigned({"sub": "ana", "exp": NOW + 600}), "token-invalid"),
    "of another algorithm": (lambda: token(algorithm="HS512", key=SECRET * 2), "token-invalid"),
    "with another's signature": (
        lambda: token("eve").rpartition(".")[0] + "." + token().rpartition(".")[2],
        "token-signature",
    ),
    "no token": (lambda: "a.b.c", "token-invalid"),
    "dots": (lambda: "..", "token-invalid"),
    "endless": (lambda: f"{'a' * 9000}.b.c", "token-length"),
    "a key that is none": (lambda: f"{PRO}x", "unknown-key"),
}


@pytest.mark.parametrize(("credential", "reason"), REFUSED.values(), ids=REFUSED.keys())
def test_refusals_differ_in_the_metrics_alone(
    guarded: LocalService, ask: Callable[..., httpx.Response], credential: Callable[[], str], reason: str
) -> None:
    label = f'agent_unauthorized_total{{reason="{reason}"}}'

    def counted() -> float:
        lines = guarded.client.get("/metrics").text.splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(label))

    before = counted()
    response = ask(credential())
    assert response.status_code == 401
    problem = response.json()
    problem.pop("request_id")
    assert problem == {
        "type": "urn:agent:problem:unauthorized",
        "title": "Unauthorized",
        "status": 401,
        "detail": "Send an API key or a token as Authorization: Bearer <key or token>.",
    }
    assert counted() == before + 1


def test_clocks_may_differ_a_little_at_the_beginning_only(ask: Callable[..., httpx.Response]) -> None:
    soon = int(time.time()) + 10
    assert ask(token(user(), iat=soon, nbf=soon)).status_code == 200


def test_subject_has_to_be_a_string(ask: Callable[..., httpx.Response]) -> None:
    header = base64.urlsafe_b64encode(b'{"alg":"HS256"}').decode().rstrip("=")
    assert ask(f"{header}.e30.").status_code == 401
    claims = {"sub": 7, "exp": int(time.time()) + 600}
    assert ask(jwt.api_jws.encode(json.dumps(claims).encode(), SECRET, "HS256")).status_code == 401


def test_tokens_are_off_unless_set(client: Client) -> None:
    assert client.post("/api/chat", json={"message": "Hi"}, headers=bearer(token())).status_code == 401


def test_issuer_and_audience(run: Run, base_settings: dict[str, Any]) -> None:
    settings = {"jwt_secret": SECRET, "jwt_issuer": "https://id.test", "jwt_audience": "agent"}
    client = run({**base_settings, **settings}).client

    def status(**claims: Any) -> int:
        return client.post("/api/chat", json={"message": "Hi"}, headers=bearer(token(user(), **claims))).status_code

    assert status(iss="https://id.test", aud="agent") == 200
    assert status(iss="https://id.test", aud=["others", "agent"]) == 200
    assert status(iss="https://id.test") == 401
    assert status(aud="agent") == 401
    assert status(iss="https://id.test", aud="others") == 401
    assert status(iss="https://evil.test", aud="agent") == 401


PRIVATE_KEYS: dict[str, Callable[[], Any]] = {
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
}


@pytest.mark.parametrize("algorithm", PRIVATE_KEYS)
def test_public_keys(run: Run, base_settings: dict[str, Any], tmp_path: Any, algorithm: str) -> None:
    private = PRIVATE_KEYS[algorithm]()
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    signing = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "public.pem").write_text(public)
    client = run({**base_settings, "jwt_public_key": str(tmp_path / "public.pem")}).client

    def status(credential: str) -> int:
        return client.post("/api/chat", json={"message": "Hi"}, headers=bearer(credential)).status_code

    assert status(token(user(), key=signing, algorithm=algorithm)) == 200
    assert status(token(user(), key=signing, algorithm=algorithm, exp=NOW - 1)) == 401
    # What everybody knows must not serve as a shared secret.
    forged = [base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (
        b'{"alg":"HS256","typ":"JWT"}', json.dumps({"sub": "eve", "exp": NOW + 600}).encode())]  # fmt: skip
    signature = hmac.digest(public.encode(), ".".join(forged).encode(), "sha256")
    assert status(".".join([*forged, base64.urlsafe_b64encode(signature).decode().rstrip("=")])) == 401


@pytest.mark.parametrize(
    ("text", "tokens"),
    [("word " * 100, 125), ("请" * 21, 21), ("한국어 " * 7, 23), ("{[(1234567890)]}" * 3, 24), ("\U0001f600" * 7, 21)],
    ids=["english", "chinese", "korean", "symbols", "emoji"],
)
def test_prompt_is_bounded_in_tokens(ask: Callable[..., httpx.Response], model: Model, text: str, tokens: int) -> None:
    response = ask(SMALL, text)
    assert response.status_code == 413
    problem = response.json()
    assert problem["type"] == "urn:agent:problem:prompt-too-large"
    assert problem["detail"] == f"The message has about {tokens} tokens; tier small allows 20 a request."
    assert (problem["tokens"], problem["allowed"], problem["tier"]) == (tokens, 20, "small")
    assert model.requests() == []
    # What cost nothing is not counted.
    assert "ratelimit-remaining" not in response.headers


def test_tiers_bound_prompts_as_agreed(ask: Callable[..., httpx.Response]) -> None:
    assert ask(FREE, "请" * 1_001).json()["allowed"] == 1_000
    assert ask(PRO, "请" * 4_001).json()["allowed"] == 4_000
    assert ask(KEY, "请" * 8_001).json()["allowed"] == 8_000
    assert ask(KEY, "请" * 8_000).status_code == 200
    assert ask(token(user()), "请" * 1_001).json()["tier"] == "free"


def test_websockets_need_a_credential_too(guarded: LocalService) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": base64.b64encode(b"0123456789abcdef").decode(),
    }
    refused = guarded.client.get("/nothing", headers={**upgrade, "Authorization": "Bearer no-key-at-all"})
    assert refused.status_code == 401
    assert refused.json()["type"] == "urn:agent:problem:unauthorized"
    # What there is not is not told to everybody.
    assert guarded.client.get("/nothing", headers=upgrade).status_code in (403, 404)


def test_other_names_of_the_service(run: Run, base_settings: dict[str, Any]) -> None:
    client = run({**base_settings, "trusted_hosts": "agent.example.com, *.shop.example.com"}).client

    def status(host: str, path: str = "/api/chat") -> int:
        if path == "/api/chat":
            return client.post(path, json={"message": "Hi"}, headers={"Host": host}).status_code
        return client.get(path, headers={"Host": host}).status_code

    assert status("agent.example.com") == status("AGENT.example.com:443") == status("a.shop.example.com") == 200
    for host in ("evil.example.com", "shop.example.com", "agent.example.com.evil.com", "127.0.0.1", "", "[::1]:80"):
        assert status(host) == 400
    # Who asks by address is the balancer.
    assert status("10.77.0.21:8101", "/health") == status("10.77.0.21", "/metrics") == 200


def test_browsers_of_other_origins(run: Run, client: Client, base_settings: dict[str, Any]) -> None:
    ask = {
        "Authorization": "",
        "Origin": "https://shop.example.com",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization, content-type, x-session-id",
    }
    assert client.options("/api/chat", headers=ask).status_code == 401
    assert "access-control-allow-origin" not in client.options("/api/chat", headers=ask).headers
    shop = run({**base_settings, "cors_origins": "https://shop.example.com"}).client
    leave = shop.options("/api/chat", headers=ask)
    assert leave.status_code == 200
    assert leave.headers["access-control-allow-origin"] == "https://shop.example.com"
    assert shop.options("/api/chat", headers={**ask, "Origin": "https://evil.example.com"}).status_code == 400
    # A page has to be able to read why it was refused.
    refused = shop.post("/api/chat", json={"message": "Hi"}, headers={"Origin": ask["Origin"], "Authorization": ""})
    assert refused.status_code == 401
    assert refused.headers["access-control-allow-origin"] == "https://shop.example.com"
    answer = shop.post("/api/chat", json={"message": "Hi"}, headers={"Origin": "https://evil.example.com"})
    assert "access-control-allow-origin" not in answer.headers
