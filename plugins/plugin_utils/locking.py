"""Locking the dependencies of an app that has not done so itself: by uv, once for each state of what it asks for."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import (
    REQUIREMENTS,
    ArtifactError,
    File,
    Files,
    unhashed_requirement,
)
from ansible_collections.agentfleet.vm.plugins.module_utils.own_app import PROJECT, project_of
from ansible_collections.agentfleet.vm.plugins.plugin_utils.files import replace
from packaging.specifiers import InvalidSpecifier, SpecifierSet

UV_LOCK = "uv.lock"
# Those of Debian 12 and 13, and what containers may have.
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
COMPILE = ("pip", "compile", "--quiet", "--universal", "--generate-hashes", "--no-header", "--no-annotate")
EXPORT = ("export", "--quiet", "--frozen", "--no-dev", "--no-emit-project", "--no-header", "--no-annotate")
# The app itself is run from its files, not installed.
ITSELF = re.compile(r"(?m)^\s*(-e\s+|--editable[ =])?(\.|file:\.)(\[[^\]]*\])?\s*$")


def is_locked(files: Files) -> bool:
    return REQUIREMENTS in files and not unhashed_requirement(files[REQUIREMENTS].data.decode(errors="replace"))


def lock_source(files: Files) -> str:
    """The file that says what the app needs: its lock by uv, its requirements, its project; or nothing."""
    if UV_LOCK in files and PROJECT in files:
        return UV_LOCK
    if REQUIREMENTS in files:
        return REQUIREMENTS
    return PROJECT if "dependencies" in project_of(files) else ""


def oldest_python(wanted: str) -> str:
    """The oldest Python that WANTED, as of requires-python, allows: a lock is good for it and for newer ones."""
    try:
        return next(python for python in PYTHONS if SpecifierSet(wanted).contains(f"{python}.99"))
    except (InvalidSpecifier, StopIteration):
        return PYTHONS[0]


def command_for(source: str, files: Files) -> list[str]:
    if source == UV_LOCK:
        return [*EXPORT]
    return [*COMPILE, "--python-version", oldest_python(str(project_of(files).get("requires-python", ""))), source]


def told(command: list[str]) -> str:
    """The command that a person types to have the lock in the app itself."""
    words = [word for word in command if word not in ("--quiet", "--no-header", "--no-annotate")]
    return " ".join(["uv", *words, "-o", REQUIREMENTS])


def lock(files: Files, app: str, cache: Path) -> tuple[bytes, str]:
    """The locked dependencies of the app whose FILES these are, and what to tell of it; APP is its directory's name.

    The same files give the same lock on this controller, which keeps it.
    """
    source = lock_source(files)
    if not source:
        raise ArtifactError(
            f"{app} has no {REQUIREMENTS}, and no pyproject.toml with dependencies: make one that names what it"
            " imports, and uvicorn"
        )
    command = command_for(source, files)
    known = cache / "locks" / f"{digest(files, command)}.txt"
    if not known.is_file():
        made = run_uv(files, command, app, source)
        if source == UV_LOCK and unhashed_requirement(made.decode(errors="replace")):
            # What comes from a directory has its version in uv's lock, and no hash.
            pinned = {**files, REQUIREMENTS: File(made)}
            made = run_uv(pinned, command_for(REQUIREMENTS, pinned), app, source)
        replace(known, made)
    note = "" if source == UV_LOCK else f"{source} has no hashes, so it was locked here: {told(command)}, and commit it"
    return known.read_bytes(), note


def digest(files: Files, command: list[str]) -> str:
    total = hashlib.sha256(" ".join(command).encode())
    for name, file in sorted(read_by_uv(files).items()):
        total.update(f"{name} {hashlib.sha256(file.data).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def read_by_uv(files: Files) -> Mapping[str, File]:
    """What can say what the app needs; a project whose dependencies are dynamic may read any file of these kinds."""
    return {name: file for name, file in files.items() if name.endswith((".txt", ".in", ".toml", ".cfg", UV_LOCK))}


def without_itself(name: str, data: bytes) -> bytes:
    return ITSELF.sub("", data.decode(errors="replace")).encode() if name.endswith((".txt", ".in")) else data


def run_uv(files: Files, command: list[str], app: str, source: str) -> bytes:
    beside = Path(sys.executable).with_name("uv")
    uv = str(beside) if beside.exists() else shutil.which("uv")
    if not uv:
        raise ArtifactError(
            f"{source} of {app} has no hashes, and uv, which would lock it, is not on this controller: pip install uv"
        )
    with tempfile.TemporaryDirectory(prefix="agentfleet-lock-") as directory:
        for name, file in read_by_uv(files).items():
            path = Path(directory, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(without_itself(name, file.data))
        done = subprocess.run([uv, *command], cwd=directory, capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        said = done.stderr.decode(errors="replace").replace(f"{directory}/", "").strip()
        raise ArtifactError(f"{source} of {app} cannot be locked: {' '.join(said.split())[:600]}")
    return done.stdout
