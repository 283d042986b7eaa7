"""Releases as images: made once from the same artifact, named when whole, kept as long as something needs them."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import containers, installation, observation, systemd, venvs
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import File, pack
from ansible_collections.agentfleet.vm.plugins.module_utils.observation import Wanted
from ansible_collections.agentfleet.vm.plugins.module_utils.systemd import CommandError

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))

from fake_docker import Image
from fake_systemd import FakeSystemd, LocalService, make_service, with_docker

LOCK = File(b"uvicorn==0.30.0 --hash=sha256:" + b"0" * 64 + b"\n")
OTHER_LOCK = File(b"uvicorn==0.31.0 --hash=sha256:" + b"0" * 64 + b"\n")
PYTHON = "/usr/bin/python3"


@pytest.fixture
def service(tmp_path: Path) -> LocalService:
    service = make_service(tmp_path / "opt")
    with_docker(service)
    return service


@pytest.fixture
def fake(service: LocalService, monkeypatch: pytest.MonkeyPatch) -> FakeSystemd:
    fake = FakeSystemd(service)
    fake.docker.add("python:3")
    monkeypatch.setattr(systemd, "run", fake.run)
    monkeypatch.setattr(venvs, "interpreter_tag", lambda _python: "cp311-x86_64")
    monkeypatch.setattr(containers, "user_of", lambda _service: "994:996")
    return fake


def bring(
    service: LocalService, slot: str = "blue", version: str = "1.0+a", lock: File = LOCK, **different: Any
) -> tuple[Wanted, list[str]]:
    """Have a release of its own VERSION installed; what was wanted and what was made new for it."""
    manifest, data = pack({"requirements.txt": lock, "src/main.py": File(version.encode())}, version, "")
    archive = service.root / "artifact"
    archive.write_bytes(data)
    wanted = Wanted(manifest["id"], {"A": "b c"}, {"api_key": "k3y-of-the-api"}, 2, "docker", "python:3")
    wanted = replace(wanted, **different)
    return wanted, installation.install(service, slot, wanted, 8100, archive, PYTHON)["did"]


def seen(service: LocalService, wanted: Wanted, slot: str = "blue") -> dict[str, Any]:
    return dict(observation.observe(service, "127.0.0.1", 8100, 2, wanted, wanted.runtime)["slots"][slot])


def test_an_image_is_made_once_and_a_slot_is_a_name_of_it(service: LocalService, fake: FakeSystemd) -> None:
    wanted, did = bring(service)
    assert did == ["release", "dependencies", "image", "slot"]
    names, tag = fake.docker.names, wanted.release.replace("+", "_")
    assert names["agent:blue"] == names[f"agent:{tag}"]
    assert (seen(service, wanted)["matches"], seen(service, wanted)["state"]) == (True, "stopped")
    assert bring(service)[1] == []
    assert not service.slot("blue").joinpath("venv").exists()
    assert fake.docker.containers == {}


def test_a_release_of_the_same_lock_reuses_the_dependencies(service: LocalService, fake: FakeSystemd) -> None:
    bring(service)
    assert bring(service, "green", "1.1")[1] == ["release", "image", "slot"]
    assert bring(service, "green", "1.2", OTHER_LOCK)[1] == ["release", "dependencies", "image", "slot"]


def test_dependencies_are_verified_and_nothing_of_the_build_stays(service: LocalService, fake: FakeSystemd) -> None:
    bring(service)
    image = fake.docker.images[fake.docker.names["agent:blue"]]
    dependencies = fake.docker.images[image.base]
    assert "--require-hashes" in dependencies.script
    assert "SSL_CERT_FILE=/tmp/build/authorities.crt" in dependencies.script
    assert dependencies.settings == []
    assert 'ENTRYPOINT ["/opt/agent/venv/bin/python"]' in image.settings
    assert "ENV SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt" in image.settings


def test_a_slot_names_its_variables_and_no_value(service: LocalService, fake: FakeSystemd) -> None:
    bring(service)
    assert (service.slot("blue") / "variables").read_text().split() == ["A", "AGENT_RELEASE", "AGENT_SLOT"]
    assert (service.slot("blue") / "container.env").read_text() == 'CONTAINER_USER="994:996"\n'
    assert not any("k3y" in line for line in fake.said)


def drop_ins(service: LocalService) -> dict[str, str]:
    paths = service.unit_file.parent.glob("*.d/*.conf")
    return {path.parent.name: path.resolve().name for path in paths}


def test_its_units_run_containers_as_long_as_it_is_installed_so(service: LocalService, fake: FakeSystemd) -> None:
    bring(service)
    whole = {
        "agent@blue-1.service.d": "service.conf",
        "agent@blue-2.service.d": "service.conf",
        "agent-migrate@blue.service.d": "migrate.conf",
    }
    assert drop_ins(service) == whole
    reloads = fake.said.count("systemctl daemon-reload")
    bring(service, version="1.1", instances=2)
    assert fake.said.count("systemctl daemon-reload") == reloads
    bring(service, version="1.1", instances=1)
    assert drop_ins(service) == {name: file for name, file in whole.items() if "blue-2" not in name}
    assert fake.said.count("systemctl daemon-reload") == reloads + 1


def test_the_runtime_is_part_of_what_a_slot_runs(service: LocalService, fake: FakeSystemd) -> None:
    inside, _ = bring(service)
    outside = replace(inside, runtime="venv")
    assert seen(service, outside)["matches"] is False
    assert bring(service, runtime="venv")[1] == ["venv", "slot"]
    assert (seen(service, outside)["matches"], seen(service, inside)["matches"]) == (True, False)
    assert drop_ins(service) == {}
    assert "agent:blue" not in fake.docker.names
    assert bring(service)[1] == ["slot"]
    assert seen(service, inside)["matches"]


def test_a_venv_is_the_same_whether_or_not_a_host_can_run_containers(service: LocalService, fake: FakeSystemd) -> None:
    wanted = Wanted("1.0-0123456789ab", {}, {}, 1)
    before = observation.wanted_identity(service, wanted)
    (service.root / "docker/service.conf").write_text("[Service]\nType=simple\n")
    assert observation.wanted_identity(service, replace(wanted, image="python:4")) == before


def test_another_base_or_limit_is_another_image_and_the_other_slot_keeps_its_own(
    service: LocalService, fake: FakeSystemd
) -> None:
    old, _ = bring(service, "blue")
    before = fake.docker.names["agent:blue"]
    fake.docker.add("python:4")
    new, did = bring(service, "green", image="python:4")
    assert did == ["dependencies", "image", "slot"]
    assert fake.docker.names["agent:blue"] == before != fake.docker.names["agent:green"]
    installation.prune(service, 5, [], PYTHON, check=False)
    assert seen(service, old, "blue")["matches"]
    assert seen(service, new, "green")["matches"]
    (service.root / "docker/service.conf").write_text("[Service]\nType=simple\n")
    assert not seen(service, old, "blue")["matches"]


def test_a_missing_image_says_what_mends_it(service: LocalService, fake: FakeSystemd) -> None:
    with pytest.raises(CommandError) as caught:
        bring(service, image="registry.example/python:3")
    told = str(caught.value)
    assert "no such host" in told
    assert "docker save registry.example/python:3 | ssh HOST docker load" in told
    assert "docker import" in told
    assert "agent_docker_image" in told
    fake.docker.registry.add("registry.example/python:3")
    assert bring(service, image="registry.example/python:3")[1] == ["dependencies", "image", "slot"]


@pytest.mark.parametrize("lost", ["agent:blue", "drop-in", "another image"])
def test_damage_is_seen_and_mended(service: LocalService, fake: FakeSystemd, lost: str) -> None:
    wanted, _ = bring(service)
    if lost == "agent:blue":
        del fake.docker.names[lost]
    elif lost == "drop-in":
        next(service.unit_file.parent.glob("agent@blue-2.service.d/*.conf")).unlink()
    else:
        fake.docker.add("agent:blue", Image(labels={"agentfleet.service": "agent"}))
    assert (seen(service, wanted)["matches"], seen(service, wanted)["state"]) == (False, "damaged")
    assert bring(service)[1] == ["slot"]
    assert seen(service, wanted)["matches"]


def test_images_that_nothing_needs_are_removed(service: LocalService, fake: FakeSystemd) -> None:
    blue, _ = bring(service, "blue", "1.0")
    gone, _ = bring(service, "green", "1.1", OTHER_LOCK)
    green, _ = bring(service, "green", "1.2")
    fake.docker.add("agent:of-somebody-else")
    planned = installation.prune(service, 1, [], PYTHON, check=True)
    assert [name for name in planned if name.startswith("images/agent:")] == [f"images/agent:{gone.release}"]
    assert len([name for name in planned if name.startswith("images/agent-dependencies:")]) == 1
    assert installation.prune(service, 1, [], PYTHON, check=False) == planned
    assert installation.prune(service, 1, [], PYTHON, check=False) == []
    left = {"agent:blue", "agent:green", f"agent:{blue.release}", f"agent:{green.release}", "agent:of-somebody-else"}
    assert {name for name in fake.docker.names if name.startswith("agent:")} == left
    assert seen(service, blue, "blue")["matches"]


def test_a_host_is_prepared_for_containers_by_its_role(service: LocalService, fake: FakeSystemd) -> None:
    def prepared(runtime: str) -> bool:
        return bool(observation.observe(service, "127.0.0.1", 8100, 1, None, runtime)["prepared"])

    assert (prepared("venv"), prepared("docker")) == (True, True)
    (service.root / "docker/service.conf").unlink()
    assert (prepared("venv"), prepared("docker")) == (True, False)


@pytest.mark.parametrize(
    ("memory", "cpu", "options"),
    [
        (
            "1G",
            "200%",
            ["--memory=1073741824", "--memory-swap=1073741824", "--cpu-period=100000", "--cpu-quota=200000"],
        ),
        ("50%", "infinity", ["--memory=1048576000", "--memory-swap=1048576000"]),
        ("infinity", "", []),
    ],
)
def test_limits_are_the_units_own(memory: str, cpu: str, options: list[str]) -> None:
    assert containers.limits(memory, cpu, 2000) == options
