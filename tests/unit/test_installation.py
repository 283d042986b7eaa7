"""Slots on a host's disk: whole or not there, whatever interrupted the run before; and starting, stopping, retiring."""

from __future__ import annotations

import http.server
import json
import multiprocessing
import os
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import (
    certificate,
    containers,
    disk,
    host_facts,
    installation,
    observation,
    systemd,
    venvs,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import File, pack
from ansible_collections.agentfleet.vm.plugins.module_utils.installation import HostError
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import Wanted

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fake_docker import FakeDocker
from fake_systemd import FakeSystemd, LocalService, make_service, with_docker

LOCK = b"uvicorn==0.30.0 --hash=sha256:" + b"0" * 64 + b"\n"
FILES = {"requirements.txt": File(LOCK), "src/shop/main.py": File(b"app = None\n")}
MANIFEST, ARCHIVE = pack(FILES, "1.0", "")
OTHER, OTHER_ARCHIVE = pack({**FILES, "src/shop/main.py": File(b"app = 1\n")}, "1.1", "")
PYTHON = "/usr/bin/python3"
PORT = 8100


@pytest.fixture
def service(tmp_path: Path) -> LocalService:
    return make_service(tmp_path / "opt")


@pytest.fixture
def fake(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    fake = FakeSystemd(service)
    monkeypatch.setattr(systemd, "run", fake.run)
    monkeypatch.setattr(venvs, "interpreter_tag", lambda _python: "cp311-x86_64")
    monkeypatch.setattr(containers, "user_of", lambda _service: "994:996")
    return fake


@pytest.fixture
def wanted() -> Wanted:
    return Wanted(MANIFEST["id"], {"AGENT_MODEL": "m $x"}, {"api_key": "k3y-of-the-api", "other": "0ther"}, 2)


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    path = tmp_path / "artifact"
    path.write_bytes(ARCHIVE)
    return path


def install(service: LocalService, wanted: Wanted, archive: Path | None, slot: str = "blue") -> dict[str, Any]:
    return installation.install(service, slot, wanted, PORT, archive, PYTHON)


def holds(service: LocalService, wanted: Wanted, slot: str = "blue") -> bool:
    return observation.holds(service, slot, wanted, observation.release_intact(service, wanted.release))


def test_a_slot_is_installed_once(service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path) -> None:
    assert install(service, wanted, None) == {"needs_artifact": True, "did": []}
    assert install(service, wanted, archive)["did"] == ["release", "venv", "slot"]
    assert holds(service, wanted)
    assert install(service, wanted, None) == {"needs_artifact": False, "did": []}


def test_what_lies_on_the_disk(service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path) -> None:
    install(service, wanted, archive, "green")
    slot = service.slot("green")
    assert (slot / "release").resolve() == service.releases / wanted.release
    assert (slot / "venv").resolve().name == f"{MANIFEST['lock']}-cp311-x86_64"
    assert (slot / "environment").read_text() == (
        f'AGENT_MODEL="m \\$x"\nAGENT_RELEASE="{wanted.release}"\nAGENT_SLOT="green"\n'
    )
    assert (service.root / "slots/green-2/green-2.env").read_text() == 'PORT="8151"\n'
    for secret in ("slot.json", "environment", "credentials/api_key", "green-1.env"):
        assert (slot / secret).stat().st_mode & 0o777 == 0o600
    assert (slot / "credentials").stat().st_mode & 0o777 == 0o700
    everything = b"".join(path.read_bytes() for path in slot.rglob("*") if path.is_file())
    assert all(value.encode() not in everything for value in wanted.secrets.values())


def test_another_release_reuses_the_environment_of_the_same_lock(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path
) -> None:
    install(service, wanted, archive)
    archive.write_bytes(OTHER_ARCHIVE)
    assert install(service, replace(wanted, release=OTHER["id"]), archive, "green")["did"] == ["release", "slot"]


def test_a_changed_secret_is_written_anew_and_no_other(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path
) -> None:
    install(service, wanted, archive)
    credentials = service.slot("blue") / "credentials"
    before = {path.name: path.read_bytes() for path in credentials.iterdir()}
    changed = replace(wanted, secrets={"api_key": "another-key", "other": "0ther"})
    assert install(service, changed, None)["did"] == ["slot"]
    after = {path.name: path.read_bytes() for path in credentials.iterdir()}
    assert (before["other"] == after["other"], before["api_key"] == after["api_key"]) == (True, False)
    assert install(service, replace(wanted, secrets={"other": "0ther"}), None)["did"] == ["slot"]
    assert [path.name for path in credentials.iterdir()] == ["other"]


def test_what_would_be_another_is_named_and_never_shown(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path
) -> None:
    install(service, wanted, archive)
    assert observation.differences(service, "blue", wanted) == []
    assert observation.differences(service, "green", wanted) == []
    other = replace(
        wanted,
        release=OTHER["id"],
        instances=1,
        environment={"AGENT_LEVEL": "debug"},
        secrets={"api_key": "another-key", "new": "n3w"},
    )
    assert observation.differences(service, "blue", other) == [
        f"release ({wanted.release})",
        "instances (2)",
        "variable AGENT_LEVEL (new)",
        "variable AGENT_MODEL (gone)",
        "secret api_key (new value)",
        "secret new (new)",
        "secret other (gone)",
    ]
    service.unit_file.write_text("[Service]\nMemoryMax=2G\n")
    assert observation.differences(service, "blue", wanted) == ["limits or sandbox"]


def damage_environment(service: LocalService) -> None:
    (service.slot("blue") / "environment").write_text('AGENT_MODEL="evil"\n')


def damage_credential(service: LocalService) -> None:
    (service.slot("blue") / "credentials/api_key").write_bytes(b"from another host")


def damage_record(service: LocalService) -> None:
    (service.slot("blue") / "slot.json").write_text("{")


def damage_venv(service: LocalService) -> None:
    (service.slot("blue") / "venv/.complete").unlink()


def damage_release(service: LocalService) -> None:
    (service.slot("blue") / "release/src/shop/main.py").write_text("app = 'evil'\n")


def damage_link(service: LocalService) -> None:
    (service.slot("blue") / "release").unlink()


def change_unit(service: LocalService) -> None:
    service.unit_file.write_text("[Service]\nMemoryMax=2G\n")


DAMAGES = [
    damage_environment,
    damage_credential,
    damage_record,
    damage_venv,
    damage_release,
    damage_link,
    change_unit,
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_seen_and_mended(
    service: LocalService,
    fake: FakeSystemd,
    wanted: Wanted,
    archive: Path,
    damage: Callable[[LocalService], None],
) -> None:
    install(service, wanted, archive)
    damage(service)
    assert not holds(service, wanted)
    assert not observation.observe(service, "127.0.0.1", PORT, 2, wanted)["slots"]["blue"]["matches"]
    assert install(service, wanted, archive)["did"]
    assert holds(service, wanted)


class Crashed(BaseException):
    """The power went, or somebody killed the module."""


def crashing(monkeypatch: pytest.MonkeyPatch, fake: FakeSystemd) -> Callable[[int], None]:
    """A function that sets after how many more writes, links, commands … the run ends."""
    left = 0

    def counted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise Crashed
            return function(*arguments, **named)

        return call

    def after(calls: int) -> None:
        nonlocal left
        left = calls

    for module, name in ((disk, "write"), (disk, "link"), (disk, "sync"), (installation, "unpack")):
        monkeypatch.setattr(module, name, counted(getattr(module, name)))
    monkeypatch.setattr(systemd, "run", counted(fake.run))
    return after


@pytest.mark.parametrize(
    ("before", "after", "points"),
    [
        ("", "venv", 20),
        ("venv", "venv", 14),
        ("", "docker", 30),
        ("docker", "docker", 20),
        ("venv", "docker", 30),
        ("docker", "venv", 20),
    ],
)
def test_a_crash_at_any_point_is_mended_by_the_next_run(
    fake: FakeSystemd,
    wanted: Wanted,
    archive: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    before: str,
    after: str,
    points: int,
) -> None:
    other = tmp_path / "other"
    other.write_bytes(OTHER_ARCHIVE)
    crash_after = crashing(monkeypatch, fake)
    crashes = 0
    while True:
        fake.service = service = make_service(tmp_path / str(crashes))
        fake.states = {}
        fake.docker = FakeDocker()
        fake.docker.add("python:3")
        with_docker(service)
        crash_after(0)
        wanted = replace(wanted, runtime=after, image="python:3")
        earlier = replace(wanted, release=OTHER["id"], runtime=before or after)
        if before:
            install(service, earlier, other)
        crash_after(crashes + 1)
        try:
            install(service, wanted, archive)
        except Crashed:
            crashes += 1
        else:
            break
        crash_after(0)
        assert not holds(service, wanted)
        assert holds(service, earlier) or not observation.read_record(service, "blue")
        install(service, wanted, archive)
        assert holds(service, wanted)
        assert list(service.releases.glob(".new-*")) == []
        assert fake.docker.containers == {}
    assert crashes >= points


def test_overwriting_stops_what_runs_and_keeps_an_earlier_timer_from_stopping_it_later(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path
) -> None:
    install(service, wanted, archive)
    fake.states.update({"agent@blue-1.service": "active", "agent-stop-blue.timer": "active"})
    install(service, replace(wanted, instances=1), None)
    assert fake.states == {"agent@blue-1.service": "inactive", "agent-stop-blue.timer": "inactive"}
    assert not (service.slot("blue") / "blue-2.env").exists()


def test_an_artifact_of_another_release_is_refused(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path
) -> None:
    archive.write_bytes(OTHER_ARCHIVE)
    with pytest.raises(HostError, match=r"the artifact is release 1\.1-"):
        install(service, wanted, archive)
    assert observation.installed_releases(service) == []


def test_the_diff_tells_names_and_never_a_value(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path
) -> None:
    install(service, wanted, archive)
    secrets = {"api_key": "another-key", "more": "m0re"}
    diff = installation.change_of(service, "blue", replace(wanted, environment={"B": "b"}, secrets=secrets))
    assert diff["before"].splitlines()[2:] == ["variable: AGENT_MODEL", "secret: api_key", "secret: other"]
    assert diff["after"].splitlines()[2:] == ["variable: B", "secret: api_key (new value)", "secret: more"]
    assert not any(value in json.dumps(diff) for value in ("k3y", "another-key", "m0re", "m $x"))


class Ready(http.server.BaseHTTPRequestHandler):
    """Answers /ready with the server's status."""

    status = 200

    def do_GET(self) -> None:
        self.send_response(self.status)
        self.end_headers()
        self.wfile.write(b'{"database": "down: k3y-of-the-api"}')

    def log_message(self, *_arguments: Any) -> None:
        return


@pytest.fixture
def ready() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), type("Handler", (Ready,), {})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def start(service: LocalService, server: http.server.HTTPServer, seconds: int = 5) -> dict[str, Any]:
    return installation.start(service, "blue", "127.0.0.1", [server.server_port], seconds, ["k3y-of-the-api"])


def test_a_started_slot_is_ready_starts_at_boot_and_is_started_once(
    service: LocalService, fake: FakeSystemd, ready: http.server.HTTPServer
) -> None:
    fake.states.update({"agent@blue-1.service": "failed", "agent-stop-blue.timer": "active"})
    assert start(service, ready)["changed"]
    assert fake.states == {"agent@blue-1.service": "active", "agent-stop-blue.timer": "inactive"}
    assert "systemctl reset-failed agent@blue-*.service agent-worker@blue-*.service" in fake.said
    assert installation.boot_instances(service, "blue") == ["blue-1"]
    assert not start(service, ready)["changed"]


def test_a_worker_starts_and_stops_with_its_instance(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path, ready: http.server.HTTPServer
) -> None:
    service.worker_file.write_text("[Service]\n")
    install(service, wanted, archive)
    fake.states["agent@blue-1.service"] = "active"
    assert start(service, ready)["changed"]
    assert fake.states["agent-worker@blue-1.service"] == "active"
    assert not start(service, ready)["changed"]
    # What runs is another one's where its worker's unit changed.
    assert observation.holds(service, "blue", wanted, intact=True)
    service.worker_file.write_text("[Service]\nMemoryMax=2G\n")
    assert not observation.holds(service, "blue", wanted, intact=True)
    install(service, wanted, None)
    assert {fake.states["agent@blue-1.service"], fake.states["agent-worker@blue-1.service"]} == {"inactive"}


def test_a_slot_whose_worker_fails_is_not_ready(
    service: LocalService, fake: FakeSystemd, ready: http.server.HTTPServer
) -> None:
    service.worker_file.write_text("[Service]\n")
    fake.starts_as = "failed"
    fake.states["agent@blue-1.service"] = "active"
    with pytest.raises(HostError, match=r"agent-worker@blue-1\.service failed"):
        start(service, ready)


def test_an_instance_has_to_show_that_it_is_this_host(ready: http.server.HTTPServer, tmp_path: Path) -> None:
    own, other = (tmp_path / name for name in ("own", "other"))
    for directory in (own, other):
        directory.mkdir()
        certificate.make(directory / "crt", directory / "key", ["127.0.0.1"], 30, os.getgid())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own / "crt", own / "key")
    ready.socket = context.wrap_socket(ready.socket, server_side=True, do_handshake_on_connect=False)
    port = ready.server_port
    assert host_facts.ask("127.0.0.1", port, "/ready", 5, str(own / "crt"))[0] == 200
    status, said = host_facts.ask("127.0.0.1", port, "/ready", 5, str(other / "crt"))
    assert (status, "CERTIFICATE_VERIFY_FAILED" in said) == (0, True)
    # Without TLS nobody gets an answer.
    assert host_facts.ask("127.0.0.1", port, "/ready", 5)[0] == 0


def test_a_slot_that_is_kept_starts_at_boot_and_no_timer_stops_it(
    service: LocalService, fake: FakeSystemd, ready: http.server.HTTPServer
) -> None:
    fake.states.update({"agent@blue-1.service": "active", "agent-stop-blue.timer": "active"})
    assert installation.keep(service, "blue", check=True)
    assert (installation.boot_instances(service, "blue"), fake.states["agent-stop-blue.timer"]) == ([], "active")
    assert installation.keep(service, "blue")
    assert (installation.boot_instances(service, "blue"), fake.states["agent-stop-blue.timer"]) == (
        ["blue-1"],
        "inactive",
    )
    assert not installation.keep(service, "blue")


ASKING = installation.Asking("agent1", ["http://edge1:8405/metrics"], 300)


@pytest.mark.parametrize(
    ("minutes", "failed", "words"), [(60, False, "agent1 warm"), (0, False, "agent1 warm"), (0, True, "agent1 failed")]
)
def test_a_slot_is_stopped_by_its_host_once_the_edges_say_that_nobody_needs_it(
    service: LocalService, fake: FakeSystemd, minutes: int, failed: bool, words: str
) -> None:
    fake.states["agent@blue-1.service"] = "active"
    installation.stop_later(service, "blue", minutes, ASKING, failed)
    assert fake.states == {"agent@blue-1.service": "active", "agent-stop-blue.timer": "active"}
    assert f"agentfleet-slot agent blue {words} " in fake.said[-1]
    assert fake.said[-1].endswith(" http://edge1:8405/metrics")


def test_where_no_edge_can_be_asked_a_slot_is_stopped_at_once(service: LocalService, fake: FakeSystemd) -> None:
    fake.states["agent@blue-1.service"] = "active"
    installation.stop_later(service, "blue", 0, installation.Asking("", [], 300))
    assert fake.states == {"agent@blue-1.service": "inactive"}


def test_a_slot_that_is_not_ready_tells_its_answer_and_its_last_lines_without_secrets(
    service: LocalService, fake: FakeSystemd, ready: http.server.HTTPServer
) -> None:
    ready.RequestHandlerClass.status = 503  # type: ignore[attr-defined]
    fake.journal = "one\npassword k3y-of-the-api refused\n"
    with pytest.raises(HostError) as caught:
        start(service, ready, 1)
    told = str(caught.value)
    assert 'not ready within 1 s. /ready of blue-1: 503 {"database": "down: ********"}' in told
    assert told.endswith("Its last lines:\none\npassword ******** refused")


def test_a_slot_that_fails_is_not_waited_for(
    service: LocalService, fake: FakeSystemd, ready: http.server.HTTPServer
) -> None:
    ready.RequestHandlerClass.status = 503  # type: ignore[attr-defined]
    fake.starts_as = "failed"
    with pytest.raises(HostError, match=r"agent@blue-1\.service failed"):
        start(service, ready, 60)


def test_another_process_that_answers_on_the_port_is_not_taken_for_the_service(
    service: LocalService, fake: FakeSystemd, ready: http.server.HTTPServer
) -> None:
    fake.starts_as = "activating"
    with pytest.raises(HostError, match="not ready within 1 s"):
        start(service, ready, 1)


def test_a_failed_migration_tells_why(
    service: LocalService, fake: FakeSystemd, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(*command: str, **named: Any) -> bytes:
        if command[:1] == ("systemctl",) and "start" in command:
            raise systemd.CommandError("systemctl start: failed, see the journal")
        return fake.run(*command, **named)

    monkeypatch.setattr(systemd, "run", run)
    fake.journal = "relation k3y-of-the-api does not exist\n"
    with pytest.raises(HostError, match=r"Its last lines:\nrelation \*{8} does not exist"):
        installation.migrate(service, "green", ["k3y-of-the-api"])
    assert "systemctl reset-failed agent-migrate@green.service" in fake.said


def test_old_releases_and_the_environments_that_nothing_needs_are_removed(
    service: LocalService, fake: FakeSystemd, wanted: Wanted, archive: Path, tmp_path: Path
) -> None:
    names = []
    for number in range(4):
        lock = LOCK.replace(b"0.30", f"0.3{number // 2}".encode())
        manifest, data = pack({**FILES, "requirements.txt": File(lock)}, f"2.{number}", "")
        archive.write_bytes(data)
        install(service, replace(wanted, release=manifest["id"]), archive, "blue" if number == 0 else "green")
        names.append(manifest["id"])
    assert installation.prune(service, 1, [], PYTHON, check=True) == [f"releases/{name}" for name in names[1:3]]
    installation.prune(service, 1, [], PYTHON, check=False)
    assert sorted(observation.installed_releases(service)) == sorted([names[0], names[3]])
    assert len(list(service.venvs.iterdir())) == 2
    archive.write_bytes(data)
    install(service, replace(wanted, release=names[3]), archive, "blue")
    assert len(installation.prune(service, 1, [], PYTHON, check=False)) == 2
    assert [path.name for path in service.releases.iterdir()] == [names[3]]


def hold(service: LocalService, held: Any, release: Any) -> None:
    with installation.locked(service, 1):
        held.set()
        release.wait(10)


def test_a_second_writer_waits_and_then_names_the_first(service: LocalService) -> None:
    context = multiprocessing.get_context("fork")
    held, release = context.Event(), context.Event()
    holder = context.Process(target=hold, args=(service, held, release))
    holder.start()
    assert held.wait(10)
    with (
        pytest.raises(HostError, match=f"process {holder.pid} still works on agent after 1 s"),
        installation.locked(service, 1),
    ):
        pass
    release.set()
    with installation.locked(service, 10):
        pass
    holder.join()


def test_slot_states() -> None:
    state = observation.slot_state
    assert state([], recorded=False, whole=False, begun=False) == "empty"
    assert state([], recorded=False, whole=False, begun=True) == "damaged"
    assert state(["active"], recorded=True, whole=False, begun=True) == "damaged"
    assert state(["active", "active"], recorded=True, whole=True, begun=True) == "running"
    assert state(["active", "failed"], recorded=True, whole=True, begun=True) == "failed"
    assert state(["active", "inactive"], recorded=True, whole=True, begun=True) == "starting"
    assert state(["inactive"], recorded=True, whole=True, begun=True) == "stopped"


def test_a_bare_host_is_observed(tmp_path: Path, fake: FakeSystemd) -> None:
    bare = LocalService("agent", tmp_path / "nothing/here")
    seen = observation.observe(bare, "127.0.0.1", PORT, 1, None)
    assert (seen["prepared"], seen["releases"], seen["slots"]["blue"]["state"]) == (False, [], "empty")


TABLE = """  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 1500520A:1FA4 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1
   1: 0100007F:1FD6 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 12 1
   2: 1500520A:1FA4 0B00520A:C350 01 00000000:00000000 00:00000000 00000000     0        0 13 1
"""


def test_listening_sockets_are_read_from_the_kernels_table() -> None:
    assert observation.listeners(TABLE) == [("10.82.0.21", 8100, "11"), ("127.0.0.1", 8150, "12")]
    six = TABLE.replace("0100007F", "00000000000000000000000001000000")
    assert observation.listeners(six)[1][0] == "::1"


@pytest.mark.parametrize(
    ("bound", "taken"),
    [("0.0.0.0", True), ("::", True), ("10.0.0.1", True), ("::ffff:10.0.0.1", True), ("127.0.0.1", False)],
)
def test_only_sockets_in_the_way_count(bound: str, taken: bool) -> None:
    assert observation.collides(bound, "10.0.0.1") is taken


def test_a_foreign_process_on_a_port_is_named(ready: http.server.HTTPServer) -> None:
    port = ready.server_port
    assert (
        f"process {multiprocessing.current_process().pid}"
        in observation.ports_taken("127.0.0.1", [port], [])[str(port)]
    )
    assert observation.ports_taken("127.0.0.1", [port], [multiprocessing.current_process().pid or 0]) == {}


def test_a_writer_whose_lease_is_over_changes_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(installation, "GENERATION", tmp_path / "agentfleet/generation")
    installation.check_generation(0)
    assert not installation.GENERATION.exists(), "a writer without a lease"
    for generation in (7, 7, 9):
        installation.check_generation(generation)
    with pytest.raises(HostError, match=r"lease \(7\) is over: 9 wrote here since; nothing was changed"):
        installation.check_generation(7)
    assert installation.GENERATION.read_text() == "9\n"
