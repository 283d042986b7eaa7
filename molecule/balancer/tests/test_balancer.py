"""Traffic as HAProxy really moves it, and what a restart, a reload or a new host leaves of it."""

import itertools
import json
import os
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest
from slots import BASE, move, weights

TOP = Path(__file__).parents[3]


def get(host, path="/who", session=None, method="GET", base=BASE):
    header = f"-H 'X-Session-Id: {session}'" if session else ""
    return host.run(f"curl -s -m 10 -X {method} -w '\\n%{{http_code}} %{{content_type}}' {header} {base}{path}").stdout


def test_no_server_is_a_problem_document(host, blue, green):
    move(host, {blue: 0, green: 0})
    body, told = get(host).rsplit("\n", 1)
    assert told == "503 application/problem+json"
    assert json.loads(body)["status"] == 503


@pytest.mark.parametrize(
    "command",
    ["systemctl restart haproxy", "systemctl reload haproxy", "systemctl kill -s KILL haproxy; sleep 1"],
    ids=["restart", "reload", "killed"],
)
def test_weights_outlive_haproxys_processes(host, blue, green, command):
    move(host, {blue: 7, green: 93})
    before = weights(host)
    host.run_expect([0], command)
    host.run_expect([0], "for i in $(seq 50); do test -S /run/haproxy/admin.sock && break; sleep 0.1; done")
    assert weights(host) == before
    assert get(host).rsplit("\n", 1)[1].startswith("200")


def test_weights_set_by_hand_outlive_a_reload(host, blue):
    host.run_expect([0], f"python3 /usr/local/lib/weight.py {blue} 42")
    host.run_expect([0], "systemctl reload haproxy")
    assert weights(host)[blue] == 42


def test_shares_follow_weights_and_sessions_stay(host, blue, green):
    move(host, {blue: 50, green: 50})
    script = f'for i in $(seq 200); do curl -s -H "X-Session-Id: s$i" {BASE}/who; echo; done'
    first = host.check_output(script).split()
    counted = Counter(first)
    assert 60 <= counted[blue] <= 140, counted
    assert host.check_output(script).split() == first
    # A growing share takes sessions over and gives none back.
    move(host, {blue: 25, green: 75})
    second = host.check_output(script).split()
    assert not [now for then, now in zip(first, second, strict=True) if then == green and now == blue]


def test_no_post_is_sent_twice(host, blue, green, address):
    move(host, {blue: 50, green: 50})
    ports = {blue: 8100, green: 8150}

    def hits():
        return sum(int(host.check_output(f"curl -s http://{address}:{port}/hits")) for port in ports.values())

    before = hits()
    body, told = get(host, "/die", method="POST").rsplit("\n", 1)
    assert told == "502 application/problem+json"
    assert json.loads(body)["status"] == 502
    assert hits() == before + 1


def test_a_connection_that_was_never_made_goes_to_another_server(host, blue, green):
    move(host, {blue: 50, green: 50})
    host.run_expect([0], f"systemctl stop {green}.service")
    # Faster than the health check can notice.
    answers = host.check_output(f"for i in $(seq 20); do curl -s -X POST {BASE}/who; echo; done").split()
    assert answers == [blue] * 20


def test_streams_pass_piece_by_piece_and_outlive_a_move_and_a_reload(host, blue, green):
    stamp = 'while read -r line; do test -n "$line" && echo "$(date +%s.%N) $line"; done'
    host.run_expect([0], f"bash -c '(curl -sN {BASE}/stream | {stamp.replace(chr(39), '')} > /tmp/stream) & '")
    move(host, {blue: 0, green: 100})
    host.run_expect([0], "systemctl reload haproxy")
    time.sleep(2)
    lines = [line.split(" ", 1) for line in host.file("/tmp/stream").content_string.splitlines()]
    assert [text for _time, text in lines] == [f"data: {number}" for number in range(4)]
    moments = [float(moment) for moment, _text in lines]
    assert all(0.3 < later - sooner < 1.5 for sooner, later in itertools.pairwise(moments))


def test_a_reload_that_does_not_take_is_an_error_and_the_old_one_serves(host, blue, address):
    config = "/etc/haproxy/haproxy.cfg"
    host.run_expect([0], f"cp {config} /tmp/good.cfg && sed -i 's/{address}:8405/127.0.0.1:8406/' {config}")
    host.run_expect([0], "systemd-run -q --unit=squatter python3 -m http.server --bind 127.0.0.1 8406")
    host.run_expect([0], "for i in $(seq 50); do ss -ltn | grep -q :8406 && break; sleep 0.1; done")
    try:
        assert host.run("systemctl reload haproxy").rc != 0
        assert get(host).startswith(blue)
        assert "did not take its new configuration" in host.check_output("journalctl -u haproxy -n 60 -o cat")
    finally:
        host.run_expect([0], f"systemctl stop squatter; cp /tmp/good.cfg {config}; systemctl reload haproxy")
    assert get(host).startswith(blue)


def test_a_changed_port_counts_and_the_weight_stays(host, blue, green):
    """HAProxy by itself goes on with the port of its state file."""
    config = "/etc/haproxy/haproxy.cfg"
    host.run_expect([0], f"cp {config} /tmp/good.cfg && sed -i '/server {blue} /s/:8100/:8199/' {config}")
    try:
        host.run_expect([0], "systemctl reload haproxy")
        assert weights(host)[blue] == 100
        assert "8199" in host.check_output("cat /var/lib/haproxy/server-state")
        assert get(host).rsplit("\n", 1)[1].startswith("503")
    finally:
        host.run_expect([0], f"cp /tmp/good.cfg {config}; systemctl reload haproxy")
    host.run_expect([0], f"for i in $(seq 50); do curl -sf {BASE}/who && break; sleep 0.1; done")


KEPT = """
import http.client, subprocess
kept = http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
for command in (["systemctl", "reload", "haproxy"], ["true"]):
    kept.request("POST", "/who", "")
    answer = kept.getresponse()
    answer.read()
    print(answer.status, answer.getheader("connection", ""))
    subprocess.run(command, check=True)
"""


def test_a_reload_does_not_end_a_connection_that_is_about_to_be_used(host):
    """Nginx keeps some open; one that is closed while it sends is a request that fails."""
    said = host.check_output("python3 -c '%s'" % KEPT)  # noqa: UP031 - testinfra's own way would quote it once more
    assert said.splitlines() == ["200 ", "200 close"]


def converge(name, *options):
    command = ["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], "--limit", name, *options]
    done = subprocess.run(
        [*command, str(TOP / "molecule/shared/converge.yml")],
        check=True,
        env=os.environ | {"MOLECULE_SCENARIO_NAME": "balancer"},
        capture_output=True,
        text=True,
    )
    return done.stdout


def test_a_second_service_leaves_the_first_as_it_is(host, name, blue, green):
    before = move(host, {blue: 30, green: 70})
    # Sorts before the first, so that every backend and server moves down.
    second = ("-e", "agent_name=aaa", "-e", "agent_port=8300", "-e", "balancer_port=8081", "-e", "balancer_cookie=aaa")
    try:
        for options in (second, (), second):
            told = converge(name, *options)
            assert weights(host) == before
        assert "changed=0" in told
        assert get(host).rsplit("\n", 1)[1].startswith("200")
        _body, told = get(host, base="http://127.0.0.1:8081").rsplit("\n", 1)
        assert told == "503 application/problem+json"
    finally:
        host.run_expect([0], "rm -f /etc/haproxy/agentfleet/2-aaa.cfg")
        converge(name)
    assert weights(host) == before


def test_a_host_added_to_the_inventory_leaves_live_weights_alone(host, name, blue, green, tmp_path):
    before = move(host, {blue: 30, green: 70})
    more = tmp_path / "more"
    # Sorts before the others, so that every server moves down a line; in public, it would be spoken to over TLS.
    more.write_text("[agents]\nagent0 ansible_host=10.255.0.10\n")
    try:
        converge(name, "-i", str(more))
        assert weights(host) == {**before, "agent0-blue-1": 0, "agent0-green-1": 0}
    finally:
        converge(name)
    assert weights(host) == before


def test_figures_are_on_the_private_address_and_traffic_on_the_loopback(host, address):
    assert "haproxy_server_weight" in host.check_output(f"curl -s 'http://{address}:8405/metrics?scope=server'")
    assert host.run("curl -s -m 2 http://127.0.0.1:8405/metrics").rc != 0
    assert host.run(f"curl -s -m 2 http://{address}:8080/").rc != 0
    assert host.socket("tcp://127.0.0.1:8080").is_listening
