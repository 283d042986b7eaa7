"""An app of one's own: what keeps it from being a release, and locking what it needs."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.filter.deploy import with_python
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import ArtifactError, File, read_artifact
from ansible_collections.agentfleet.vm.plugins.module_utils.own_app import refuse_app
from ansible_collections.agentfleet.vm.plugins.module_utils.plan import Agent
from ansible_collections.agentfleet.vm.plugins.plugin_utils import build
from ansible_collections.agentfleet.vm.plugins.plugin_utils.locking import oldest_python

LOCK = b"uvicorn==0.54.0 \\\n    --hash=sha256:00\n"
FLAT = {"requirements.txt": File(LOCK), "shop/__init__.py": File(b""), "shop/main.py": File(b"app = 1\n")}


def test_an_app_is_found_where_python_finds_it() -> None:
    assert refuse_app(FLAT, "shop.main:app", "") == ""
    assert refuse_app(FLAT, "shop:app", "") == ""
    assert refuse_app({"requirements.txt": File(LOCK), "src/shop/main.py": File(b"")}, "shop.main:app", "") == ""
    assert refuse_app({"requirements.txt": File(LOCK), "main.py": File(b"")}, "main:app.api", "") == ""
    # The app of a package that is installed.
    packaged = {"requirements.txt": File(LOCK + b"my-shop[pg]==1.0 --hash=sha256:00\n")}
    assert refuse_app(packaged, "my_shop.main:app", "") == ""


@pytest.mark.parametrize(
    ("app", "migrate", "told"),
    [
        ("shop/main.py", "", "agent_app must be package.module:app"),
        ("shop.main", "", "agent_app must be package.module:app"),
        ("shop.mian:app", "", "the release has no shop/mian.py; did you mean shop.main:app?"),
        ("store.main:app", "", "the release has no store/main.py; did you mean shop.main:app?"),
        ("main:app", "", "did you mean shop.main:app?"),
        ("quite.another:app", "", "the release has no quite/another.py; is it committed?"),
        (
            "shop.main:app",
            "alembic upgrade head",
            'the release has no alembic.ini: commit it, or set agent_migrate_command: ""',
        ),
    ],
)
def test_what_cannot_run_is_told_with_what_mends_it(app: str, migrate: str, told: str) -> None:
    assert told in refuse_app(FLAT, app, migrate)


def test_what_runs_the_app_is_among_what_it_needs() -> None:
    without = {**FLAT, "requirements.txt": File(b"fastapi==1.0 --hash=sha256:00\n")}
    assert refuse_app(without, "shop.main:app", "").startswith("uvicorn, which runs the app, is not among")


def test_a_host_with_another_python_is_refused() -> None:
    agent = Agent("agent1")
    assert with_python(agent, "3.11.2", ">=3.11.1") == agent
    assert with_python(agent, "3.11.2", "") == agent
    assert with_python(agent, "", ">=3.13") == agent
    told = with_python(agent, "3.11.2", ">=3.12,<4").problem
    assert told.startswith("agent1 has Python 3.11.2, and the release wants >=3.12,<4 (pyproject.toml)")


@pytest.mark.parametrize(
    ("wanted", "python"),
    [("", "3.11"), (">=3.9", "3.11"), (">=3.12", "3.12"), ("~=3.13.1", "3.13"), ("<3.9", "3.11"), ("nonsense", "3.11")],
)
def test_a_lock_is_good_for_the_oldest_python_that_may_run_it(wanted: str, python: str) -> None:
    assert oldest_python(wanted) == python


# Locking


def wheel(directory: Path, name: str, version: str) -> None:
    info = f"{name}-{version}.dist-info"
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        archive.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr(f"{info}/RECORD", "")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """All the packages there are."""
    directory = tmp_path / "index"
    directory.mkdir()
    for name, version in (("uvicorn", "0.1"), ("uvicorn", "0.2"), ("httpy", "1.0")):
        wheel(directory, name, version)
    (tmp_path / "uv.toml").write_text(f'no-index = true\nfind-links = ["{directory}"]\n')
    monkeypatch.setenv("UV_CONFIG_FILE", str(tmp_path / "uv.toml"))
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache-of-uv"))
    return directory


def app_of(directory: Path, **files: str) -> Path:
    directory.mkdir()
    (directory / "shop.py").write_text("app = 1\n")
    for name, text in files.items():
        (directory / name.replace("__", ".")).write_text(text)
    for words in (
        ["init", "--quiet"],
        ["add", "."],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "1"],
    ):
        subprocess.run(["git", "-C", str(directory), *words], check=True)
    return directory


def built(app: Path, cache: Path) -> tuple[str, dict[str, object]]:
    made = build.build(app, [], "", cache, False, runs=("shop:app", ""))
    archive = Path(str(made["path"])).read_bytes()
    return read_artifact(archive)[1]["requirements.txt"].data.decode(), made


def test_requirements_without_hashes_are_locked_once(index: Path, tmp_path: Path) -> None:
    app = app_of(tmp_path / "shop", requirements__txt="-e .\nuvicorn\nhttpy==1.0\n")
    lock, made = built(app, tmp_path / "kept")
    assert lock.startswith("httpy==1.0 \\\n    --hash=sha256:")
    assert "uvicorn==0.2 \\\n    --hash=sha256:" in lock
    assert "uv pip compile --universal --generate-hashes --python-version 3.11 requirements.txt" in str(made["note"])
    # Another version that came meanwhile makes no other release of the same commit.
    wheel(index, "uvicorn", "0.3")
    again, remade = built(app, tmp_path / "kept")
    assert (again, remade["changed"]) == (lock, False)
    elsewhere, _ = built(app, tmp_path / "elsewhere")
    assert "uvicorn==0.3" in elsewhere


def test_a_project_says_what_it_needs(index: Path, tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\nversion = "2.1"\nrequires-python = ">=3.12"\ndependencies = ["uvicorn<0.2"]\n'
    lock, made = built(app_of(tmp_path / "shop", pyproject__toml=project), tmp_path / "kept")
    assert lock.startswith("uvicorn==0.1")
    release = made["release"]
    assert isinstance(release, dict)
    assert (release["version"], release["python"]) == ("2.1", ">=3.12")


def test_what_uv_locked_is_taken_as_it_is(index: Path, tmp_path: Path) -> None:
    project = '[project]\nname = "shop"\nversion = "2.1"\nrequires-python = ">=3.11"\ndependencies = ["uvicorn"]\n'
    app = app_of(tmp_path / "shop", pyproject__toml=project)
    subprocess.run(["uv", "lock", "--quiet"], cwd=app, check=True)
    subprocess.run(["git", "-C", str(app), "add", "uv.lock"], check=True)
    subprocess.run(
        ["git", "-C", str(app), "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "2"], check=True
    )
    wheel(index, "uvicorn", "0.3")
    lock, made = built(app, tmp_path / "kept")
    assert "uvicorn==0.2" in lock
    assert made["note"] == ""


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "has no requirements.txt, and no pyproject.toml with dependencies"),
        ({"requirements__txt": "nowhere==1.0\n"}, "requirements.txt of .* cannot be locked: .*nowhere"),
        ({"requirements__txt": "httpy\n"}, "uvicorn, which runs the app, is not among its dependencies"),
    ],
)
def test_what_cannot_be_locked_is_told(index: Path, tmp_path: Path, files: dict[str, str], told: str) -> None:
    with pytest.raises(ArtifactError, match=told):
        built(app_of(tmp_path / "shop", **files), tmp_path / "kept")
    assert not list((tmp_path / "kept").glob("*.tar.gz"))
