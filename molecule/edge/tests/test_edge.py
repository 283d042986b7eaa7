"""Nginx as users meet it, from another machine."""

import itertools
import json
import os
import socket
import ssl
import subprocess
import time
from collections import Counter
from pathlib import Path

import pytest

NAME = "agent.lab.test"


def start_upstream(host):
    if not host.file("/usr/local/lib/upstream.py").exists:
        text = Path(__file__).with_name("upstream.py").read_text()
        host.run_expect([0], f"cat > /usr/local/lib/upstream.py <<'EOF'\n{text}\nEOF")
    run = "systemd-run -q --unit=upstream python3 /usr/local/lib/upstream.py"
    listens = "for i in $(seq 50); do ss -ltn | grep -q 127.0.0.1:8080 && exit 0; sleep 0.1; done; exit 1"
    host.run_expect([0], f"systemctl is-active -q upstream || {run}; {listens}")


@pytest.fixture(autouse=True)
def upstream(host):
    start_upstream(host)


@pytest.fixture
def certificate(host, tmp_path):
    path = tmp_path / "site.crt"
    path.write_text(host.file("/etc/agentfleet/tls/agent.crt").content_string)
    return path


class Answer:
    def __init__(self, text):
        head, _, self.body = text.replace("\r\n", "\n").partition("\n\n")
        status, *lines = head.splitlines()
        self.protocol, self.status = status.split()[0], int(status.split()[1])
        self.headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]

    def header(self, name):
        return [value for known, value in self.headers if known == name]

    def problem(self):
        assert self.header("content-type") == ["application/problem+json"], self.headers
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert document["title"]
        return document


@pytest.fixture
def curl(address, certificate):
    def run(path, *options, scheme="https", name=NAME):
        resolved = [word for port in (80, 443) for word in ("--resolve", f"{name}:{port}:{address}")]
        return subprocess.run(
            ["curl", "-s", "-m", "20", "--cacert", certificate, *resolved, *options, f"{scheme}://{name}{path}"],
            capture_output=True,
            text=True,
        )

    return run


@pytest.fixture
def get(curl):
    def ask(path, *options, **where):
        done = curl(path, "-i", *options, **where)
        assert done.returncode == 0, (done.returncode, done.stderr)
        return Answer(done.stdout)

    return ask


def test_plain_http_is_sent_to_https(get):
    answer = get("/a?b=c", scheme="http")
    assert answer.status == 301
    assert answer.header("location") == [f"https://{NAME}/a?b=c"]


@pytest.mark.parametrize("name", ["agent.lab.test", "other.test"])
def test_certificate_authorities_find_their_answers(host, get, name):
    """Under every name: a certificate may have more of them than the site."""
    host.run_expect([0], "echo -n proof > /var/www/acme/.well-known/acme-challenge/token")
    answer = get("/.well-known/acme-challenge/token", scheme="http", name=name)
    assert (answer.status, answer.body) == (200, "proof")


def test_unknown_names_are_refused(curl, get, address):
    assert curl("/", scheme="http", name="other.test").returncode in (52, 56), "no answer"
    assert curl("/", name="other.test").returncode == 35, "no handshake"
    assert subprocess.run(["curl", "-sk", "-m", "5", f"https://{address}/"]).returncode == 35
    answer = get("/", "-H", "Host: other.test")
    assert answer.status == 421
    answer.problem()


@pytest.mark.parametrize(
    ("options", "ended"),
    [
        (["--tlsv1.3"], 0),
        (["--tlsv1.2", "--tls-max", "1.2"], 0),
        (["--tls-max", "1.1", "--ciphers", "DEFAULT@SECLEVEL=0"], 35),
        (["--tls-max", "1.2", "--ciphers", "ECDHE-ECDSA-AES128-SHA"], 35),
    ],
)
def test_only_todays_tls(curl, options, ended):
    assert curl("/health", *options).returncode == ended


def test_the_certificate_is_verified_and_http2_spoken(get):
    assert get("/health").protocol == "HTTP/2"
    assert get("/health", "--http1.1").protocol == "HTTP/1.1"


def test_headers_of_every_answer(get):
    # The service's own where it sends one, and no other besides; the edge's on what never reaches the service.
    for answer, framing in (
        (get("/health"), "SAMEORIGIN"),
        (get("/", "-X", "POST", "-d", "x"), "SAMEORIGIN"),
        (get("/metrics"), "DENY"),
    ):
        assert answer.header("x-frame-options") == [framing]
        assert answer.header("strict-transport-security") == ["max-age=63072000"]
        assert answer.header("x-content-type-options") == ["nosniff"]
        assert answer.header("server") == ["nginx"]
        assert len(answer.header("x-request-id")) == 1


def test_what_arrives_behind(get, address):
    seen = {
        name.lower(): value
        for name, value in json.loads(
            get(
                "/api/x?q=1", "-H", "X-Forwarded-For: 6.6.6.6", "-H", "X-Real-IP: 6.6.6.6", "-H", "X-Session-Id: s-1"
            ).body
        )["headers"].items()
    }
    controller = f"{address.rsplit('.', 1)[0]}.1"
    assert seen["x-forwarded-for"] == seen["x-real-ip"] == controller
    assert (seen["x-forwarded-proto"], seen["host"], seen["x-session-id"]) == ("https", NAME, "s-1")
    assert "connection" not in seen


def test_request_ids_are_kept_or_made(get):
    kept = get("/api/x", "-H", "X-Request-Id: order-12345678")
    assert kept.header("x-request-id") == ["order-12345678"]
    assert json.loads(kept.body)["headers"]["X-Request-Id"] == "order-12345678"
    for bad in ("short", 'quote"quote"quote', "x" * 65):
        made = get("/api/x", "-H", f"X-Request-Id: {bad}").header("x-request-id")
        assert made != [bad]
        assert len(made[0]) == 32


@pytest.mark.parametrize(
    "path", ["/metrics", "/ready", "/docs", "/docs/x", "/openapi.json", "//metrics", "/a/../metrics", "/%6detrics"]
)
def test_private_paths_are_not_for_the_world(get, path):
    answer = get(path, "--path-as-is")
    assert answer.status == 404
    assert answer.problem()["request_id"] == answer.header("x-request-id")[0]


def test_paths_that_only_begin_alike_are_not_hidden(get):
    assert get("/metricsx").status == 200
    assert get("/health").status == 200


@pytest.mark.parametrize(("path", "allowed", "rate"), [("/api/chat", 21, 10), ("/webhook/uaz", 11, 5)])
def test_beyond_the_burst_is_429(curl, path, allowed, rate):
    time.sleep(3)
    began = time.monotonic()
    done = curl(f"{path}?[1-60]", "-Z", "--parallel-max", "20", "-o", "/dev/null", "-w", "%{http_code}\n")
    seconds = time.monotonic() - began
    statuses = Counter(done.stdout.split())
    assert statuses.total() == 60
    assert set(statuses) == {"200", "429"}
    assert allowed <= statuses["200"] <= allowed + rate * seconds + 1


def test_a_refusal_is_a_problem_document(get):
    for _ in range(60):
        answer = get("/webhook/uaz")
        if answer.status == 429:
            assert answer.problem()["detail"]
            assert answer.header("retry-after") == ["1"]
            return
    pytest.fail("60 requests at once and none was refused")


def test_a_body_too_large_is_a_problem_document(get, tmp_path):
    def send(size):
        (tmp_path / "body").write_bytes(b"x" * size)
        return get("/api/x", "--data-binary", f"@{tmp_path}/body", "-H", "Expect:")

    assert send(11 * 2**20).status == 200
    answer = send(11 * 2**20 + 1)
    assert answer.status == 413
    answer.problem()


def test_streams_are_not_held_back(address, certificate):
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        connection.sendall(f"GET /stream HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        moments, received = [], b""
        while b"data: 3" not in received:
            piece = connection.recv(4096)
            received += piece
            moments += [time.monotonic()] * piece.count(b"data:")
    assert all(0.2 < later - sooner < 2 for sooner, later in itertools.pairwise(moments))


def test_websockets_pass(address, certificate):
    context = ssl.create_default_context(cafile=str(certificate))
    with (
        socket.create_connection((address, 443), timeout=10) as plain,
        context.wrap_socket(plain, server_hostname=NAME) as connection,
    ):
        request = f"GET /ws HTTP/1.1\r\nHost: {NAME}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
        connection.sendall(request.encode())
        head = connection.recv(4096)
        assert head.startswith(b"HTTP/1.1 101")
        assert b"upgrade: upgrade" not in head.lower()
        connection.sendall(b"hello")
        assert connection.recv(64) == b"HELLO"


def test_connections_to_the_balancer_are_reused(get):
    ports = {json.loads(get("/api/x").body)["port"] for _ in range(5)}
    assert len(ports) <= 2


def test_the_access_log_is_json_and_holds_no_query(host, get):
    answer = get("/api/x?message=secret-words", "-H", 'User-Agent: quote"back\\slash')
    line = host.check_output("grep %s /var/log/nginx/access.log", answer.header("x-request-id")[0])
    entry = json.loads(line)
    assert (entry["path"], entry["status"], entry["method"]) == ("/api/x", 200, "GET")
    assert "secret-words" not in line
    assert "secret-words" not in host.check_output("cat /var/log/nginx/error.log")


def test_a_balancer_that_is_gone_is_a_problem_document(host, get):
    host.run_expect([0], "systemctl stop upstream")
    answer = get("/api/x")
    assert answer.status == 502
    answer.problem()


def test_a_new_certificate_is_served_at_once(host, curl, certificate):
    host.run_expect([0], "rm /etc/agentfleet/tls/agent.key")
    playbook = Path(__file__).parents[2] / "shared/converge.yml"
    only = ["--limit", host.backend.get_hostname(), "-e", '{"converge_roles": ["tls"]}']
    subprocess.run(["ansible-playbook", "-i", os.environ["MOLECULE_INVENTORY_FILE"], *only, playbook], check=True)
    assert curl("/health").returncode == 60, "the old one is not trusted any more"
    certificate.write_text(host.file("/etc/agentfleet/tls/agent.crt").content_string)
    assert curl("/health").returncode == 0


def test_ipv6_is_served_as_well(host):
    listening = host.check_output("ss -ltnH")
    assert "[::]:443" in listening
    assert "[::]:80" in listening


@pytest.fixture
def maintenance(host):
    """The pages, as maintenance.yml puts them there."""
    directory = "/var/www/maintenance/agent"
    host.run_expect([0], f'echo \'{{"status": 503, "title": "Back at ten"}}\' > {directory}/page.json')
    host.run_expect([0], f"echo '<h1>Back at ten</h1>' > {directory}/page.html")
    yield
    host.run_expect([0], f"rm {directory}/page.json {directory}/page.html")


@pytest.mark.parametrize("path", ["/api/chat", "/webhook/uaz", "/"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_in_maintenance_users_are_told(get, maintenance, path, method):
    answer = get(path, "-X", method, "-H", "Accept: application/json")
    assert answer.status == 503
    assert answer.problem()["title"] == "Back at ten"
    assert answer.header("retry-after") == ["120"]
    assert answer.header("strict-transport-security")


def test_a_browser_gets_a_page(get, maintenance):
    answer = get("/", "-H", "Accept: text/html,application/xhtml+xml")
    assert answer.status == 503
    assert answer.header("content-type") == ["text/html; charset=utf-8"]
    assert "<h1>Back at ten</h1>" in answer.body


def test_watchers_and_the_host_itself_get_the_service(get, host, maintenance):
    assert get("/health").status == 200
    asked = (
        "import socket, ssl\n"
        "plain = socket.create_connection(('127.0.0.1', 443))\n"
        f"secure = ssl._create_unverified_context().wrap_socket(plain, server_hostname='{NAME}')\n"
        f"secure.sendall(b'GET / HTTP/1.1\\r\\nHost: {NAME}\\r\\nConnection: close\\r\\n\\r\\n')\n"
        "print(secure.recv(100).split()[1].decode())"
    )
    assert host.run("python3 -c %s", asked).stdout.strip() == "200"


def test_the_pages_alone_are_not_there(get):
    assert get("/maintenance-of-agent/page.json").status == 404


ALICE = "alice:molecule-alice-0123456789"


def test_only_operators_come_in(get):
    """By a password, and whatever the path below."""
    for path in ("/operations/", "/operations/status.json", "/operations/nothing", "/operations/../operations/"):
        answer = get(path)
        assert answer.status == 401
        assert answer.header("www-authenticate") == ['Basic realm="Operations of agent.lab.test"']
        answer.problem()
        assert get(path, "-u", "alice:wrong").status == 401
        assert get(path, "-u", "mallory:molecule-alice-0123456789").status == 401
    assert get("/operations").header("location") == ["https://agent.lab.test/operations/"]
    page = get("/operations/", "-u", ALICE)
    assert (page.status, page.header("content-type")) == (200, ["text/html; charset=utf-8"])
    assert "default-src 'none'" in page.header("content-security-policy")[0]
    assert page.header("strict-transport-security")
    assert json.loads(get("/operations/status.json", "-u", "bob:molecule-bob-0123456789").body)["fleet"] == "molecule"


def test_what_stands_behind_the_login_is_told_who_it_is_and_no_password(get, machine):
    start_upstream(machine("debian12"))
    forged = ("-H", "X-WEBAUTH-USER: mallory", "-H", "X-Forwarded-For: 1.2.3.4")
    answer = get("/operations/alertmanager/api/v2/status?x=%2Fy", "-u", ALICE, *forged)
    told = json.loads(answer.body)
    headers = {name.lower(): value for name, value in told["headers"].items()}
    assert (answer.status, told["path"]) == (200, "/api/v2/status?x=%2Fy")
    assert headers["x-webauth-user"] == "alice"
    assert "authorization" not in headers
    assert headers["x-forwarded-for"] != "1.2.3.4"
    assert (headers["host"], headers["x-forwarded-proto"]) == (NAME, "https")
    assert get("/operations/alertmanager/", *forged).status == 401
    assert len(answer.header("content-security-policy")) == len(answer.header("x-frame-options")) == 1


def test_passwords_are_digests_that_only_nginx_reads(host):
    file = host.file("/etc/nginx/agentfleet/agent.operators")
    assert (file.user, file.group, file.mode) == ("root", "www-data", 0o640)
    assert [line.partition(":")[2][:3] for line in file.content_string.splitlines()] == ["$6$", "$6$"]
    assert "molecule-alice" not in file.content_string


def test_everybody_is_told_how_the_service_is(host, get):
    # A timer may have written them while a test was in maintenance.
    host.run_expect([0], "systemctl start agentfleet-status.service")
    answer = get("/status", "-H", "Accept: application/json")
    assert (answer.status, answer.header("content-type")) == (200, ["application/json"])
    # Nothing balances here, so nothing is known.
    assert json.loads(answer.body)["status"] == "unknown"
    page = get("/status", "-H", "Accept: text/html")
    assert page.header("content-type") == ["text/html; charset=utf-8"]
    assert "not known now" in page.body
    assert page.header("vary") == ["Accept"]


def test_in_maintenance_everybody_is_told_so(host, get, maintenance):
    host.run_expect([0], "systemctl start agentfleet-status.service")
    assert json.loads(get("/status").body)["status"] == "maintenance"
    assert get("/operations/", "-u", ALICE).status == 200


def test_the_pages_are_written_again_and_again(host):
    assert host.service("agentfleet-status.timer").is_running
    assert host.run("systemctl is-failed agentfleet-status.service").stdout.strip() != "failed"


def test_who_guesses_passwords_is_slowed_down(curl):
    """The last: afterwards this address has used up what it may ask at a time."""
    urls = [word for _ in range(399) for word in ("-o", "/dev/null", f"https://{NAME}/operations/")]
    options = ["-Z", "--parallel-max", "20", "-u", "alice:wrong", "-o", "/dev/null", "-w", "%{http_code}\n"]
    codes = Counter(curl("/operations/", *options, *urls, "-m", "60").stdout.split())
    assert set(codes) == {"401", "429"}, codes
