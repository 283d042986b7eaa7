"""Traffic decisions, and moves against a runtime socket."""

import sys
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import haproxy
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


def test_ports_and_tls_are_read_by_backend_and_server():
    verified = "weight 0 ssl verify required ca-file /etc/ssl/certs/fleet.pem verifyhost agent1"
    config = CONFIG.replace(":9100 weight 0", f":9100 {verified}")
    assert haproxy.configured(config) == {
        ("agent", "agent1-blue-1"): {"srv_port": "8100", "srv_use_ssl": "0"},
        ("agent", "agent1-green-1"): {"srv_port": "8150", "srv_use_ssl": "0"},
        ("other", "agent1-blue-1"): {"srv_port": "9100", "srv_use_ssl": "1"},
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


SWITCH = {"agent1-blue-1": 0, "agent1-green-1": 100}


def move(files, **weights):
    runtime = haproxy.Runtime(files["socket"])
    return haproxy.move(runtime, "agent", weights or SWITCH, files["state_file"], files["config"])


def test_a_move_is_made_kept_and_a_no_op_the_next_time(fake, files):
    assert move(files) == ["agent1-green-1", "agent1-blue-1"]
    assert [fake.servers[name].weight for name in SWITCH] == [0, 100]
    assert fake.servers["gone-blue-1"].weight == 5, "a server that is not named"
    sets = [command for command in fake.commands if command.startswith("set")]
    assert sets == ["set weight agent/agent1-green-1 100", "set weight agent/agent1-blue-1 0"]
    assert move(files) == []
    assert len([command for command in fake.commands if command.startswith("set")]) == 2


def test_a_server_that_the_backend_does_not_have_is_left_out(fake, files):
    assert move(files, **{"agent9-blue-1": 100, "agent1-green-1": 7}) == ["agent1-green-1"]


def test_the_kept_state_is_the_next_configurations(fake, files):
    fake.servers["agent1-green-1"].port = 7777
    move(files)
    kept = {row["srv_name"]: row for row in haproxy.parse_states(Path(files["state_file"]).read_text())}
    assert kept.keys() == {"agent1-blue-1", "agent1-green-1"}, "a server that the configuration no longer has"
    assert kept["agent1-green-1"]["srv_port"] == "8150"
    assert kept["agent1-green-1"]["srv_uweight"] == "100"


def test_a_kept_state_follows_a_configuration_that_changed_since(fake, files):
    move(files)
    Path(files["config"]).write_text(CONFIG.replace(":8150", ":8250"))
    assert haproxy.fit_state_file(files["state_file"], files["config"])
    assert " 8250 " in Path(files["state_file"]).read_text()
    assert not haproxy.fit_state_file(files["state_file"], files["config"])


@pytest.mark.parametrize(("before", "after"), [("", " ssl verify required"), (" ssl verify required", "")])
def test_requests_go_by_tls_where_the_configuration_says_so(fake, files, before, after):
    def encrypted():
        return {row["srv_use_ssl"] for row in haproxy.parse_states(Path(files["state_file"]).read_text())}

    Path(files["config"]).write_text(CONFIG.replace(" weight 0", f" weight 0{before}"))
    move(files)
    assert encrypted() == {str(int(bool(before)))}
    Path(files["config"]).write_text(CONFIG.replace(" weight 0", f" weight 0{after}"))
    assert haproxy.fit_state_file(files["state_file"], files["config"])
    assert encrypted() == {str(int(bool(after)))}


def test_observing_reads_all_there_is(fake, files):
    fake.servers["gone-blue-1"] = FakeServer(5, up=False, sessions=3, check=DOWN)
    seen = haproxy.Runtime(files["socket"]).servers("agent")
    assert seen["gone-blue-1"].as_dict() == {
        "name": "gone-blue-1",
        "weight": 5,
        "state": "down",
        "check": "L4CON Connection refused",
        "ready": False,
        "sessions": 3,
    }


def test_a_drained_server_that_answers_its_checks_is_ready(fake, files):
    haproxy.Runtime(files["socket"]).set_state("agent", "agent1-blue-1", "drain")
    seen = haproxy.Runtime(files["socket"]).servers("agent")["agent1-blue-1"]
    assert (seen.state, seen.ready, seen.weight) == ("drain", True, 100)


def test_a_backend_that_is_not_there_is_named_with_the_mending_command(fake, files):
    with pytest.raises(haproxy.HaproxyError, match=r"no backend shop; .*site\.yml"):
        haproxy.Runtime(files["socket"]).servers("shop")


def test_haproxy_that_is_not_there_is_one_line_with_the_mending_command(files):
    with pytest.raises(haproxy.HaproxyError, match=r"cannot be reached at .* systemctl restart haproxy"):
        haproxy.Runtime(files["socket"]).servers("agent")


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
