"""Making a release's artifact on the controller, and finding one that was made before."""

from __future__ import annotations

import getpass
import hashlib
import json
import os
import socket
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from dataclasses import replace as changed
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from ansible_collections.agentfleet.vm.plugins.module_utils import artifact as made
from ansible_collections.agentfleet.vm.plugins.module_utils import own_app
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import ArtifactError, File
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import RELEASE_ID
from ansible_collections.agentfleet.vm.plugins.plugin_utils import locking
from ansible_collections.agentfleet.vm.plugins.plugin_utils.files import replace

COLLECTION = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Source:
    """An app's files, and what is known of where they come from."""

    files: Mapping[str, File]
    commit: str = ""
    committed_at: float = 0.0
    uncommitted: tuple[str, ...] = ()
    # Says what the app needs, and is of no use where it runs.
    beside: Mapping[str, File] = field(default_factory=dict)


def default_cache() -> Path:
    """The checkout's own cache; an installed collection may be read-only or replaced, so it has the user's."""
    return COLLECTION / ".build" if (COLLECTION / ".git").exists() else Path.home() / ".cache" / "agentfleet"


def builder() -> str:
    """Who works on this controller."""
    return f"{getpass.getuser()}@{socket.gethostname()}"


def git(directory: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    settings = {**os.environ, "LC_ALL": "C.UTF-8", "GIT_OPTIONAL_LOCKS": "0"}
    try:
        return subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            check=False,
            env=settings,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise ArtifactError("git is not installed on this controller: apt install git") from error


def said(done: subprocess.CompletedProcess[bytes]) -> str:
    """Git's reason; the first line names it, the others advise."""
    return next(iter(done.stderr.decode(errors="replace").strip().splitlines()), f"exit status {done.returncode}")


def tracked(directory: Path) -> bool:
    """Whether DIRECTORY is part of a git checkout, not merely somewhere below one that ignores it."""
    if not any((parent / ".git").exists() for parent in (directory, *directory.parents)):
        return False
    inside = git(directory, "rev-parse", "--is-inside-work-tree")
    if inside.returncode:
        raise ArtifactError(f"{directory}: {said(inside)}")
    return git(directory, "check-ignore", "--quiet", ".").returncode != 0


def read_source(directory: Path, include: Sequence[str]) -> Source:
    """What makes the release: from git's last commit, else from the tree as it lies there."""
    if not directory.is_dir():
        raise ArtifactError(f"there is no directory {directory} on this controller (agent_source)")
    if not tracked(directory):
        left_out = [pattern for pattern in made.NOT_SHIPPED if pattern not in include]
        files = made.belonging(made.files_of_tree(directory, left_out), include, tracked=False)
        own = directory / locking.UV_LOCK
        return Source(files, beside={locking.UV_LOCK: File(own.read_bytes())} if own.is_file() else {})
    archive = git(directory, "archive", "--format=tar", "HEAD")
    if archive.returncode:
        raise ArtifactError(f"git archive HEAD in {directory}: {said(archive)}; commit the app first")
    tracked_files = made.files_of_tar(archive.stdout)
    files = made.belonging(tracked_files, include, tracked=True)
    if not files:
        raise ArtifactError(f"git has no files of {directory} in its last commit: commit the app first")
    status = git(directory, "status", "--porcelain", "--", ".").stdout.decode(errors="replace")
    return Source(
        files=files,
        commit=git(directory, "rev-parse", "HEAD").stdout.decode().strip(),
        committed_at=float(git(directory, "log", "-1", "--format=%ct").stdout.decode().strip() or 0),
        uncommitted=tuple(line[3:] for line in status.splitlines()),
        beside={name: file for name, file in tracked_files.items() if name not in files},
    )


def version_of(files: Mapping[str, File]) -> str:
    """The app's version by its own pyproject.toml."""
    return str(own_app.project_of(files).get("version", "0"))


def read_proof(path: Path, committed_at: float) -> dict[str, Any]:
    """What the file that an app's tests wrote says: its digest, and of JUnit's form how many ran and how many failed.

    COMMITTED_AT tells whether it can be about the code that is released.
    """
    try:
        data, written_at = path.read_bytes(), path.stat().st_mtime
    except OSError:
        return {"file": path.name, "sha256": ""}
    return {
        "file": path.name,
        "sha256": hashlib.sha256(data).hexdigest(),
        "older": written_at < committed_at,
        **counted(data),
    }


def counted(data: bytes) -> dict[str, int | None]:
    """Tests and failures of JUnit's XML; none of a file of another form."""
    try:
        top = ElementTree.fromstring(data)
    except ElementTree.ParseError:
        return {"tests": None, "failed": None}
    cases = list(top.iter("testcase"))
    failed = [case for case in cases if case.find("failure") is not None or case.find("error") is not None]
    skipped = [case for case in cases if case.find("skipped") is not None]
    return {"tests": len(cases) - len(skipped), "failed": len(failed)}


def describe(manifest: Mapping[str, Any], data: bytes, source: Source) -> dict[str, Any]:
    """What is told and kept beside the artifact; not inside, where it would make its bytes differ by builder."""
    return {
        **manifest,
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
        "files": len(source.files),
        "commit": source.commit,
        "built_by": builder(),
        "python": str(own_app.project_of(source.files).get("requires-python", "")),
    }


def keep(cache: Path, description: Mapping[str, Any], data: bytes) -> tuple[Path, bool]:
    """Path of the artifact in the cache, and whether it was not there before."""
    path = cache / f"{description['id']}.tar.gz"
    known = kept_description(path, description["sha256"])
    if path.is_file() and path.read_bytes() == data and known and known.get("proof") == description.get("proof"):
        return path, False
    replace(cache / f"{description['id']}.json", (json.dumps(description, indent=2) + "\n").encode())
    replace(path, data)
    return path, True


def build(
    source: Path,
    include: Sequence[str],
    label: str,
    cache: Path,
    check: bool,
    proof: str = "",
    runs: tuple[str, str] | None = None,
) -> dict[str, Any]:
    """One artifact of the app, kept in the cache; RUNS is its ASGI path and its migration, which are looked for in it.

    PROOF, below the app's directory unless absolute, is described beside it: inside, another run of the same tests
    would make other bytes of the same release.
    """
    if label and not made.LABEL.match(label):
        raise ArtifactError(f"label={label}: at most 31 lower-case letters, digits, dots or dashes")
    app, note = locked(read_source(source, include), source, cache)
    made.check_files(app.files, str(source))
    wrong = own_app.refuse_app(app.files, *runs) if runs else ""
    if wrong:
        raise ArtifactError(wrong)
    manifest, data = made.pack(app.files, version_of(app.files), label)
    description = describe(manifest, data, app)
    before = kept_description(cache / f"{description['id']}.tar.gz", description["sha256"]) or {}
    if proof:
        description["proof"] = read_proof(source / Path(proof).expanduser(), app.committed_at)
    elif before.get("proof"):
        description["proof"] = before["proof"]
    # The proof lies where the tests wrote it; nobody wants it committed.
    left = [name for name in app.uncommitted if not proof or Path(name).name != Path(proof).name]
    result: dict[str, Any] = {"release": description, "available": True, "uncommitted": left, "note": note}
    if check:
        path = cache / f"{description['id']}.tar.gz"
        return {**result, "changed": not path.is_file(), "path": str(path) if path.is_file() else ""}
    path, changed = keep(cache, description, data)
    return {**result, "changed": changed, "path": str(path)}


def locked(app: Source, directory: Path, cache: Path) -> tuple[Source, str]:
    """The app with its dependencies pinned by hash, and what to tell where this controller had to do that."""
    if locking.is_locked(app.files):
        return app, ""
    lock, note = locking.lock({**app.beside, **app.files}, str(directory), cache)
    return changed(app, files={**app.files, made.REQUIREMENTS: File(lock)}), note


def find(artifact: str, cache: Path) -> dict[str, Any]:
    """An artifact that was made before: a file, or the id of one in the cache; its path is empty when not there."""
    path = Path(artifact).expanduser()
    if not path.is_file():
        if not RELEASE_ID.match(artifact):
            raise ArtifactError(f"artifact={artifact} is neither a file on this controller nor a release's id")
        path = cache / f"{artifact}.tar.gz"
        if not path.is_file():
            return {"changed": False, "path": "", "available": False, "release": {"id": artifact}, "uncommitted": []}
    data = path.read_bytes()
    try:
        manifest, files = made.read_artifact(data)
    except ArtifactError as error:
        raise ArtifactError(f"artifact {path} is damaged: {error}; build it again") from error
    description = describe(manifest, data, Source(files))
    return {
        "changed": False,
        "path": str(path.resolve()),
        "available": True,
        "release": kept_description(path, description["sha256"]) or description,
        "uncommitted": [],
    }


def kept_description(path: Path, sha256: str) -> dict[str, Any] | None:
    """What was noted of an artifact when it was built, if that is beside it."""
    try:
        known = json.loads(path.with_name(f"{path.name.removesuffix('.tar.gz')}.json").read_text())
    except (OSError, ValueError):
        return None
    return known if isinstance(known, dict) and known.get("sha256") == sha256 else None
