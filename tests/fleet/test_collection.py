"""The built archive: clean, and enough to run the playbooks by name from an empty directory."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
from support.fleet import BIN, TOP, Fleet, Result

# What belongs to the checkout alone.
FOREIGN = (
    ".venv",
    ".git",
    ".cache",
    ".build",
    "__pycache__",
    "credentials/",
    "molecule",
    "tests",
    "roles/lab",
    "inventories/lab",
    "lab.yml",
    "lab_hosts.py",
    "requirements/",
    ".pyc",
    "Makefile",
)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory, lab: Fleet) -> Path:
    """What is committed, with the debris of tests beside it."""
    target = tmp_path_factory.mktemp("clone") / "agentfleet"
    lab.run("git", "clone", "--quiet", str(TOP), str(target)).ok()
    for debris in (
        "tests/__pycache__/x.pyc",
        "app/.venv/bin/python",
        "inventories/single/credentials/api_key",
        "a.log",
    ):
        (target / debris).parent.mkdir(parents=True, exist_ok=True)
        (target / debris).write_text("debris")
    return target


@pytest.fixture(scope="module")
def archive(clone: Path, lab: Fleet) -> Path:
    lab.run(str(BIN / "ansible-galaxy"), "collection", "build", "--output-path", str(clone.parent), cwd=clone).ok()
    return next(clone.parent.glob("agentfleet-vm-*.tar.gz"))


def test_archive_holds_what_belongs_and_nothing_else(archive: Path) -> None:
    with tarfile.open(archive) as content:
        names = content.getnames()
    foreign = [
        name for name in names if any(part in name for part in FOREIGN) and not name.startswith("app/migrations")
    ]
    assert foreign == []
    for wanted in (
        "playbooks/site.yml",
        "roles/agent/tasks/main.yml",
        "app/requirements.txt",
        "README.md",
        "meta/runtime.yml",
    ):
        assert wanted in names


@pytest.fixture(scope="module")
def elsewhere(archive: Path, lab: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the installed collection, an inventory and nothing of the checkout."""
    home = tmp_path_factory.mktemp("elsewhere")
    lab.run(
        str(BIN / "ansible-galaxy"),
        *("collection", "install", "--offline", "--no-deps", "--force", "-p", str(home / "collections"), str(archive)),
        cwd=home,
    ).ok()
    return home


def by_name(lab: Fleet, home: Path, playbook: str, *options: str) -> Result:
    command = [str(BIN / "ansible-playbook"), "-i", str(lab.inventory / "hosts.yml"), f"agentfleet.vm.{playbook}"]
    empty = home / "ansible.cfg"
    empty.touch()
    env = {"ANSIBLE_COLLECTIONS_PATH": str(home / "collections"), "ANSIBLE_CONFIG": str(empty), "PYTHONPATH": ""}
    return lab.run(*command, "-e", f"@{lab.variables}", *options, cwd=home, env=env)


@pytest.mark.soak
def test_site_runs_by_name_and_changes_nothing(fleet: Fleet, elsewhere: Path) -> None:
    run = by_name(fleet, elsewhere, "site").ok()
    assert {host: count for host, count in run.changed().items() if count} == {}


@pytest.mark.soak
def test_deploy_by_name_builds_from_the_packaged_tree(fleet: Fleet, elsewhere: Path) -> None:
    run = by_name(fleet, elsewhere, "deploy", "-e", "label=packaged").ok()
    assert "packaged" in run.stdout
    with fleet.client() as client:
        assert client.post("/api/chat", json={"message": "Hello"}).status_code == 200
