"""A request's lines among a million that are kept, by the program that logs.yml runs on the log host.

make bench ONLY=logs        LINES=100000 for fewer

One host keeps the lines of five over two days, as rsyslog and the timer leave them: hours that are over compressed,
the newest two not. The program is the one that Ansible sent there for the playbook; its seconds are those of the whole
process, from the start of Python on. Cold is with the machine's page cache dropped.
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from statistics import median

from common import SMALL_APP, TOP, copy_inventory, lab, row, table, timed

NETWORK = "10.83.0.0/24"
LINES = int(os.environ.get("LINES", "1000000"))
STORE = "/var/lib/agentfleet-logs-store/lines"
SOUGHT = "0f8fad5bd9cb469fa165"
TIMES = 5
FILL = """
import datetime, json, os, random, subprocess, sys, time
store, total, sought = sys.argv[1], int(sys.argv[2]), sys.argv[3]
hours, hosts = 48, ("edge1", "agent1", "agent2", "data1", "ops1")
chance = random.Random(1)
begin = (int(time.time()) // 3600 - hours + 1) * 3600
each = total // (hours * len(hosts))

def line(host, at, request):
    moment = datetime.datetime.fromtimestamp(at, datetime.timezone.utc)
    if host == "edge1":
        text = {"time": moment.isoformat(timespec="seconds"), "request_id": request, "client": "203.0.113.9",
            "host": "agent.example.org", "method": "POST", "path": "/api/chat", "protocol": "HTTP/2.0", "status": 200,
            "bytes": chance.randrange(200, 4000), "seconds": round(chance.random(), 3), "upstream_status": "200",
            "tls": "TLSv1.3", "agent": "Mozilla/5.0 (X11; Linux x86_64)"}
        record = {"read": moment.isoformat(), "file": "nginx-access", "text": json.dumps(text)}
    else:
        text = {"event": "request", "level": "info", "timestamp": moment.isoformat(), "request_id": request,
            "session_id": "%032x" % chance.getrandbits(128), "trace_id": "%032x" % chance.getrandbits(128),
            "route": "/api/chat", "status": 200, "milliseconds": round(chance.random() * 900, 1), "slot": "blue"}
        unit = "agent-worker@blue-1.service" if host == "agent2" else "agent@blue-1.service"
        record = {"time": moment.isoformat(), "source": "", "unit": unit, "name": "python", "priority": "6",
            "text": json.dumps(text)}
    return f"{host} {json.dumps(record)}"

for hour in range(hours):
    for host in hosts:
        at = begin + hour * 3600
        day = time.strftime("%Y-%m-%d", time.gmtime(at))
        path = f"{store}/{host}/{day}/{time.strftime('%H', time.gmtime(at))}.log"
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w") as file:
            for number in range(each):
                wanted = number == each // 2 and hour in (7, hours - 1)
                request = sought if wanted else "%032x" % chance.getrandbits(128)
                file.write(line(host, at + number * 3500 / each, request) + "\\n")
        if hour < hours - 2:
            subprocess.run(["zstd", "-q", "--rm", path, "-o", path + ".zst"], check=True)
"""
TIME = """
import subprocess, sys, time
began = time.monotonic()
done = subprocess.run(["/usr/bin/python3", *sys.argv[1:]], capture_output=True, text=True)
print(time.monotonic() - began, done.stdout.count('"at"'), done.stderr)
"""


def run() -> None:
    target = copy_inventory(TOP / "inventories/lab", Path(tempfile.mkdtemp(prefix="agentfleet-bench-")) / "lab")
    keeper = {"ops1": {"lab_suite": "trixie", "ansible_host": "{{ lab_prefix }}.41"}}
    groups = {name: {"hosts": keeper} for name in ("edge", "agents", "monitoring")}
    (target / "hosts.yml").write_text(json.dumps({"all": {"children": {"machines": {"children": groups}}}}))
    with lab("logs", NETWORK, target, **SMALL_APP) as fleet:
        fleet.on("ops1", "apt-get -q update && apt-get -q -y install zstd", seconds=600).ok()
        fleet.on("ops1", f"rm -rf {STORE} && python3 - {STORE} {LINES} {SOUGHT}", stdin=FILL, seconds=900).ok()
        size = fleet.on("ops1", f"du -sm {STORE} | cut -f1").ok().stdout.strip()
        request = ("-e", f"request_id={SOUGHT}", "-e", "follow=false")
        table("what", "measured", "limit", "command")
        whole = sorted(timed(lambda: fleet.playbook("logs", *request, inventory=target)) for _time in range(TIMES))
        # As Ansible leaves it there when it is asked to.
        kept = {"ANSIBLE_KEEP_REMOTE_FILES": "1", "ANSIBLE_PIPELINING": "0"}
        lines = fleet.run(*fleet.command("logs", *request, inventory=target), env=kept).ok().stdout
        assert sum(SOUGHT in line for line in lines.splitlines()) == 10, lines
        program = fleet.on("ops1", "ls -t /root/.ansible/tmp/*/AnsiballZ_log_lines.py | head -1").ok().stdout.strip()

        def once(cold: bool) -> float:
            if cold:
                os.sync()
                Path("/proc/sys/vm/drop_caches").write_text("3\n")
            seconds, found, *errors = fleet.on("ops1", f"python3 - {program}", stdin=TIME).ok().stdout.split()
            assert (int(found), errors) == (10, []), errors
            return float(seconds)

        command = "make bench ONLY=logs"
        among = f"a request's 10 lines among {LINES:,} ({size} MB on disk)"
        row(
            f"{among}, the program alone, median of {TIMES}",
            median(once(False) for _time in range(TIMES)),
            "2 s",
            command,
        )
        row("the same, page cache dropped, median of 3", median(once(True) for _time in range(3)), "2 s", command)
        row(f"`logs.yml -e request_id=…` as a whole, median of {TIMES}", whole[TIMES // 2], "", command)
        day = timed(lambda: fleet.playbook("logs", "-e", "what=summary", inventory=target))
        row(f"`logs.yml -e what=summary`, {LINES // 2:,} lines of a day", day, "", command)
