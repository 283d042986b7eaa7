"""Traffic decisions, and the module against a runtime socket."""

import sys
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
from ansible_collections.agentfleet.vm.plugins.modules import traffic
from hypothesis import given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from fake_haproxy import FakeHaproxy, FakeServer

CONFIG = """
global
    stats socket /run/haproxy/admin.sock
frontend agent
    bind 127.0.0.1:8080
backend agent
    option httpchk
    server agent1-blue-1 10.0.0.1:8100 weight 0
    server agent1-green-1 10.0.0.1:8150 weight 0
backend other
    server agent1-blue-1 [fd00::1]:9100 weight 0
"""
DOWN = ("L4CON", "", "Connection refused")


def server(name, weight=0, ready=True):
    return haproxy.Server(name, weight, "up" if ready else "down", "L7OK 200", ready, 0)


weights = st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 256), min_size=1)


@given(now=weights, data=st.data())
def test_a_move_ends_at_what_is_wanted_and_never_leaves_a_backend_empty(now, data):
    wanted = data.draw(st.dictionaries(st.sampled_from(sorted(now)), st.integers(0, 256)))
    move = haproxy.plan_move(wanted, {name: server(name, weight) for name, weight in now.items()})
    live = dict(now)
    for name, weight in move.steps:
        live[name] = weight
        assert sum(live.values()) >= min(sum(now.values()), sum((now | wanted).values()))
    assert live == now | wanted
    assert bool(move) == (now | wanted != now)


def test_only_servers_that_rise_have_to_be_ready():
    servers = {"old": server("old", 100, ready=False), "new": server("new", 0, ready=False)}
    move = haproxy.plan_move({"old": 0, "new": 100}, servers)
    assert [waiting.name for waiting in haproxy.not_ready(move, servers)] == ["new"]


@pytest.mark.parametrize(
    ("status", "code", "passed"),
    [
        ("L7OK", "200", True),
        ("* L7OK", "200", True),
        ("L4OK", "", True),
        ("L7OK", "0", False),
        ("L7OK", "", False),
        ("INI", "", False),
        ("L4CON", "", False),
        ("L7STS", "500", False),
        ("", "", False),
    ],
)
def test_a_check_counts_only_once_this_process_made_it(status, code, passed):
    assert haproxy.passed_check(status, code) is passed


@pytest.mark.parametrize(
    ("operational", "admin", "word"),
    [
        (2, 0, "up"),
        (0, 0, "down"),
        (1, 0, "starting"),
        (2, 8, "drain"),
        (0, 1, "maintenance"),
        (2, 0x20, "maintenance"),
    ],
)
def test_states_in_words(operational, admin, word):
    assert haproxy.state_of(operational, admin) == word


@pytest.mark.parametrize("value", [-1, 257, "many", 1.5, None, True])
def test_weights_that_haproxy_cannot_take(value):
    with pytest.raises(haproxy.HaproxyError, match="agent1-blue-1: a whole number from 0 to 256"):
        haproxy.read_weights({"agent1-blue-1": value})


def test_ports_are_read_by_backend_and_server():
    assert haproxy.configured_ports(CONFIG) == {
        ("agent", "agent1-blue-1"): "8100",
        ("agent", "agent1-green-1"): "8150",
        ("other", "agent1-blue-1"): "9100",
    }


@pytest.fixture
def files(tmp_path):
    config = tmp_path / "haproxy.cfg"
    config.write_text(CONFIG)
    return {"socket": str(tmp_path / "s"), "state_file": str(tmp_path / "server-state"), "config": str(config)}


@pytest.fixture
def fake(files):
    servers = {"agent1-blue-1": FakeServer(100), "agent1-green-1": FakeServer(0), "gone-blue-1": FakeServer(5)}
    with FakeHaproxy(files["socket"], "agent", servers) as running:
        yield running


def ask(files, check=False, **options):
    wanted = {"state": "set", "backend": "agent", "servers": {}, "ready_seconds": 0.3, **files, **options}
    return traffic.run(wanted, check)


SWITCH = {"agent1-blue-1": 0, "agent1-green-1": "100"}


def test_check_mode_tells_and_changes_nothing_then_the_move_is_made_kept_and_a_no_op(fake, files):
    told = ask(files, check=True, servers=SWITCH)
    assert told["changed"]
    assert told["after"] == {"agent1-blue-1": 0, "agent1-green-1": 100, "gone-blue-1": 5}
    assert fake.servers["agent1-blue-1"].weight == 100
    assert not Path(files["state_file"]).exists()

    done = ask(files, servers=SWITCH)
    assert done["changed"]
    assert done["before"]["agent1-blue-1"] == 100
    assert done["after"]["agent1-green-1"] == fake.servers["agent1-green-1"].weight == 100
    sets = [command for command in fake.commands if command.startswith("set")]
    assert sets == ["set weight agent/agent1-green-1 100", "set weight agent/agent1-blue-1 0"]

    again = ask(files, servers=SWITCH)
    assert not again["changed"]
    assert len([command for command in fake.commands if command.startswith("set")]) == 2


def test_the_kept_state_is_the_next_configurations(fake, files):
    fake.servers["agent1-green-1"].port = 7777
    ask(files, servers=SWITCH)
    kept = {row["srv_name"]: row for row in haproxy.parse_states(Path(files["state_file"]).read_text())}
    assert kept.keys() == {"agent1-blue-1", "agent1-green-1"}, "a server that the configuration no longer has"
    assert kept["agent1-green-1"]["srv_port"] == "8150"
    assert kept["agent1-green-1"]["srv_uweight"] == "100"


def test_a_kept_state_follows_a_configuration_that_changed_since(fake, files):
    ask(files, servers=SWITCH)
    Path(files["config"]).write_text(CONFIG.replace(":8150", ":8250"))
    assert haproxy.fit_state_file(files["state_file"], files["config"])
    assert " 8250 " in Path(files["state_file"]).read_text()
    assert not haproxy.fit_state_file(files["state_file"], files["config"])


def test_a_server_that_is_not_up_gets_nothing_and_says_why(fake, files):
    fake.servers["agent1-green-1"] = FakeServer(0, up=False, check=DOWN)
    with pytest.raises(haproxy.HaproxyError, match=r"0\.3 s: agent1-green-1 \(down; L4CON Connection refused\)"):
        ask(files, servers=SWITCH)
    assert fake.servers["agent1-blue-1"].weight == 100
    assert ask(files, check=True, servers=SWITCH)["not_ready"] == ["agent1-green-1"]


def test_it_waits_for_a_server_that_comes_up(fake, files):
    fake.servers["agent1-green-1"] = FakeServer(0, up=False, check=DOWN)

    def come_up(running, _command):
        if len(running.commands) > 6:
            running.servers["agent1-green-1"].up = True
            running.servers["agent1-green-1"].check = ("L7OK", "200", "")

    fake.on_command = come_up
    assert ask(files, servers=SWITCH, ready_seconds=5)["after"]["agent1-green-1"] == 100


def test_weights_that_do_not_stick_are_noticed(fake, files):
    fake.deaf_to = ("agent1-blue-1",)
    with pytest.raises(haproxy.HaproxyError, match="read back otherwise: agent1-blue-1 has 100"):
        ask(files, servers=SWITCH)


def test_unknown_servers_and_backends_are_refused_before_anything_changes(fake, files):
    with pytest.raises(haproxy.HaproxyError, match=r"no server agent9-blue-1; it has agent1-blue-1, .*site\.yml"):
        ask(files, servers={"agent9-blue-1": 1, "agent1-blue-1": 0})
    with pytest.raises(haproxy.HaproxyError, match="no backend shop"):
        ask(files, backend="shop")
    assert fake.servers["agent1-blue-1"].weight == 100


def test_observing_reads_all_there_is(fake, files):
    fake.servers["gone-blue-1"] = FakeServer(5, up=False, sessions=3, check=DOWN)
    seen = ask(files, state="observed")
    assert not seen["changed"]
    assert seen["servers"]["gone-blue-1"] == {
        "name": "gone-blue-1",
        "weight": 5,
        "state": "down",
        "check": "L4CON Connection refused",
        "ready": False,
        "sessions": 3,
    }


def test_haproxy_that_is_not_there_is_one_line_with_the_mending_command(files):
    with pytest.raises(haproxy.HaproxyError, match=r"cannot be reached at .* systemctl restart haproxy"):
        ask(files, state="observed")


def test_a_reload_is_over_once_another_process_answers(fake, files):
    def take_over():
        fake.pid = 101

    haproxy.reload(haproxy.Runtime(files["socket"]), take_over, seconds=1)


def test_a_reload_after_which_the_old_process_goes_on_is_an_error(fake, files):
    with pytest.raises(haproxy.HaproxyError, match="did not take its new configuration"):
        haproxy.reload(haproxy.Runtime(files["socket"]), lambda: None, seconds=0.2)


def test_other_backends_servers_are_not_counted(fake, files):
    states = haproxy.Runtime(files["socket"]).ask("show servers state").rstrip()
    states += "\n" + states.splitlines()[2].replace(" agent ", " other ").replace("agent1-blue-1", "elsewhere") + "\n"
    stats = haproxy.Runtime(files["socket"]).ask("show stat agent 4 -1")
    assert set(haproxy.servers_of("agent", states, stats)) == set(fake.servers)


def test_a_cut_off_state_is_never_kept():
    whole = "1\n# be_name srv_name srv_port\nagent agent1-blue-1 8100\n"
    with pytest.raises(haproxy.HaproxyError, match="cut off"):
        haproxy.fit_state(whole + "agent agent1-gr", CONFIG)
    assert haproxy.fit_state(whole, CONFIG) == whole
