"""Messages from WhatsApp: who may send them, what is answered, and that nothing a sender writes is a failure."""

import hashlib
import hmac
import json
import statistics
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from fuzz import bodies
from servers import wait_for
from service import Client
from work import SECRET, TOKEN, Site, message

from agent_service.integrations.uaz import PART_CHARACTERS, incoming, parts

# All of them are the soak's; the short suite has a tenth, of another seed.
FUZZED = [pytest.param(1_000, 7, id="some"), pytest.param(10_000, 6, id="all", marks=pytest.mark.soak)]


@pytest.fixture
def api(site: Site) -> Client:
    client = site.api("r1")
    # Who calls a webhook has no key of the API.
    del client.headers["Authorization"]
    return client


def post(api: Client, document: Any, **headers: str) -> tuple[int, str]:
    response = api.post("/webhook/uaz", content=json.dumps(document), headers=headers)
    return response.status_code, response.json().get("status", "")


def test_without_a_secret_there_is_no_webhook(client: Client) -> None:
    assert post(client, message("Hi"))[0] == 404


def test_token_in_the_body_in_a_header_or_a_signature(api: Client, site: Site) -> None:
    bare = {**message("One"), "token": "another"}
    assert post(api, bare)[0] == 403
    assert post(api, {key: value for key, value in bare.items() if key != "token"})[0] == 403
    assert post(api, {**bare, "token": 5})[0] == 403
    assert post(api, bare, **{"X-Webhook-Token": SECRET}) == (200, "accepted")
    assert post(api, message("Two")) == (200, "accepted")
    signed = json.dumps({**message("Three"), "token": "another"})
    digest = hmac.new(SECRET.encode(), signed.encode(), hashlib.sha256).hexdigest()
    for signature, status in ((digest, 200), ("0" * 64, 403), ("", 403)):
        headers = {"X-Webhook-Signature": f"sha256={signature}"}
        assert api.post("/webhook/uaz", content=signed, headers=headers).status_code == status
    # A wrong signature is not mended by the right token beside it.
    headers = {"X-Webhook-Signature": "sha256=00", "X-Webhook-Token": SECRET}
    assert api.post("/webhook/uaz", content=signed, headers=headers).status_code == 403
    assert site.count("inbound_messages") == 3


def test_a_message_is_stored_and_queued_once(api: Client, site: Site) -> None:
    document = message("Hello")
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _: post(api, document), range(16)))
    assert sorted(answers) == [(200, "accepted")] + [(200, "duplicate")] * 15
    assert site.count("inbound_messages") == site.count("procrastinate_jobs") == 1
    assert site.rows("SELECT type, subject FROM events") == [("message.received", document["message"]["messageid"])]


@pytest.mark.parametrize(
    "change",
    [{"fromMe": True}, {"isGroup": True}, {"wasSentByApi": True}, {"text": ""}, {"text": None}, {"text": " \n"},
     {"messageid": None}, {"messageid": "a b"}, {"messageid": "x" * 201}, {"chatid": None}, {"chatid": 7},
     {"sender_pn": "", "chatid": "120@g.us", "sender": "1@lid"}],
)  # fmt: skip
def test_what_is_no_text_to_answer_is_ignored(change: dict[str, Any]) -> None:
    assert incoming(message("Hi", **change), 100) is None


def test_both_shapes_are_read() -> None:
    new = message("Hi\r\nthere\x00")
    old = {"event": "message", "instance": "i1", "data": new["message"]}
    assert incoming(new, 100) == incoming(old, 100)
    read = incoming(new, 100)
    assert read
    assert (read.number, read.text) == ("551199990000", "Hi\nthere\ufffd")
    cut = incoming(message("Hello"), 2)
    assert cut
    assert cut.text == "He"


def test_the_worker_answers_in_order_through_the_usual_conversation(api: Client, site: Site) -> None:
    site.receiver.statuses = [500]
    for text in ("First", "Second"):
        assert post(api, message(text)) == (200, "accepted")
    site.worker("r1").wait()
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 2, 60, "both answers")
    first, again, second = site.receiver.posts()
    assert first["body"]["text"] == again["body"]["text"] == "(1) You said: First"
    assert second["body"]["text"] == "(2) You said: Second"
    assert first["path"] == "/send/text"
    assert first["headers"]["token"] == TOKEN
    assert first["body"]["number"] == "551199990000"
    assert first["headers"]["Idempotency-Key"] == again["headers"]["Idempotency-Key"] == first["body"]["track_id"]
    assert first["headers"]["Idempotency-Key"] != second["headers"]["Idempotency-Key"]
    assert site.rows("SELECT user_id FROM conversations") == [("whatsapp:551199990000",)]
    wait_for(lambda: site.count("audit WHERE action = 'JOB answer_message' AND status = 200") == 2, 10, "audit rows")
    query = "SELECT DISTINCT kind, user_id, owner_id, conversation_id FROM audit WHERE status = 200"
    user = "whatsapp:551199990000"
    assert site.rows(query) == [("change", user, user, site.rows("SELECT id FROM conversations")[0][0])]


def test_long_answers_become_parts() -> None:
    assert parts("short") == ["short"]
    text = "word " * 2000
    pieces = parts(text)
    assert all(len(piece) <= PART_CHARACTERS for piece in pieces)
    assert " ".join(pieces).split() == text.split()
    assert [len(piece) for piece in parts("x" * 9000)] == [4000, 4000, 1000]


@pytest.mark.parametrize(("count", "seed"), FUZZED)
def test_no_body_is_a_failure(api: Client, site: Site, count: int, seed: int) -> None:
    counts: dict[int, int] = {}
    times: list[float] = []

    def send(body: bytes) -> None:
        response = api.post("/webhook/uaz", content=body, headers={"X-Webhook-Token": SECRET})
        counts[response.status_code] = counts.get(response.status_code, 0) + 1
        assert response.status_code < 500, (response.status_code, body[:300])

    for body in bodies(count, seed):
        send(body)
    # Some of them were texts, and those are all there.
    assert counts[200] > count / 4
    assert counts[400] > count / 20
    assert 0 < site.count("inbound_messages") == site.count("procrastinate_jobs")
    for number in range(200):
        started = time.perf_counter()
        assert post(api, message(f"Message {number}"))[0] == 200
        times.append((time.perf_counter() - started) * 1000)
    times.sort()
    print(f"statuses {counts}; acknowledged in ms: p50 {statistics.median(times):.1f}, p95 {times[190]:.1f}")
