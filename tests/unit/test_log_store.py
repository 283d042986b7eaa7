"""Lines on the log host: their files by host and hour, what of them is compressed and let go, and what is found."""

import datetime
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import log_lines, log_search, log_sender, log_store
from ansible_collections.agentfleet.vm.plugins.module_utils.log_store import Part
from ansible_collections.agentfleet.vm.plugins.modules import log_lines as module

NOW = datetime.datetime(2027, 1, 15, 8, 30, tzinfo=datetime.UTC).timestamp()
HOUR = 3600
WANTED = {"name": "agent", "what": "lines", "level": "", "component": "", "host": "", "request_id": "", "lines": 200}
needs_zstd = pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")


def record(at, text, unit="agent@blue-1.service", **more):
    time = datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat()
    return json.dumps(
        {"time": time, "source": "", "unit": unit, "name": "python", "priority": "6", "text": text, **more}
    )


def said(request_id, event="request", level="info"):
    return json.dumps({"event": event, "level": level, "request_id": request_id})


def keep(store, host, at, *records):
    """Lines as the log host writes them."""
    moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
    path = store / host / moment.strftime("%Y-%m-%d") / moment.strftime("%H.log")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.writelines(f"{host} {text}\n" for text in records)
    return path


@pytest.fixture
def store(tmp_path):
    """A job's request on its way over three hosts, its lines sent in another order."""
    worker = record(NOW - 5, said("order-4711", "job_done"), "agent-worker@blue-1.service")
    keep(tmp_path, "agent2", NOW, worker, record(NOW - 4, said("order-4712")))
    keep(tmp_path, "agent1", NOW, record(NOW - 6.5, said("order-4711", level="error")))
    access = {"time": "2027-01-15T08:29:54+00:00", "request_id": "order-4711", "client": "203.0.113.9", "seconds": 1.5}
    access |= {"method": "POST", "path": "/api/analyze", "status": 202}
    read = {"read": "2027-01-15T08:29:54.200000+00:00", "file": "nginx-access", "text": json.dumps(access)}
    keep(tmp_path, "edge1", NOW, json.dumps(read), record(NOW - 60, "Started", "haproxy.service"))
    return tmp_path


def found(store, **wanted):
    entries = log_search.of_request(store, {**WANTED, **wanted}, wanted.get("since", 0.0))
    return [(entry.host, entry.component) for entry in log_lines.in_order(log_lines.distinct(entries), 100)]


def test_a_request_is_found_from_the_edge_over_the_agent_to_the_worker(store):
    way = [("edge1", "edge"), ("agent1", "blue-1"), ("agent2", "worker-blue-1")]
    assert found(store, request_id="order-4711") == way


@needs_zstd
def test_it_is_found_in_what_is_compressed_as_well(store):
    way = found(store, request_id="order-4711")
    for kind in (".aside", ".zst"):
        log_store.tidy(store, 30, 100, NOW + 2 * HOUR)
        assert {part.kind for part in log_store.parts(store)} == {kind}
        assert found(store, request_id="order-4711") == way


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ({"level": "error"}, ["agent1"]),
        ({"component": "worker"}, ["agent2"]),
        ({"host": "edge1"}, ["edge1"]),
        ({"since": NOW - 6}, ["agent2"]),
    ],
)
def test_level_component_host_and_time_leave_out_the_rest(store, wanted, expected):
    assert [host for host, _component in found(store, request_id="order-4711", **wanted)] == expected


def test_a_line_that_was_sent_twice_is_one(store):
    keep(store, "agent1", NOW, record(NOW - 6.5, said("order-4711", level="error")))
    assert len(found(store, request_id="order-4711")) == 3


def test_whose_line_it_is_says_the_log_host_and_not_the_line():
    line = f"agent1 {json.dumps({**json.loads(record(NOW, 'x')), 'host': 'edge1'})}"
    assert log_search.from_store(line, "agent").host == "agent1"


@pytest.mark.parametrize(
    "line",
    [
        "",
        "agent1",
        "agent1 {",
        'agent1 {"time": "2027"}',
        f"agent1 {record(NOW, 'another service', 'shop@blue-1.service')}",
        f"agent1 {record(NOW, '-- MARK --', 'agentfleet-logs.service')}",
    ],
)
def test_what_is_no_line_of_the_service_or_the_fleet_is_left_out(line):
    assert log_search.from_store(line, "agent") is None


@pytest.mark.parametrize(
    ("unit", "name", "kind", "component"),
    [
        ("postgresql@17-main.service", "postgres", "postgres", "postgresql@17-main"),
        ("agentfleet-backup.service", "python3", "backup", "agentfleet-backup"),
        ("ssh.service", "sshd", "system", "ssh"),
        ("", "kernel", "system", "kernel"),
    ],
)
def test_every_line_belongs_to_a_component(unit, name, kind, component):
    entry = log_search.from_store(f"data1 {record(NOW, 'x', unit, name=name)}", "agent")
    assert (entry.kind, entry.component) == (kind, component)


@pytest.mark.parametrize(
    ("name", "text", "at", "level", "words"),
    [
        (
            "nginx-error",
            "2027/01/15 09:29:54 [warn] 7#7: *12 upstream sent",
            "2027-01-15T08:29:54+00:00",
            "warning",
            "7#7: *12 upstream sent",
        ),
        (
            "postgresql",
            "2027-01-15 09:29:54.250 CET [4711] agent@agent ERROR:  deadlock detected",
            "2027-01-15T08:29:54.250000+00:00",
            "error",
            "deadlock detected",
        ),
        (
            "redis-server",
            "812:M 15 Jan 2027 09:29:54.250 # Can't save",
            "2027-01-15T08:29:54.250000+00:00",
            "warning",
            "Can't save",
        ),
        ("postgresql", "\tit goes on", "2027-01-15T08:30:00+00:00", "info", "it goes on"),
    ],
)
def test_a_files_line_has_its_own_moment_in_its_hosts_zone(name, text, at, level, words):
    read = json.dumps({"read": "2027-01-15T09:30:00+01:00", "file": name, "text": text})
    entry = log_search.from_store(f"data1 {read}", "agent")
    assert (entry.at, entry.level, entry.text) == (datetime.datetime.fromisoformat(at).timestamp(), level, words)


def test_the_last_lines_of_each_host_come_back_as_far_as_asked(store):
    entries = log_search.latest(store, {**WANTED, "lines": 1}, NOW - 30)
    assert {entry.host for entry in entries} == {"agent1", "agent2", "edge1"}
    assert not [entry for entry in entries if entry.text == "Started"]
    assert [entry.text for entry in log_search.latest(store, {**WANTED, "component": "balancer"}, NOW - 90)] == [
        "Started"
    ]


def test_what_comes_is_followed_over_files_and_only_whole_lines(store):
    sizes = log_search.sizes(store)
    path = keep(store, "agent1", NOW + HOUR, record(NOW + HOUR, "new"))
    with path.open("a") as file:
        file.write(f"agent1 {record(NOW, 'half')}")
    entries, sizes = log_search.appended(store, WANTED, sizes)
    assert [entry.text for entry in entries] == ["new"]
    with path.open("a") as file:
        file.write("\n")
    assert [entry.text for entry in log_search.appended(store, WANTED, sizes)[0]] == ["half"]


def test_who_has_sent_nothing_for_minutes_is_late(store):
    keep(store, "data1", NOW, record(NOW - 600, "old", "redis-server.service"))
    behind = log_search.late(store, ["agent1", "data1", "ops1"], NOW)
    assert behind == [{"host": "data1", "at": NOW - 600}, {"host": "ops1", "at": 0.0}]


def part(hour, kind=".zst", host="agent1"):
    path = Path(f"/store/{host}/2027-01-15/{hour:02}.log{kind}")
    return Part(path, host, NOW // HOUR * HOUR + (hour - 8) * HOUR, kind)


def test_the_oldest_go_by_age_and_then_by_size():
    kept = [part(hour) for hour in range(6)]
    gone = log_store.to_let_go(kept, [10] * 6, 5 * HOUR, 25, NOW)
    assert gone == kept[:4]
    assert log_store.to_let_go(kept, [10] * 6, 30 * HOUR, 60, NOW) == []


def test_a_file_that_may_be_open_is_not_let_go():
    assert log_store.to_let_go([part(1, ""), part(2)], [10, 10], 30 * HOUR, 5, NOW) == [part(2)]


def test_hours_that_are_over_are_set_aside_once():
    parts = [part(5, ""), part(6, ""), part(6, ".aside"), part(8, "")]
    assert log_store.to_set_aside(parts, NOW) == [part(5, "")]
    assert log_store.to_set_aside([part(7, "")], part(7, "").ends + 100) == []


@needs_zstd
def test_late_lines_join_those_that_are_compressed(tmp_path):
    for text in ("first", "late"):
        path = keep(tmp_path, "agent1", NOW, record(NOW, text))
        aside = path.with_suffix(".log.aside")
        path.rename(aside)
        log_store.compress(aside)
    [left] = log_store.parts(tmp_path)
    assert [json.loads(line.partition(" ")[2])["text"] for line in log_store.content(left) if line] == ["first", "late"]
    # Between looking and reading it was set aside and compressed.
    assert log_store.content(Part(path, "agent1", left.begins, "")) == log_store.content(left)


def test_a_day_directory_goes_with_its_last_file(tmp_path):
    path = keep(tmp_path, "agent1", NOW, record(NOW, "x"))
    path.rename(path.with_suffix(".log.zst"))
    log_store.tidy(tmp_path, 30, 100, NOW + 31 * 24 * HOUR)
    assert not path.parent.exists()


def cursor(at):
    return f"s=0a;i=1;b=0b;m=2;t={int(at * 1e6):x};x=3"


def test_a_sender_goes_back_over_what_may_not_have_arrived():
    entries = [cursor(NOW - minutes * 60) for minutes in (0, 30, 80, 95)]
    assert log_sender.earlier(cursor(NOW), entries) == entries[2]
    assert log_sender.earlier(cursor(NOW), []) == cursor(NOW)
    busy = [cursor(NOW - number / 1e3) for number in range(log_sender.BACK_ENTRIES + 10)]
    assert log_sender.earlier(cursor(NOW), busy) == busy[log_sender.BACK_ENTRIES - 1]


def test_it_goes_back_in_a_file_to_the_start_of_a_line(tmp_path):
    log = tmp_path / "access.log"
    log.write_text("".join(f"line {number:07}\n" for number in range(200_000)))
    state = {"filename": str(log), "prev_was_nl": 0, "curr_offs": log.stat().st_size, "strt_offs": log.stat().st_size}
    back = log_sender.file_state(state)["curr_offs"]
    assert log.stat().st_size - back <= log_sender.BACK_BYTES
    assert back % 13 == 0
    log.write_text("begun anew\n")
    assert log_sender.file_state(state)["curr_offs"] == 0


def test_a_state_that_cannot_be_read_has_the_file_read_anew(tmp_path, monkeypatch):
    (tmp_path / "imfile-state:1:2").write_text("{")
    (tmp_path / "journal").write_text(cursor(NOW))
    shown = json.dumps({"__CURSOR": cursor(NOW - 60)})
    monkeypatch.setattr(
        log_sender.subprocess, "run", lambda command, **_options: subprocess.CompletedProcess(command, 0, shown, "")
    )
    log_sender.main([str(tmp_path)])
    assert not list(tmp_path.glob("imfile-state*"))
    assert (tmp_path / "journal").read_text() == cursor(NOW - 60)


def test_a_requests_spans_are_those_of_its_trace(store):
    spans = [
        {"event": "span", "trace_id": "a" * 32, "span_id": "1", "request_id": "order-4711"},
        {"event": "span", "trace_id": "a" * 32, "span_id": "2", "parent_id": "1"},
        {"event": "span", "trace_id": "b" * 32, "span_id": "3"},
    ]
    texts = [json.dumps(span) for span in spans]
    keep(store, "agent1", NOW, *(record(NOW, text) for text in texts))
    wanted = {**WANTED, "store": str(store), "request_id": "order-4711"}
    assert module.spans(wanted, 0.0) == [("agent1", texts[0]), ("agent1", texts[1])]
    assert module.spans({**wanted, "request_id": "a" * 32}, 0.0) == [("agent1", texts[0]), ("agent1", texts[1])]
