"""What happened and who is told: with it or not at all, once, and again only where it was missed."""

from access import GUARD, PRO, bearer, token
from servers import wait_for
from service import agentctl
from work import Site, finished, message


def crm(site: Site) -> dict[str, str]:
    return {"crm_url": f"{site.receiver.url}/v1", "crm_token": "a-token-of-the-crm"}


def notes(site: Site) -> list[dict[str, object]]:
    return [post["body"] for post in site.receiver.posts() if post["path"] == "/v1/notes"]


def test_a_turn_is_an_event_and_a_turn_that_failed_is_none(site: Site) -> None:
    api = site.api("r1")
    assert api.chat("Hi", session_id="s1", user_id="ana").status_code == 200
    site.model.control(fail_next=9, status=400)
    assert api.chat("Hi", session_id="s1", user_id="ana").status_code == 502
    site.model.control(reset=True)
    # Stored by nobody: the conversation is another's.
    assert api.chat("Hi", session_id="s1", user_id="bia").status_code == 403
    ((kind, release, user, subject, payload),) = site.rows(
        "SELECT type, release, user_id, subject, payload FROM events"
    )
    assert (kind, release, user, subject) == ("conversation.turn", "r1", "ana", "s1")
    assert payload["position"] == 2
    assert payload["output_tokens"] > 0
    assert "Hi" not in str(payload)


def test_without_the_queue_there_are_no_events(site: Site) -> None:
    api = site.api("r1", queue=False, uaz_webhook_secret="")
    assert api.chat("Hi").status_code == 200
    assert site.count("events") == 0
    assert api.post("/api/analyze", json={"text": "x"}).status_code == 404
    assert "queue" not in api.get("/ready").json()["checks"]


def test_a_consumer_is_told_once(site: Site) -> None:
    api = site.api("r1", **crm(site))
    task_id = api.post("/api/analyze", json={"text": "Profit: 3", "user_id": "ana"}).json()["task_id"]
    assert api.post("/webhook/uaz", json=message("Hello")).status_code == 200
    for _ in range(2):
        site.worker("r1", **crm(site)).wait()
    finished(api, task_id, user_id="ana")
    wait_for(lambda: len(notes(site)) == 2, 60, "both notes")
    wait_for(lambda: site.count("procrastinate_jobs") == 0, 30, "an empty queue")
    by_source = {note["source"]: note for note in notes(site)}
    assert set(by_source) == {"analysis.finished", "message.received"}
    assert "Profit: 3" in str(by_source["analysis.finished"]["text"])
    assert by_source["analysis.finished"]["subject"] == "ana"
    assert len(notes(site)) == 2
    status = api.get("/api/integrations/crm/status").json()
    assert (status["status"], status["waiting"], status["dead"]) == ("ok", 0, 0)
    assert status["last_sent_at"]


def test_a_consumer_that_came_later_is_told_by_a_replay_and_not_twice(site: Site) -> None:
    api = site.api("r1")
    first = site.worker("r1").wait()
    done = [api.post("/api/analyze", json={"text": f"Text {n}"}).json()["task_id"] for n in range(3)]
    for task_id in done:
        finished(api, task_id)
    wait_for(lambda: site.count("events WHERE dispatched_at IS NULL") == 0, 20, "the dispatch")
    first.stop()
    environment = site.environment("r1", **crm(site))

    def replay(*arguments: str) -> str:
        result = agentctl("events", "replay", *arguments, **environment)
        assert result.returncode == 0, result.stderr
        return result.stdout

    assert replay("--since", "2100-01-01") == "crm_notes: 0 events queued\n"
    assert replay("--since", "2020-01-01") == "crm_notes: 3 events queued\n"
    assert replay("--since", "2020-01-01T00:00+02:00", "--consumer", "crm_notes") == "crm_notes: 0 events queued\n"
    # One failed for good; it is told again by the next replay.
    site.rows("UPDATE procrastinate_jobs SET status = 'failed' WHERE id = (SELECT min(id) FROM procrastinate_jobs)")
    assert replay("--since", "2020-01-01") == "crm_notes: 1 events queued\n"
    site.worker("r1", **crm(site)).wait()
    wait_for(lambda: len(notes(site)) == 3, 60, "the notes")
    assert len({str(note["reference"]) for note in notes(site)}) == 3
    assert replay("--since", "2020-01-01") == "crm_notes: 0 events queued\n"


def test_a_replay_for_nobody_says_whom_there_is(site: Site) -> None:
    result = agentctl("events", "replay", "--since", "2020-01-01", "--consumer", "nobody", **site.environment("r1"))
    assert result.returncode == 1
    assert "configured here: none" in result.stderr
    assert agentctl("events", "replay", "--since", "soon", **site.environment("r1")).returncode == 2


def test_how_an_integration_stands(site: Site) -> None:
    api = site.api("r1", **crm(site), **GUARD)
    site.receiver.usual = 503
    for customer in (PRO, token("ana"), token("ana", tier="enterprise")):
        refused = api.get("/api/integrations/crm/status", headers=bearer(customer))
        assert (refused.status_code, refused.json()["type"]) == (403, "urn:agent:problem:forbidden")
    # Neither did they make the service ask.
    assert site.receiver.requests == []
    status = api.get("/api/integrations/crm/status").json()
    assert (status["status"], status["error"]) == ("degraded", "503")
    assert [request["path"] for request in site.receiver.requests] == ["/v1/health"] * 2
    # Believed for a while: whoever asks often does not ask the other system often.
    site.receiver.usual = 200
    assert api.get("/api/integrations/crm/status").json()["status"] == "degraded"
    assert api.get("/api/integrations/uaz/status").json()["status"] == "ok"
    assert site.receiver.requests[0]["headers"]["Authorization"] == "Bearer a-token-of-the-crm"
    unknown = api.get("/api/integrations/erp/status")
    assert (unknown.status_code, unknown.json()["detail"]) == (
        404,
        "There is no such integration; there are: crm, uaz.",
    )
    assert site.api("r1").get("/api/integrations/crm/status").json()["status"] == "off"
