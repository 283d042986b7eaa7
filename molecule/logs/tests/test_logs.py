"""What hosts send to the log host, who may, and that no line is lost whatever ends meanwhile."""

import json
import ssl
import time
import uuid

import pytest

STORE = "/var/lib/agentfleet-logs-store/lines"
KEPT = (
    f"find {STORE} -name '*.log*' ! -name '*.zst' -exec cat {{}} +; find {STORE} -name '*.zst' -exec zstd -dcq {{}} +"
)
SECONDS = 60


def until(condition, seconds=SECONDS):
    deadline = time.monotonic() + seconds
    while not (seen := condition()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert seen


@pytest.fixture
def store(machine):
    return machine("debian13")


@pytest.fixture
def kept(store):
    """Lines with a text on the log host: whose they are, and what they say."""

    def look(text):
        found = store.run(f"({KEPT}) | grep -F {text!r}").stdout.splitlines()
        return [(host, json.loads(line)) for host, _space, line in (line.partition(" ") for line in found)]

    return look


@pytest.fixture
def say(host):
    """Have a unit of this host write lines, and wait for its end."""

    def run(unit, command, priority="info"):
        words = f"--property=SyslogLevel={priority} --property=SyslogLevelPrefix=false"
        host.run_expect([0], f"systemd-run --quiet --wait --collect --unit={unit} {words} {command}")

    return run


def numbered(mark, count, pause=""):
    """A command that writes numbered lines."""
    return f"""bash -c 'for n in $(seq {count}); do echo "{mark} $n."; {pause} done'"""


@pytest.mark.parametrize(
    ("unit", "priority", "sent"),
    [
        ("shop@blue-1", "info", True),
        ("shop-worker@green-2", "debug", True),
        ("my-own", "info", True),
        ("other", "warning", True),
        ("other", "notice", False),
    ],
)
def test_the_services_lines_are_sent_and_of_others_the_grave_ones(host, say, kept, unit, priority, sent):
    mark, last = uuid.uuid4().hex, uuid.uuid4().hex
    say(unit, f"echo {mark}", priority)
    say("shop@blue-9", f"echo {last}")
    until(lambda: kept(last))
    found = kept(mark)
    # What systemd says of the unit's start names the command as well.
    assert bool([line for _host, line in found if line["text"] == mark]) == sent
    if sent:
        assert {whose for whose, _line in found} == {host.backend.get_hostname()}
        assert [line["unit"] for _host, line in found if line["text"] == mark] == [f"{unit}.service"]


@pytest.mark.parametrize(
    ("name", "file"), [("debian12", "/var/log/nginx/access.log"), ("debian13", "/var/log/redis/redis-server.log")]
)
def test_a_file_of_lines_is_sent_as_well_and_over_its_rotation(machine, kept, name, file):
    host, marks = machine(name), [uuid.uuid4().hex for _line in range(3)]
    host.check_output(f"install -d -m 0755 $(dirname {file}) && install -m 0640 -g adm /dev/null {file}")
    write = f"echo {marks[0]} >>{file} && mv {file} {file}.1 && echo {marks[1]} >>{file}.1 && sleep 1"
    host.check_output(f"{write} && install -m 0640 -g adm /dev/null {file} && echo {marks[2]} >>{file}")
    until(lambda: all(kept(mark) for mark in marks))


def test_a_line_is_kept_as_it_was(host, say, kept):
    mark = uuid.uuid4().hex
    text = f'{{"event": "ü \\\\ \\"{mark}\\"", "level": "info", "long": "{"x" * 20_000}"}}'
    host.run_expect([0], f"cat >/run/line <<'EOF'\n{text}\nEOF")
    say("shop@blue-1", "cat /run/line")
    until(lambda: [line for _host, line in kept(mark) if line["text"] == text])


def test_the_packages_own_service_writes_nothing(host):
    assert host.run("systemctl is-active rsyslog.service").rc != 0
    assert not host.file("/var/log/syslog").exists


def test_only_the_log_host_listens_and_inside_the_fleet_alone(machine, address_of):
    listening = "ss -Hltn 'sport = 6514' | awk '{print $4}'"
    assert machine("debian13").check_output(listening) == f"{address_of('debian13')}:6514"
    assert machine("debian12").check_output(listening) == ""


STRANGER = """
import socket, ssl, sys
context = ssl.create_default_context(cafile="/etc/ssl/certs/agentfleet-fleet.pem")
if len(sys.argv) > 2:
    context.load_cert_chain(sys.argv[2])
text = b"relp_version=0\\nrelp_software=x\\ncommands=syslog"
try:
    with context.wrap_socket(socket.create_connection((sys.argv[1], 6514), 5), server_hostname="debian13") as link:
        link.sendall(b"1 open %d %s\\n" % (len(text), text))
        print(link.recv(1000))
except OSError as error:
    print("refused", error)
"""


@pytest.mark.parametrize("certificate", ["", "/run/stranger.pem", "/etc/agentfleet/fleet/host.pem"])
def test_a_stranger_is_not_let_in(machine, address_of, certificate):
    host = machine("debian12")
    host.run_expect([0], f"cat >/run/stranger.py <<'EOF'\n{STRANGER}\nEOF")
    made = "-x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -batch -subj /CN=debian12 -days 2"
    host.check_output(f"openssl req {made} -keyout /run/stranger.pem -out /run/stranger.crt 2>/dev/null")
    host.check_output("cat /run/stranger.crt >>/run/stranger.pem")
    said = host.check_output(f"python3 /run/stranger.py {address_of('debian13')} {certificate}")
    # The host's own certificate shows that it is the certificate which opens.
    assert ("200 OK" in said) == certificate.endswith("host.pem"), said


def test_tls_is_no_older_than_1_2(machine, address_of):
    assert ssl.HAS_TLSv1_3
    host = machine("debian12")
    command = f"openssl s_client -connect {address_of('debian13')}:6514"
    assert "Cipher is (NONE)" in host.run(f"{command} -tls1_1 -cipher DEFAULT@SECLEVEL=0 </dev/null").stdout
    assert "TLSv1.3" in host.run(f"{command} -tls1_3 </dev/null").stdout


@pytest.mark.parametrize("unit", ["agentfleet-logs", "agentfleet-logs-store", "agentfleet-logs-tidy"])
def test_its_units_are_sandboxed(store, unit):
    store.check_output(f"systemd-analyze security --no-pager --threshold=22 {unit}.service")


def test_what_is_queued_survives_all_that_ends(host, store, say, kept):
    """Killed senders and log hosts, restarts of both, while lines are written: each of them is there."""
    mark = uuid.uuid4().hex
    host.run_expect([0], f"systemd-run --quiet --unit=shop@green-1 {numbered(mark, 3000, 'sleep 0.002;')}")
    for command in ("systemctl kill -s KILL", "systemctl restart", "systemctl stop"):
        store.run_expect([0], f"{command} agentfleet-logs-store && sleep 1")
        host.run_expect([0], "systemctl kill -s KILL agentfleet-logs && sleep 1 && systemctl restart agentfleet-logs")
    host.check_output("timeout 60 sh -c 'while systemctl is-active -q shop@green-1; do sleep 0.5; done'")
    store.check_output("systemctl start agentfleet-logs-store")
    wanted = {f"{mark} {number}." for number in range(1, 3001)}
    until(lambda: {line["text"] for _host, line in kept(mark)} >= wanted, 120)


@pytest.fixture
def as_keeper(store):
    """Run a command as the one whose the lines are."""
    who = "agentfleet-logs-store"
    words = f"-p DynamicUser=true -p User={who} -p StateDirectory={who} -p StateDirectoryMode=0750"
    return lambda command: store.run_expect([0], f"systemd-run --quiet --wait --collect {words} sh -c {command!r}")


def test_hours_that_are_over_are_compressed_and_lines_that_come_late_join_them(store, as_keeper, kept):
    mark = uuid.uuid4().hex
    old = f"{STORE}/debian12/2026-01-02/03.log"
    tidy = f"/usr/local/lib/agentfleet/logs/agentfleet-logs tidy {STORE} 100000 1000"
    for late in ("first", "late"):
        line = json.dumps({"time": "2026-01-02T03:04:05+00:00", "priority": "6", "text": f"{mark} {late}"})
        store.run_expect([0], f"cat >/run/line <<'EOF'\ndebian12 {line}\nEOF")
        as_keeper(f"mkdir -p {STORE}/debian12/2026-01-02 && cat /run/line >>{old} && {tidy} && test -e {old}.aside")
        # Only what rsyslog has closed is compressed: a minute after it was told to.
        as_keeper(f"sleep 61; {tidy} && test -e {old}.zst && ! test -e {old}.aside")
    assert [line["text"] for _host, line in kept(mark)] == [f"{mark} first", f"{mark} late"]
    # What is too old goes; the timer's days are those of the role.
    store.check_output("systemctl start agentfleet-logs-tidy.service")
    assert not store.file(f"{old}.zst").exists
    assert store.service("agentfleet-logs-tidy.timer").is_running


def test_what_comes_after_a_tidy_is_in_a_new_file(store, machine, kept):
    """rsyslog closes what was set aside; what it had open it would write to for ever."""
    store.check_output("systemctl start agentfleet-logs-tidy.service")
    mark = uuid.uuid4().hex
    machine("debian12").run_expect([0], f"systemd-run --quiet --wait --collect --unit=shop@blue-1 echo {mark}")
    until(lambda: kept(mark))
