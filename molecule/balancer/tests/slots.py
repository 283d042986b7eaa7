"""Instances without the service, and their weights by the same code that the director uses."""

import json
from pathlib import Path

BASE = "http://127.0.0.1:8080"
SCRIPTS = ("backend.py", "move.py", "weight.py")


def install(host):
    if not host.file("/usr/local/lib/move.py").exists:
        host.run_expect([0], "command -v curl || (apt-get update -qq && apt-get install -y -qq curl)")
        for script in SCRIPTS:
            text = Path(__file__).with_name(script).read_text()
            host.run_expect([0], f"cat > /usr/local/lib/{script} <<'EOF'\n{text}\nEOF")


def start(host, server, address):
    port = 8100 if "blue" in server else 8150
    host.run_expect(
        [0],
        f"systemctl reset-failed {server}.service 2>/dev/null; systemctl is-active -q {server}.service"
        f" || systemd-run -q --unit={server} python3 /usr/local/lib/backend.py {server} {address} {port}",
    )


def move(host, weights):
    return json.loads(host.check_output("python3 /usr/local/lib/move.py %s", json.dumps(weights)))


def weights(host):
    return json.loads(host.check_output("python3 /usr/local/lib/move.py"))
