"""What the role prepares is enough for a release to run: whole, limited, watched, and with its secrets to itself."""

import hashlib
import json
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.plugin_utils.build import build

APP = Path(__file__).resolve().parents[3] / "tests/support/small_app"
SECRETS = {"api_key": "small-api-key-0123456789", "crm_token": "small-crm-token-0123456789"}
MODULE = "agentfleet.vm.release"
INSTANCE = "agent@blue-1.service"
WORKER = "agent-worker@blue-1.service"


@pytest.fixture(scope="session")
def releases(tmp_path_factory):
    """Two releases of the small app, from its tree as it lies there."""
    tree, cache = tmp_path_factory.mktemp("app"), tmp_path_factory.mktemp("cache")
    for path in APP.iterdir():
        if path.is_file():
            (tree / path.name).write_bytes(path.read_bytes())
    return [build(tree, [], label, cache, False) for label in ("one", "two")]


@pytest.fixture(scope="module")
def release(host, address_of):
    """Run the module on the host: release("started", slot="blue")."""
    address = address_of(host.backend.get_hostname())

    def call(state, check=False, **options):
        arguments = {
            "state": state,
            "name": "agent",
            "address": address,
            "environment": {"AGENT_APP": "main:app", "AGENT_HOST": address, "GREETING": 'a "b" $c'},
            "secrets": SECRETS,
            **options,
        }
        return host.ansible(MODULE, json.dumps(arguments), check=check, diff=True)

    return call


@pytest.fixture(scope="module")
def refusal(release):
    """What the module says when it refuses; only a failure has a message."""
    return lambda *arguments, **options: release(*arguments, **options)["msg"]


@pytest.fixture(scope="module")
def started(release, releases):
    """The first release in slot blue, running."""
    made = releases[0]
    name = made["release"]["id"]
    installed = release("installed", slot="blue", release=name, artifact=made["path"], sha256=made["release"]["sha256"])
    assert installed["did"] == ["release", "venv", "slot"], installed
    running = release("started", slot="blue", release=name)
    assert running["changed"], running
    return name


def ask(host, address, path="/ready", port=8100):
    code = f"import urllib.request as r; print(r.urlopen('http://{address}:{port}{path}', timeout=5).read().decode())"
    return json.loads(host.check_output(f'python3 -c "{code}"'))


def test_the_service_runs_as_a_user_that_can_do_nothing_else(host):
    user = host.user("agent")
    assert (user.shell, user.home) == ("/usr/sbin/nologin", "/nonexistent")
    assert host.file("/opt/agent/releases").user == "root"
    assert host.check_output("/opt/agent/tools/bin/uv --version").startswith("uv ")


def test_a_release_runs_with_its_variables_and_secrets(host, address, started):
    assert ask(host, address) == {
        "release": started,
        "slot": "blue",
        "greeting": 'a "b" $c',
        "secrets": {f"agent_{name}": len(value) for name, value in SECRETS.items()},
    }


def test_a_second_run_changes_nothing(release, releases, started):
    made = releases[0]["release"]
    again = release("installed", slot="blue", release=made["id"])
    assert (again["changed"], again["did"]) == (False, [])
    assert release("started", slot="blue")["changed"] is False
    assert release("observed", release=made["id"])["observed"]["slots"]["blue"] | {"identity": ""} == {
        "release": made["id"],
        "identity": "",
        "instances": 1,
        "matches": True,
        "differs": [],
        "state": "running",
        "active": ["blue-1"],
        "enabled": True,
    }


def test_the_units_are_valid_and_shut_in(host, started):
    host.check_output(
        "systemd-analyze verify agent@blue-1.service agent-worker@blue-1.service agent-migrate@blue.service"
    )
    host.check_output("systemd-analyze security --threshold=20 agent@blue-1.service")
    shown = host.check_output(
        "systemctl show agent@blue-1 -p MemoryMax -p CPUQuotaPerSecUSec -p Type -p WatchdogUSec -p TimeoutStopUSec"
    )
    assert set(shown.splitlines()) == {
        "MemoryMax=1073741824",
        "CPUQuotaPerSecUSec=2s",
        "Type=notify",
        "WatchdogUSec=4s",
        "TimeoutStopUSec=20s",
    }


def limits(host, unit):
    """What the unit is shut in by, point for point."""
    judged = json.loads(host.check_output(f"systemd-analyze security --json=short {unit}"))
    shown = host.check_output(
        f"systemctl show {unit} -p User -p MemoryMax -p CPUQuotaPerSecUSec -p TasksMax -p WatchdogUSec -p UMask"
    )
    return {point["name"]: point["exposure"] for point in judged}, sorted(shown.splitlines())


def test_a_worker_is_shut_in_like_its_instance(host, started):
    host.check_output(f"systemd-analyze security --threshold=20 {WORKER}")
    assert limits(host, WORKER) == limits(host, INSTANCE)
    pid = host.check_output(f"systemctl show --value -p MainPID {WORKER}")
    assert host.check_output(f"stat -c %U /proc/{pid}") == "agent"
    said = host.check_output(f"tr '\\0' ' ' < /proc/{pid}/cmdline").split()
    assert said == ["/opt/agent/slots/blue-1/venv/bin/python", "-m", "worker"]


def test_a_worker_runs_and_stops_with_its_instance(host, started):
    def becomes(state):
        reached = f'[ "$(systemctl is-active {WORKER})" = {state} ]'
        host.check_output(f"timeout 30 sh -c 'until {reached}; do sleep 0.2; done'")

    assert host.check_output(f"systemctl is-active {WORKER}") == "active"
    host.check_output(f"systemctl stop {INSTANCE}")
    becomes("inactive")
    # As at boot, where nobody but the instance asks for it.
    host.check_output(f"systemctl start {INSTANCE}")
    becomes("active")


def test_an_app_of_ones_own_without_a_worker_command_has_no_worker(host):
    assert "worker" not in host.file("/etc/systemd/system/own@.service").content_string
    assert not host.file("/etc/systemd/system/own-worker@.service").exists


def test_secrets_are_nowhere_but_in_the_services_own_files(host, started):
    pid = host.check_output("systemctl show --value -p MainPID agent@blue-1.service")
    places = [
        "ps axeww",
        f"tr '\\0' '\\n' < /proc/{pid}/environ",
        "systemctl cat 'agent@*'",
        "systemctl show agent@blue-1.service",
        "journalctl --no-pager",
        "cat /opt/agent/slots/blue/environment /opt/agent/slots/blue/slot.json /opt/agent/slots/blue/credentials/*",
    ]
    for place in places:
        said = host.check_output(place)
        assert all(secret not in said for secret in SECRETS.values()), place
    assert host.run(
        "su -s /bin/sh agent -c 'cat /opt/agent/slots/blue/credentials/* /opt/agent/slots/blue/environment'"
    ).rc


def test_a_release_that_hangs_is_restarted(host, address, started):
    before = host.check_output("systemctl show --value -p MainPID agent@blue-1.service")
    host.run(f"timeout 2 python3 -c \"import urllib.request as r; r.urlopen('http://{address}:8100/hang')\"")
    host.check_output(
        "timeout 60 sh -c 'until systemctl show -p MainPID,ActiveState,NRestarts agent@blue-1.service | "
        f'grep -qx NRestarts=1 && [ "$(systemctl is-active agent@blue-1.service)" = active ] && '
        f'[ "$(systemctl show --value -p MainPID agent@blue-1.service)" != {before} ]; do sleep 0.5; done\''
    )
    assert "Watchdog timeout" in host.check_output("journalctl --no-pager -u agent@blue-1.service")


def test_the_other_slot_takes_over_and_the_old_one_is_retired(host, address, release, refusal, releases, started):
    made = releases[1]
    options = {"slot": "green", "release": made["release"]["id"]}
    assert "is not on the host" in refusal("installed", **options)
    installed = release("installed", artifact=made["path"], sha256=made["release"]["sha256"], **options)
    assert installed["did"] == ["release", "slot"]
    assert 0 < installed["shipped_bytes"] < 1_000_000
    assert release("started", **options)["changed"]
    assert ask(host, address, port=8150)["release"] == made["release"]["id"]

    assert release("retired", slot="blue", warm_minutes=30)["changed"]
    assert not release("retired", slot="blue", warm_minutes=30)["changed"]
    assert host.check_output("systemctl is-active agent-stop-blue.timer") == "active"
    assert host.run("systemctl is-enabled agent@blue-1.service").stdout.strip() == "disabled"
    assert ask(host, address)["slot"] == "blue"

    # Used again: the timer must not stop it any more.
    assert release("started", slot="blue")["changed"]
    assert host.run("systemctl is-active agent-stop-blue.timer").stdout.strip() == "inactive"
    assert release("retired", slot="blue", warm_minutes=0)["changed"]
    host.check_output("timeout 30 sh -c 'while systemctl is-active --quiet agent@blue-1.service; do sleep 0.2; done'")
    assert release("stopped", slot="green")["changed"]


def test_an_artifact_that_arrives_damaged_is_refused(release, refusal, releases, tmp_path):
    data = bytearray(Path(releases[1]["path"]).read_bytes())
    data[len(data) // 2] ^= 1
    broken = tmp_path / "broken.tar.gz"
    broken.write_bytes(data)
    options = {"slot": "green", "release": "never-0123456789ab", "artifact": str(broken), "present": False}
    assert "arrived damaged" in refusal("installed", sha256=releases[1]["release"]["sha256"], **options)
    # The same with a digest of the damaged bytes: the archive's own sum finds it.
    assert "not a readable archive" in refusal("installed", sha256=hashlib.sha256(data).hexdigest(), **options)
    assert "never-0123456789ab" not in release("observed")["observed"]["releases"]


def test_a_release_that_never_starts_says_why_in_its_own_words(release, refusal, started):
    elsewhere = {"AGENT_APP": "missing:app", "AGENT_HOST": "127.0.0.1"}
    options = {"slot": "green", "release": started, "environment": elsewhere}
    assert release("installed", **options)["did"] == ["slot"]
    assert 'Could not import module "missing"' in refusal("started", ready_seconds=10, **options)
    assert release("stopped", slot="green")["changed"]


def test_a_dry_run_tells_what_would_change_and_changes_nothing(release, releases, started):
    before = release("observed")["observed"]["slots"]["green"]
    options = {"slot": "green", "release": releases[1]["release"]["id"], "environment": {"GREETING": "other"}}
    told = release("installed", check=True, **options)
    assert told["changed"]
    assert release("observed")["observed"]["slots"]["green"] == before
