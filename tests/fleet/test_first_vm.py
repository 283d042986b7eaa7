"""The way of the README with VMs of one's own, typed as somebody types it who is new: from bare hosts to a service over
HTTPS, through a changed variable and a bad release, to a teardown. Once with each kind of fleet that people have.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support.deploys import appended, committed, kill
from support.fleet import TOP, Fleet
from support.newcomer import KINDS, Newcomer, arrival
from support.ports import answers


@pytest.fixture
def newcomer(
    request: pytest.FixtureRequest, lab: Fleet, model_server: httpx.Client, tmp_path: Path
) -> Iterator[Newcomer]:
    with arrival(lab, request.param, tmp_path) as someone:
        yield someone


def kinds(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("newcomer", [KINDS[name] for name in names], indirect=True, ids=names)


def walk(newcomer: Newcomer) -> None:
    newcomer.begin()
    newcomer.play("site").ok()
    newcomer.play("deploy").ok()
    assert "shop" in newcomer.play("status").ok().stdout
    with newcomer.client() as client:
        answer = newcomer.chat(client).raise_for_status().json()
        assert answer["model"] != "offline"

        again = newcomer.play("site").ok()
        assert set(again.changed().values()) == {0}

        main = newcomer.desk.shop / "group_vars/all/main.yml"
        main.write_text(f"{main.read_text()}\nagent_log_level: debug\n")
        changed = newcomer.play("deploy", "-e", "bake_seconds=0").ok()
        [line] = [line for line in changed.stdout.splitlines() if " changes " in line]
        assert line.endswith("variable AGENT_LOG_LEVEL (new value)")
        newcomer.chat(client).raise_for_status()

        lost = bad_release(newcomer, client)
        newcomer.chat(client).raise_for_status()

    lines = newcomer.play("logs", "-e", f"request_id={lost}").ok().stdout.splitlines()
    assert any("POST /api/chat 500" in line for line in lines), lines


def bad_release(newcomer: Newcomer, client: httpx.Client) -> str:
    """A release that fails some of its users: it is taken back by itself. Gives the id of a request that it failed."""
    clone = newcomer.desk.directory / "bad"
    bad = committed(newcomer.lab, clone, appended((TOP / "tests/support/faulty.py").read_text()))
    before = json.loads(newcomer.play("status", "-e", "status_format=json").ok().stdout)["release"]
    words = {
        "agent_source": str(bad),
        "label": "bad",
        "bake_seconds": 90,
        "agent_environment": {"FAULT": "errors", "FAULT_AFTER": "8"},
    }
    failed: list[str] = []
    over = threading.Event()

    def use() -> None:
        # Within what Nginx lets one client have.
        while not over.wait(0.15):
            answer = newcomer.chat(client)
            if answer.status_code >= 500:
                failed.append(answer.headers["X-Request-Id"])

    user = threading.Thread(target=use)
    user.start()
    try:
        deployed = newcomer.play("deploy", "-e", json.dumps(words))
    finally:
        over.set()
        user.join()
    assert deployed.returncode != 0
    assert "of its requests failed, 1 % may" in deployed.stdout
    after = json.loads(newcomer.play("status", "-e", "status_format=json").ok().stdout)
    assert (after["release"], after["traffic"]) == (before, {before: 1.0})
    return failed[0]


def tear_down(newcomer: Newcomer) -> None:
    newcomer.play("teardown", "-e", "confirm=shop").ok()
    for port in (443, 8080, 8100, 8150):
        assert not answers(newcomer.edge, port)
    # Whoever logged in may still.
    newcomer.on(newcomer.edge, "true").ok()


@kinds("one")
def test_one_vm_that_does_everything(newcomer: Newcomer) -> None:
    walk(newcomer)
    tear_down(newcomer)


@pytest.mark.soak
@kinds("three")
def test_three_vms_whose_sshd_has_another_port(newcomer: Newcomer) -> None:
    walk(newcomer)
    for address in newcomer.addresses:
        newcomer.on(address, "true").ok()
        assert not answers(address, 22)
    tear_down(newcomer)


@pytest.mark.soak
@kinds("three in public")
def test_three_vms_without_a_private_network(newcomer: Newcomer) -> None:
    walk(newcomer)
    tear_down(newcomer)


@pytest.mark.soak
@kinds("beside another site")
def test_a_vm_that_has_another_site_and_a_rule_of_its_own(newcomer: Newcomer) -> None:
    listen = "systemd-run --quiet --collect --unit=blog python3 -m http.server 7000"
    newcomer.lab.on(newcomer.kind.hosts[0], listen).ok()

    def still_there() -> None:
        answer = httpx.get(f"http://{newcomer.edge}/", headers={"Host": "blog.shop.test"})
        assert (answer.status_code, answer.text) == (200, "a blog")
        assert httpx.get(f"http://{newcomer.edge}:7000/").status_code == 200

    still_there()
    walk(newcomer)
    still_there()
    tear_down(newcomer)
    still_there()


@pytest.mark.soak
@kinds("one")
def test_interrupted_at_any_task_a_rerun_finishes(newcomer: Newcomer) -> None:
    newcomer.begin()
    tasks = 0
    finished = False
    while not finished:
        tasks += 12
        finished = interrupted(newcomer, "site", tasks)
    newcomer.play("site").ok()
    assert set(newcomer.play("site").ok().changed().values()) == {0}
    newcomer.play("deploy", "-e", "bake_seconds=0").ok()
    with newcomer.client() as client:
        newcomer.chat(client).raise_for_status()


def interrupted(newcomer: Newcomer, name: str, tasks: int) -> bool:
    """Whether a playbook ended before it was killed, with all that it had started, at that many TASKS."""
    process = subprocess.Popen(
        [*newcomer.desk.prefix, *shlex.split(newcomer.typed[name])],
        cwd=newcomer.desk.directory,
        env=newcomer.desk.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    assert process.stdout
    for line in process.stdout:
        tasks -= line.startswith("TASK [")
        if not tasks:
            kill(process)
            return False
    assert process.wait() == 0
    return True
