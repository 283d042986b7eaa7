"""The artifact of a release: which files belong to it, its id, its bytes, and unpacking it again.

The id holds a digest of the files' contents, so the same contents are the same release on any controller,
and whoever unpacks an artifact can tell whether it is the release that it is called.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import tarfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

from ansible_collections.agentfleet.vm.plugins.module_utils.schema import Schema, SchemaError, schema_of

MANIFEST = "release.json"
GZIP = b"\x1f\x8b"
REQUIREMENTS = "requirements.txt"
LABEL = re.compile(r"^[a-z0-9][a-z0-9.-]{0,30}$")

# Tracked beside an app, of no use where it runs.
NOT_SHIPPED = (".*", "tests", "test", "docs", "requirements-*.txt", "requirements*.in", "*.lock")
# What is taken from a tree that no version control describes; packages (with an __init__.py) belong as well.
BELONGS = ("src", "migrations", "alembic.ini", REQUIREMENTS, "pyproject.toml", "README.md", "*.py")
NEVER = ("__pycache__", "*.pyc", "*.pyo", ".git", ".DS_Store")
SECRET_NAMES = (
    ".env",
    ".env.*",
    "*.env",
    "*.pem",
    "*.key",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.kdbx",
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    ".netrc",
    ".pgpass",
    ".htpasswd",
    ".vault*",
    "vault_pass*",
    "credentials.json",
    "service-account*.json",
)
SECRET_EXAMPLES = (".env.example", ".env.sample", ".env.template")
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")


class ArtifactError(Exception):
    """Why there is no artifact, in one line with what mends it."""


@dataclass(frozen=True)
class File:
    """One file of a release."""

    data: bytes
    executable: bool = False


Files = Mapping[str, File]


def matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def files_of_tar(archive: bytes) -> dict[str, File]:
    """The files of an archive; what is neither file nor directory, or leads out of it, is refused."""
    files = {}
    try:
        # All of it first: an archive's checksum is behind its last byte, which the tar's end may come before.
        plain = gzip.decompress(archive) if archive.startswith(GZIP) else archive
        with tarfile.open(fileobj=io.BytesIO(plain)) as tar:
            for member in tar:
                path = PurePosixPath(member.name)
                if path.is_absolute() or ".." in path.parts:
                    raise ArtifactError(f"{member.name} leads out of the archive")
                if member.isdir():
                    continue
                content = tar.extractfile(member) if member.isreg() else None
                if content is None:
                    raise ArtifactError(f"{member.name} is a link or a device; a release holds plain files")
                files[str(path)] = File(content.read(), bool(member.mode & 0o100))
    except (tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise ArtifactError(f"not a readable archive: {error}") from error
    return files


def files_of_tree(top: Path, leave_out: Iterable[str] = ()) -> dict[str, File]:
    """All files below TOP, but for caches and for what lies at the top and is to be left out."""
    skipped = tuple(leave_out)
    files = {}
    for entry in sorted(top.iterdir()):
        if matches(entry.name, skipped):
            continue
        for path in [entry, *(sorted(entry.rglob("*")) if entry.is_dir() else [])]:
            relative = path.relative_to(top)
            if any(matches(part, NEVER) for part in relative.parts):
                continue
            if path.is_symlink():
                raise ArtifactError(f"{path} is a link; a release holds plain files")
            if path.is_file():
                files[relative.as_posix()] = File(path.read_bytes(), bool(path.stat().st_mode & 0o100))
    return files


def belonging(files: Files, include: Iterable[str], tracked: bool) -> dict[str, File]:
    """The files that make the release: those in INCLUDE, else what is tracked, else what is known to belong."""
    wanted = tuple(include)
    if not wanted and not tracked:
        packages = {name.split("/")[0] for name in files if name.count("/") == 1 and name.endswith("/__init__.py")}
        wanted = (*BELONGS, *packages)
    chosen = {}
    for name, file in files.items():
        top = name.split("/")[0]
        if matches(name, NEVER) or (matches(top, NOT_SHIPPED) and top not in wanted):
            continue
        if not wanted or matches(top, wanted) or name in wanted or any(name.startswith(f"{w}/") for w in wanted):
            chosen[name] = file
    return chosen


def secret_in(files: Files) -> str:
    """The first file that looks like a secret, or nothing."""
    for name in sorted(files):
        base = name.rsplit("/", 1)[-1]
        if matches(base, SECRET_NAMES) and base not in SECRET_EXAMPLES:
            return name
        if PRIVATE_KEY.search(files[name].data):
            return name
    return ""


def unhashed_requirement(text: str) -> str:
    """The first requirement of a lock that is not pinned by hash, or nothing."""
    for line in re.sub(r"\\\r?\n", " ", text).splitlines():
        requirement = re.sub(r"(^|\s)#.*", "", line).strip()
        if not requirement:
            continue
        if requirement.startswith("-") or "==" not in requirement or "--hash=sha256:" not in requirement:
            return requirement.split(" ")[0][:80]
    return ""


def lock_digest(requirements: bytes) -> str:
    """Names the dependencies of a release: releases with the same lock share an environment."""
    return hashlib.sha256(requirements).hexdigest()[:12]


def content_digest(files: Files) -> str:
    """Digest of what the files are called and hold; the manifest is derived and does not count."""
    total = hashlib.sha256()
    for name in sorted(files):
        if name != MANIFEST:
            digest = hashlib.sha256(files[name].data).hexdigest()
            total.update(f"{digest} {int(files[name].executable)} {name}\n".encode())
    return total.hexdigest()[:12]


def release_id(version: str, label: str, files: Files) -> str:
    """<label, else version>-<digest of the content>."""
    name = label or re.sub(r"[^a-z0-9.+-]+", "-", version.lower()).strip("-.+") or "0"
    return f"{name[:40]}-{content_digest(files)}"


def check_files(files: Files, source: str) -> None:
    """Refuse what must not become a release."""
    if REQUIREMENTS not in files:
        raise ArtifactError(f"{source} has no {REQUIREMENTS}: uv pip compile --universal --generate-hashes makes it")
    secret = secret_in(files)
    if secret:
        raise ArtifactError(f"{source}/{secret} looks like a secret: take it out, and give secrets in agent_secrets")
    unhashed = unhashed_requirement(files[REQUIREMENTS].data.decode(errors="replace"))
    if unhashed:
        raise ArtifactError(
            f"{source}/{REQUIREMENTS}: {unhashed} is not pinned by a hash: uv pip compile --universal --generate-hashes"
        )


def schema_in(files: Files) -> Schema:
    """The migrations that a release knows."""
    try:
        return schema_of({name: file.data for name, file in files.items()})
    except SchemaError as error:
        raise ArtifactError(str(error)) from error


def pack(files: Files, version: str, label: str) -> tuple[dict[str, Any], bytes]:
    """The manifest and the artifact's bytes; the same contents give the same bytes."""
    manifest = {
        "id": release_id(version, label, files),
        "version": version,
        "label": label,
        "lock": lock_digest(files[REQUIREMENTS].data),
        "schema": schema_in(files).to_dict(),
    }
    entries = {**files, MANIFEST: File((json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode())}
    buffer = io.BytesIO()
    # Order, owner, times and modes are ours: nothing of the machine that builds gets into the bytes.
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(entries):
            member = tarfile.TarInfo(name)
            member.size = len(entries[name].data)
            member.mode = 0o755 if entries[name].executable else 0o644
            tar.addfile(member, io.BytesIO(entries[name].data))
    return manifest, gzip.compress(buffer.getvalue(), compresslevel=9, mtime=0)


def read_artifact(archive: bytes) -> tuple[dict[str, Any], dict[str, File]]:
    """Manifest and files of an artifact whose contents are what its id says."""
    files = files_of_tar(archive)
    try:
        manifest = json.loads(files.pop(MANIFEST).data)
        named, lock = str(manifest["id"]), str(manifest["lock"])
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"no release: {MANIFEST} is missing or damaged") from error
    if REQUIREMENTS not in files or lock != lock_digest(files[REQUIREMENTS].data):
        raise ArtifactError(f"release {named}: {REQUIREMENTS} is not the one it was built with")
    if named.rsplit("-", 1)[-1] != content_digest(files):
        raise ArtifactError(f"release {named}: its contents are not what its id says")
    return manifest, files


def unpack(archive: bytes, target: Path) -> dict[str, Any]:
    """Write the files of a verified artifact below TARGET, which must not exist yet."""
    manifest, files = read_artifact(archive)
    target.mkdir(mode=0o755)
    directories = {parent for name in files for parent in PurePosixPath(name).parents}
    for directory in sorted(directories):
        (target / directory).mkdir(mode=0o755, exist_ok=True)
    for name, file in {**files, MANIFEST: File(json.dumps(manifest, indent=2).encode() + b"\n")}.items():
        path = target / name
        path.write_bytes(file.data)
        path.chmod(0o755 if file.executable else 0o644)
    return manifest
