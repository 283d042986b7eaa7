"""Effects outward: sent after what they follow from, again where they failed, and to be seen where they are dead."""

import json

import psycopg
from servers import PASSWORD, wait_for
from work import Site


def put(site: Site, key: str, kind: str = "uaz_text", lane: str | None = None) -> None:
    payload = json.dumps({"number": "5511", "text": key})
    site.rows("INSERT INTO outbox (key, kind, lane, payload) VALUES (%s, %s, %s, %s)", [key, kind, lane, payload])


def sent(site: Site) -> list[str]:
    return [post["body"]["text"] for post in site.receiver.posts()]


def test_each_is_sent_once_by_several_workers(site: Site) -> None:
    for number in range(60):
        put(site, f"entry-{number}")
    for _ in range(2):
        site.worker("r1").wait()
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 60, 60, "all entries")
    assert sorted(sent(site)) == sorted(f"entry-{number}" for number in range(60))


def test_a_lane_keeps_its_order_and_holds_up_nobody_else(site: Site) -> None:
    put(site, "first", lane="a")
    put(site, "second", lane="a")
    put(site, "other", lane="b")
    site.receiver.statuses = [503]
    site.worker("r1").wait()
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 3, 60, "all entries")
    order = sent(site)
    assert [key for key in order if key in ("first", "second")] in (["first", "first", "second"], ["first", "second"])
    assert "other" in order


def test_what_is_refused_for_good_is_dead_and_can_be_sent_again(site: Site) -> None:
    put(site, "wrong")
    site.receiver.statuses = [422]
    site.worker("r1").wait()
    wait_for(lambda: site.count("outbox WHERE state = 'dead'") == 1, 30, "the refusal")
    (entry,) = json.loads(site.control("r1", "outbox", "show", "--json"))
    assert (entry["key"], entry["state"], entry["error"]) == ("wrong", "dead", "422")
    assert "wrong" in site.control("r1", "outbox", "show", "--state", "dead")
    assert site.control("r1", "outbox", "requeue", str(entry["id"])) == "1 entries will be sent again\n"
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 1, 30, "the second attempt")
    assert site.control("r1", "outbox", "requeue", "--all") == "0 entries will be sent again\n"


def test_what_fails_too_often_is_dead(site: Site) -> None:
    put(site, "unlucky")
    site.receiver.usual = 500
    worker = site.worker("r1", outbox_attempts=2).wait()
    wait_for(lambda: site.count("outbox WHERE state = 'dead'") == 1, 30, "the last attempt")
    assert len(site.receiver.posts()) == 2
    assert worker.client.metric("agent_outbox_sends_total") == 2


def test_a_kind_that_nobody_here_sends_waits(site: Site) -> None:
    put(site, "stranger", kind="something_newer")
    put(site, "known")
    site.worker("r1").wait()
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 1, 30, "the known one")
    assert site.rows("SELECT key, attempts FROM outbox WHERE state = 'waiting'") == [("stranger", 0)]


def test_a_worker_killed_while_it_sends_leaves_the_entry_to_the_next(site: Site) -> None:
    """It may have arrived: then it arrives again, with the key that says so."""
    put(site, "once")
    site.receiver.gate.clear()
    first = site.worker("r1").wait()
    wait_for(lambda: len(site.receiver.posts()) == 1, 30, "the request")
    first.kill()
    site.receiver.gate.set()
    site.worker("r1").wait()
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 1, 30, "the second worker's")
    assert {post["headers"]["Idempotency-Key"] for post in site.receiver.posts()} == {"once"}


def test_what_is_being_sent_is_locked_from_others(site: Site) -> None:
    put(site, "held")
    site.receiver.gate.clear()
    site.worker("r1").wait()
    wait_for(lambda: len(site.receiver.posts()) == 1, 30, "the request")
    user = site.settings["database_user"]
    with psycopg.connect(
        host="127.0.0.1", port=site.postgres.port, dbname=site.database, user=user, password=PASSWORD
    ) as connection:
        assert connection.execute("SELECT id FROM outbox FOR UPDATE SKIP LOCKED").fetchall() == []
    site.receiver.gate.set()
    wait_for(lambda: site.count("outbox WHERE state = 'sent'") == 1, 30, "the mark")
    assert len(site.receiver.posts()) == 1
