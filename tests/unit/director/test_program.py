"""The director's program against a fake HAProxy: what it is asked, what it does, and what it is after a crash."""

import asyncio
import itertools
import json

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director import journal, memory, program
from ansible_collections.agentfleet.vm.plugins.module_utils.director.answers import Refusal, answer
from ansible_collections.agentfleet.vm.plugins.module_utils.director.lease import LeaseError
from ansible_collections.agentfleet.vm.plugins.module_utils.director.program import Director
from fake_haproxy import FakeServer

BLUE, GREEN = ("agent1-blue-1", "agent2-blue-1"), ("agent1-green-1", "agent2-green-1")
OLD = {**dict.fromkeys(BLUE, 100), **dict.fromkeys(GREEN, 0)}
NEW = {**dict.fromkeys(BLUE, 0), **dict.fromkeys(GREEN, 100)}
SLOTS = {"agent1-blue": "1", "agent2-blue": "1", "agent1-green": "2", "agent2-green": "2"}
NUMBERS = itertools.count()


def ask(director, do, **request):
    return asyncio.run(answer(director, {"do": do, **request}))


def lease(director, holder="ann"):
    return ask(director, "lease", holder=holder, work="deploy")["generation"]


def rollout(**more):
    return {
        "id": f"r{next(NUMBERS)}",
        "backend": "agent",
        "kind": "deploy",
        "release": "2",
        "previous": "1",
        "strategy": "blue_green",
        "stages": [{"label": "100 %", "weights": NEW}],
        "before": OLD,
        "slots": SLOTS,
        "bake_seconds": 0.0,
        **more,
    }


def weights(haproxy):
    return {name: server.weight for name, server in haproxy.servers.items()}


def carry_on(director, clock, seconds=0.0, steps=10):
    """Let the director work for a while."""

    async def work():
        for _ in range(steps):
            for one in director.memory.works.values():
                if not one.over:
                    director.carry_on(one)
            await asyncio.sleep(0)

    clock.now += seconds
    asyncio.run(work())


def deploy(director, clock, **more):
    generation = lease(director)
    ask(director, "submit", generation=generation, rollout=rollout(**more))
    carry_on(director, clock)
    ask(director, "release", generation=generation)


def phase(director):
    return director.memory.works["agent"].state.phase


def test_a_rollout_is_carried_out_and_remembered(director, haproxy, clock):
    deploy(director, clock)
    assert (phase(director), weights(haproxy)) == ("promoted", NEW)
    seen = ask(director, "status", backend="agent")["backends"]["agent"]
    assert (seen["current"]["release"], seen["history"][0]["outcome"]) == ("2", "promoted")
    texts = [event["text"] for event in ask(director, "events", backend="agent", since=0)["events"]]
    assert texts[0] == "deploy of 2 by blue_green begins"
    assert texts[-1].startswith("promoted: all traffic is on 2")


def test_what_was_known_is_known_again_after_a_crash(director, haproxy, clock, places):
    generation = lease(director)
    ask(director, "submit", generation=generation, rollout=rollout(bake_seconds=30.0))
    carry_on(director, clock, steps=3)
    again = Director(places, clock)
    assert again.memory == director.memory
    assert phase(again) == "baking"
    with pytest.raises(LeaseError):
        lease(again, "bob")


def figures(places):
    """What a node exporter reads of the director: values by name and labels."""
    lines = [line for line in places.figures.read_text().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines)}


def test_it_shows_what_it_is_at_and_until_when_the_lease_is(director, haproxy, clock, places):
    began, ends = clock(), "agentfleet_lease_expires_timestamp_seconds"
    generation = lease(director)
    assert figures(places)[ends] == began + 30
    ask(director, "submit", generation=generation, rollout=rollout(bake_seconds=300.0))
    carry_on(director, clock)
    ask(director, "release", generation=generation)
    shown = figures(places)
    assert shown[ends] == 0
    assert shown['agentfleet_rollout_active{service="agent"}'] == 1
    assert shown['agentfleet_rollout_stage_seconds{service="agent"}'] == 300
    assert shown['agentfleet_rollout_stage_timestamp_seconds{service="agent"}'] == began
    # One that was started again knows and shows the same.
    places.figures.unlink()
    Director(places, clock)
    assert figures(places) == shown


def test_it_shows_which_release_is_current_since_when(director, haproxy, clock, places):
    deploy(director, clock)
    assert phase(director) == "promoted"
    shown = figures(places)
    assert shown['agentfleet_rollout_active{service="agent"}'] == 0
    assert not any(name.startswith("agentfleet_rollout_stage") for name in shown)
    at = director.memory.current["agent"]["at"]
    assert shown['agentfleet_release_timestamp_seconds{service="agent",release="2"}'] == at


def test_a_line_that_a_crash_cut_off_is_forgotten(director, haproxy, clock, places):
    deploy(director, clock)
    path = places.directory / "journal.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":"lease","lea')
    again = Director(places, clock)
    assert again.memory == director.memory
    lease(again)
    assert Director(places, clock).memory.lease == again.memory.lease


def test_a_snapshot_is_all_that_is_known(director, haproxy, clock, places):
    deploy(director, clock)
    path = places.directory / "journal.jsonl"
    journal.rewrite(path, [memory.snapshot(director.memory, clock())])
    assert memory.fold(journal.read(path)) == director.memory


@pytest.mark.parametrize("entry", range(12))
def test_killed_after_any_entry_it_ends_on_one_release(director, haproxy, clock, places, entry):
    """The journal as it was after each entry of a canary, with HAProxy as it was at the end or at the begin."""
    stages = [
        {"label": f"{part} %", "weights": dict.fromkeys(BLUE, 100 - part) | dict.fromkeys(GREEN, part)}
        for part in (5, 50)
    ]
    deploy(director, clock, strategy="canary", stages=[*stages, {"label": "100 %", "weights": NEW}])
    path = places.directory / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[: entry + 1]))
    again = Director(places, clock)
    carry_on(again, clock, seconds=1, steps=20)
    if "agent" in again.memory.works:
        assert phase(again) == "promoted"
        assert weights(haproxy) == NEW


def test_an_older_generation_changes_nothing(director, haproxy, clock):
    late = lease(director, "late")
    clock.now += 31
    lease(director, "bob")
    for do, more in (
        ("submit", {"rollout": rollout()}),
        ("overwrite", {"backend": "agent", "slots": ["agent1-green"]}),
    ):
        with pytest.raises(LeaseError, match="since bob began deploy"):
            ask(director, do, generation=late, **more)
    assert weights(haproxy) == OLD


def test_a_rollout_that_is_under_way_keeps_others_out(director, haproxy, clock):
    generation = lease(director)
    ask(director, "submit", generation=generation, rollout=rollout(bake_seconds=300.0))
    for do, more in (
        ("submit", {"generation": generation, "rollout": rollout()}),
        ("overwrite", {"generation": generation, "backend": "agent", "slots": []}),
        ("rollback", {"backend": "agent", "holder": "x"}),
    ):
        with pytest.raises(Refusal, match="under way"):
            ask(director, do, **more)
    clock.now += 31
    with pytest.raises(Refusal, match="under way"):
        lease(director, "bob")


def test_slots_that_are_overwritten_lose_their_traffic_but_never_all_of_it(director, haproxy, clock):
    haproxy.servers["agent1-green-1"].weight = 5
    generation = lease(director)
    haproxy.servers["agent1-green-1"].sessions = 3
    reply = ask(director, "overwrite", generation=generation, backend="agent", slots=["agent1-green"])
    assert reply == {"emptied": ["agent1-green-1"], "sessions": {"agent1-green-1": 3}}
    assert weights(haproxy) == OLD
    with pytest.raises(Refusal, match="all that serves"):
        ask(director, "overwrite", generation=generation, backend="agent", slots=["agent1-blue", "agent2-blue"])


def test_the_edge_alone_goes_back_to_what_is_warm(director, haproxy, clock):
    deploy(director, clock, release="1", previous="", stages=[{"label": "all", "weights": OLD}], before=NEW)
    deploy(director, clock)
    begun = ask(director, "rollback", backend="agent", holder="root on edge1")
    assert (begun["release"], begun["targets"]) == ("1", {"agent1": "blue", "agent2": "blue"})
    carry_on(director, clock)
    assert weights(haproxy) == OLD
    assert director.memory.current["agent"]["release"] == "1"


def test_a_release_that_is_not_warm_is_refused_before_anything_changes(director, haproxy, clock):
    deploy(director, clock, release="1", previous="", stages=[{"label": "all", "weights": OLD}], before=NEW)
    deploy(director, clock)
    haproxy.servers["agent2-blue-1"] = FakeServer(0, up=False, check=("L4CON", "", "Connection refused"))
    with pytest.raises(Refusal, match=r"1 is not warm on agent2: .*rollback\.yml -e release=1"):
        ask(director, "rollback", backend="agent", holder="x")
    assert weights(haproxy) == NEW
    assert not director.memory.lease.live(clock())


def keep_artifact(places, release, *revisions):
    artifacts = places.store / "agent/artifacts"
    artifacts.mkdir(parents=True, exist_ok=True)
    (artifacts / f"{release}.tar.gz").touch()
    (artifacts / f"{release}.json").write_text(json.dumps({"id": release, "schema": {"revisions": revisions}}))


def contract(director, floor):
    generation = lease(director)
    ask(director, "contract", generation=generation, backend="agent", floor=floor)
    ask(director, "release", generation=generation)


def test_what_the_database_has_left_behind_is_refused_and_that_is_remembered(director, haproxy, clock, places):
    deploy(director, clock, release="1", previous="", stages=[{"label": "all", "weights": OLD}], before=NEW)
    keep_artifact(places, "1", "0001")
    contract(director, "0002")
    deploy(director, clock)
    for again in (director, Director(places, clock)):
        assert ask(again, "status", backend="agent")["backends"]["agent"]["floor"] == "0002"
        with pytest.raises(Refusal, match=r"release 1 knows migrations up to 0001, .* needs .* migration 0002"):
            ask(again, "rollback", backend="agent", holder="root on edge1")
        generation = lease(again)
        with pytest.raises(Refusal, match="knows migrations up to 0001"):
            ask(again, "submit", generation=generation, rollout=rollout(release="1"))
        ask(again, "release", generation=generation)
        assert weights(haproxy) == NEW
    keep_artifact(places, "1", "0001", "0002")
    ask(director, "rollback", backend="agent", holder="root on edge1")
    carry_on(director, clock)
    assert weights(haproxy) == OLD


def test_an_unknown_release_is_no_way_back_once_the_database_was_contracted(director, haproxy, clock):
    deploy(director, clock, release="1", previous="", stages=[{"label": "all", "weights": OLD}], before=NEW)
    contract(director, "0002")
    # Whoever plans may know it from elsewhere.
    deploy(director, clock)
    with pytest.raises(Refusal, match="1 does not say which migrations it knows"):
        ask(director, "rollback", backend="agent", holder="x")
    contract(director, "")
    ask(director, "rollback", backend="agent", holder="x")


def test_a_floor_is_noted_only_under_the_lease_and_survives_a_new_journal(director, clock):
    generation = lease(director)
    ask(director, "contract", generation=generation, backend="agent", floor="0002")
    with pytest.raises(LeaseError):
        ask(director, "contract", generation=generation - 1, backend="agent", floor="0003")
    again = memory.fold([memory.snapshot(director.memory, clock())])
    assert again.floors == {"agent": "0002"}


def test_a_second_rollback_goes_one_further_back(director, haproxy, clock):
    def earlier():
        return memory.before_current(director.memory, "agent").get("release")

    for number in "123":
        deploy(director, clock, release=number, slots={**SLOTS, "agent1-green": number, "agent2-green": number})
    assert earlier() == "2"
    deploy(director, clock, kind="rollback", release="2", previous="3")
    assert earlier() == "1"
    deploy(director, clock, kind="rollback", release="1", previous="2")
    assert earlier() is None
    deploy(director, clock, release="4")
    assert earlier() == "1"


def test_a_host_is_drained_and_comes_back_but_never_the_last(director, haproxy, clock):
    assert ask(director, "drain", backend="agent", host="agent1", on=True)["changed"] == [
        "agent1-blue-1",
        "agent1-green-1",
    ]
    assert haproxy.servers["agent1-blue-1"].admin == 8
    with pytest.raises(Refusal, match="agent2 is all that serves"):
        ask(director, "drain", backend="agent", host="agent2", on=True)
    with pytest.raises(Refusal, match="no server of agent9"):
        ask(director, "drain", backend="agent", host="agent9", on=True)
    haproxy.servers["agent1-blue-1"].up = False
    assert ask(director, "drain", backend="agent", host="agent1", on=False)["down"] == ["agent1-blue-1"]
    assert haproxy.servers["agent1-blue-1"].admin == 0
    haproxy.servers["agent1-blue-1"].up = True
    assert ask(director, "drain", backend="agent", host="agent1", on=False)["down"] == []


def test_a_host_is_drained_of_every_service_and_of_none_where_one_has_no_other(director, haproxy, clock):
    deploy(director, clock)
    drained = ask(director, "drain", backend="", host="agent1", on=True)
    assert drained["changed"] == ["agent1-blue-1", "agent1-green-1"]
    with pytest.raises(Refusal, match="agent2 is all that serves of agent; nothing was changed"):
        ask(director, "drain", backend="", host="agent2", on=True)
    with pytest.raises(Refusal, match="the balancer has no server of agent9"):
        ask(director, "drain", backend="", host="agent9", on=True)
    assert len(ask(director, "drain", backend="", host="agent1", on=False)["changed"]) == 2


def test_while_haproxy_is_away_nothing_is_decided(director, haproxy, clock, places):
    generation = lease(director)
    ask(director, "submit", generation=generation, rollout=rollout(bake_seconds=300.0))

    async def some():
        task = asyncio.create_task(director.run())
        await asyncio.sleep(0.3)
        task.cancel()

    director.runtime.path = str(places.directory / "nobody.sock")
    asyncio.run(some())
    assert phase(director) == "moving"
    assert director.memory.events[-1]["text"].startswith("waiting: HAProxy cannot be reached")


def test_a_slot_is_probed_through_the_port_of_its_own_service(director, haproxy, clock, monkeypatch):
    ports = []
    monkeypatch.setattr(program, "probe", lambda port, *_: ports.append(port))
    generation = lease(director)
    ask(director, "submit", generation=generation, rollout=rollout(bake_seconds=30.0, balancer_port=8081))
    carry_on(director, clock, steps=4)
    carry_on(director, clock, seconds=5)
    assert set(ports) == {8081}


def test_figures_of_each_request_decide(director, haproxy, clock):
    generation = lease(director)
    ask(director, "submit", generation=generation, rollout=rollout(bake_seconds=300.0))
    carry_on(director, clock, steps=4)
    clock.now += 5
    for number in range(40):
        raw = {"backend": "agent", "server": GREEN[0], "status": 500 if number % 3 == 0 else 200}
        director.received(
            json.dumps(raw | {"first": 9, "total": 9, "end": "--", "probe": "-", "provider": "-"}).encode()
        )
    carry_on(director, clock)
    assert (phase(director), weights(haproxy)) == ("reverted", OLD)
    assert "35 % of its requests failed" in director.memory.works["agent"].state.reason


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"do": "dance"}, "unknown request"),
        ({"do": "status", "backend": "shop"}, "no backend shop"),
    ],
)
def test_what_cannot_be_answered_is_one_line(director, haproxy, asked, says):
    with pytest.raises(Exception, match=says):
        asyncio.run(answer(director, asked))
