"""Figures for docs/benchmarks.md: each as a line of a table, with the command that gave it.

make bench                  all of them but strategies, peer, scale, status, first_vm, backup, app, monitoring and logs
make bench ONLY=deploy      one: bare_demo, lab, deploy, or one of those that it leaves out
make bench ONLY=strategies  deploys under load, with plots in docs/images/; set by the environment: STRATEGIES=canary,
                            BAKE=30 (seconds a stage), RATE=50, STREAMS=20, ROUND_TRIP=0.05 (seconds added)
make bench ONLY=peer PEER=/path/to/role   beside another role that deploys: see peer.py
make bench ONLY=scale       twenty agent hosts beside two (HOSTS=10)
make bench ONLY=status      status.yml on twenty agent hosts, and with one of them away (HOSTS=10)
make bench ONLY=first_vm    a bare VM, from init.yml to an answer over HTTPS
make bench ONLY=backup      2 GB backed up and restored beside PostgreSQL's own ways, a data host lost (MEGABYTES=2000)
make bench ONLY=monitoring  what watches five hosts weighs and works (MINUTES=3)
make bench ONLY=logs        a request's lines among a million (LINES=100000)
make bench ONLY=app         the agent service's own cost, beside a bare route and agent-squad (APP_ROUNDS=7)
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from common import Fleet, Result, row, table, timed, variables

AUTHORITIES = Path("/usr/local/share/ca-certificates")
BARE = Path(__file__).parent / "bare/hosts.yml"


def simple(bench: Callable[[], None]) -> Callable[[], None]:
    """A bench whose figures are times beside their limits."""

    def headed() -> None:
        table("what", "measured", "limit", "command")
        bench()

    return headed


def bare_demo() -> None:
    """`make demo` where none of the packages, images and caches are: in a fresh Debian 12 host, nested."""
    credentials = tempfile.mkdtemp(prefix="agentfleet-bench-")
    outer = Fleet("bare", "10.87.0.0/24", variables("bare", "10.87.0.0/24", lab_credentials=credentials))
    ssh = ["ssh", "-o", f"UserKnownHostsFile={credentials}/known_hosts_bare", "-o", "IdentitiesOnly=yes"]
    ssh += ["-i", f"{credentials}/ssh_key", "root@10.87.0.11"]

    def inside(command: str, stdin: bytes = b"") -> Result:
        done = subprocess.run([*ssh, command], input=stdin, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        return Result(done.returncode, done.stdout.decode())

    outer.playbook("lab", "-e", "lab_fresh=true", inventory=BARE).ok()
    try:
        bundle = outer.variables.with_name("repository.bundle")
        outer.run("git", "bundle", "create", "--quiet", str(bundle), "HEAD", "main").ok()
        if AUTHORITIES.is_dir():
            archive = subprocess.run(["tar", "-c", "."], cwd=AUTHORITIES, stdout=subprocess.PIPE, check=True).stdout
            inside(f"tar -x -C {AUTHORITIES} && update-ca-certificates", archive).ok()
        # The disks of nested hosts cannot lie on an overlay: they get memory.
        inside("mkdir -p /var/lib/agentfleet-lab && mount -t tmpfs -o size=16g tmpfs /var/lib/agentfleet-lab").ok()
        inside("apt-get -q update && apt-get -q -y install git make python3").ok()
        inside(
            "cat >repository.bundle && git clone -q --branch main repository.bundle agentfleet", bundle.read_bytes()
        ).ok()
        for what, limit in (("`make demo`, bare machine", "360 s"), ("`make demo`, a second time", "90 s")):
            row(what, timed(lambda: inside("cd agentfleet && make demo")), limit, "make bench ONLY=bare_demo")
    finally:
        outer.playbook("lab", "-e", "lab_state=down", inventory=BARE).ok()


def lab() -> None:
    """Five hosts, once the root file systems exist."""
    fleet = Fleet("five", "10.88.0.0/24", variables("five", "10.88.0.0/24"))
    directory = Path(tempfile.mkdtemp(prefix="agentfleet-bench-"))
    suites = ("trixie", "bookworm", "trixie", "bookworm", "trixie")
    hosts = {f"h{n}": {"lab_suite": suite, "ansible_host": f"10.88.0.{n}"} for n, suite in enumerate(suites, 11)}
    (directory / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}))
    inventory = directory / "hosts.json"
    try:
        fleet.playbook("lab", inventory=inventory).ok()
        fleet.playbook("lab", "-e", "lab_state=down", inventory=inventory).ok()
        row("five hosts up", timed(lambda: fleet.playbook("lab", inventory=inventory)), "30 s", "make bench ONLY=lab")
    finally:
        fleet.playbook("lab", "-e", "lab_state=down", inventory=inventory).ok()
        shutil.rmtree(directory)


def deploy() -> None:
    """Code-only deploys to two agent hosts of a fleet that serves."""
    fleet = Fleet("bench", "10.89.0.0/24", variables("bench", "10.89.0.0/24"))
    try:
        for name in ("lab", "site", "deploy"):
            fleet.playbook(name).ok()
        seconds = sorted(timed(lambda n=n: fleet.playbook("deploy", "-e", f"label=bench-{n}")) for n in range(5))
        row("code-only deploy, 2 agent hosts, median of 5", seconds[2], "20 s", "make bench ONLY=deploy")
        again = timed(lambda: fleet.playbook("site"))
        row("`site.yml` that changes nothing, 4 hosts", again, "", "make bench ONLY=deploy")
    finally:
        fleet.playbook("lab", "-e", "lab_state=down").ok()


def strategies() -> None:
    """Every strategy under load. Its plots need what requirements/bench.txt adds."""
    import strategies

    strategies.run()


def peer() -> None:
    """This collection and a peer's role, one after the other on the same hosts."""
    import peer

    peer.run()


def scale() -> None:
    """Twenty agent hosts beside two."""
    import scale

    scale.run()


def status() -> None:
    """What looking at twenty hosts takes."""
    import status as looking

    looking.run()


def first_vm() -> None:
    """The README's way, with one VM."""
    import first_vm

    first_vm.run()


def backup() -> None:
    """Backups and restores of a large database."""
    import backup

    backup.run()


def monitoring() -> None:
    """Memory and processor time of all that watches the fleet."""
    import monitoring

    monitoring.run()


def app() -> None:
    """What the agent service costs beside its model."""
    import app

    app.run()


def logs() -> None:
    """A request's lines among a million."""
    import logs

    logs.run()


def main() -> None:
    usual = {"bare_demo": simple(bare_demo), "lab": simple(lab), "deploy": simple(deploy)}
    benches = {
        **usual,
        "app": app,
        "logs": logs,
        "strategies": strategies,
        "peer": peer,
        "scale": scale,
        "status": simple(status),
        "first_vm": first_vm,
        "backup": backup,
        "monitoring": monitoring,
    }
    wanted = os.environ.get("ONLY", "").split() or list(usual)
    if unknown := set(wanted) - set(benches):
        sys.exit(f"no bench {', '.join(sorted(unknown))}; there are {', '.join(benches)}")
    for name in wanted:
        benches[name]()


if __name__ == "__main__":
    main()
