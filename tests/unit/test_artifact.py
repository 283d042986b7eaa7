"""The artifact: what goes in, the same bytes, and nothing that is damaged or secret."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.artifact import (
    ArtifactError,
    File,
    belonging,
    check_files,
    files_of_tar,
    files_of_tree,
    pack,
    read_artifact,
    release_id,
    unhashed_requirement,
    unpack,
)
from ansible_collections.agentfleet.vm.plugins.plugin_utils import build as builder

LOCK = b"uvicorn==0.30.0 \\\n    --hash=sha256:" + b"0" * 64 + b"\n"
APP = {
    "requirements.txt": File(LOCK),
    "src/shop/__init__.py": File(b""),
    "src/shop/main.py": File(b"app = None\n"),
    "pyproject.toml": File(b'[project]\nname = "shop"\nversion = "1.2.0"\n'),
    "run": File(b"#!/bin/sh\n", executable=True),
}


def write(top: Path, files: dict[str, File]) -> Path:
    for name, file in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(file.data)
        (top / name).chmod(0o755 if file.executable else 0o644)
    return top


def commit(top: Path) -> None:
    who = ["-c", "user.name=Test", "-c", "user.email=test@example.com"]
    if not (top / ".git").exists():
        subprocess.run(["git", "init", "--quiet", str(top)], check=True)
    subprocess.run(["git", "-C", str(top), "add", "--all", "--force"], check=True)
    subprocess.run(["git", "-C", str(top), *who, "commit", "--quiet", "--message", "State"], check=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    top = write(tmp_path / "checkout", {f"app/{name}": file for name, file in APP.items()})
    write(top, {"app/tests/test_main.py": File(b"")})
    commit(top)
    return top / "app"


def test_same_contents_are_the_same_bytes_and_others_another_id() -> None:
    manifest, data = pack(APP, "1.2.0", "")
    again = dict(reversed(list(APP.items())))
    assert pack(again, "1.2.0", "") == (manifest, data)
    assert manifest["id"].startswith("1.2.0-")
    for change in (
        {"src/shop/main.py": File(b"app = 1\n")},
        {"src/other.py": File(b"")},
        {"run": File(b"#!/bin/sh\n")},
    ):
        assert release_id("1.2.0", "", {**APP, **change}) != manifest["id"]


def test_the_manifest_says_which_migrations_a_release_knows() -> None:
    first = b"revision = '0001'\ndown_revision = None\n"
    second = b"revision = '0002'\ndown_revision = '0001'\ndef upgrade():\n    raise_floor('0001')\n"
    files = {**APP, "migrations/versions/a.py": File(second), "migrations/versions/b.py": File(first)}
    assert pack(files, "1.2.0", "")[0]["schema"] == {"revisions": ["0001", "0002"], "floor": "0001"}
    assert pack(APP, "1.2.0", "")[0]["schema"] == {"revisions": [], "floor": ""}
    with pytest.raises(ArtifactError, match="names no migration"):
        pack({**files, "migrations/versions/b.py": File(first.replace(b"0001", b"0000"))}, "1.2.0", "")


def test_a_label_names_the_release() -> None:
    assert release_id("1.2.0", "spring", APP).startswith("spring-")
    assert release_id("1.2.0 Beta_1", "", APP).startswith("1.2.0-beta-1-")


def test_a_release_is_unpacked_as_it_was(tmp_path: Path) -> None:
    manifest, data = pack(APP, "1.2.0", "")
    assert unpack(data, tmp_path / "release") == manifest
    found = files_of_tree(tmp_path / "release")
    found.pop("release.json")
    assert found == APP


def test_every_flipped_byte_is_noticed() -> None:
    _, data = pack(APP, "1.2.0", "")
    for place in range(10, len(data), 7):
        flipped = bytearray(data)
        flipped[place] ^= 0x40
        try:
            manifest, files = read_artifact(bytes(flipped))
        except ArtifactError:
            continue
        # A byte that means nothing: what comes out is what went in.
        assert (manifest, files) == read_artifact(data)


def archive(member: tarfile.TarInfo, content: bytes = b"") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../evil", "/etc/passwd", "a/../../b"])
def test_paths_that_lead_out_are_refused(name: str) -> None:
    with pytest.raises(ArtifactError, match="leads out"):
        files_of_tar(archive(tarfile.TarInfo(name)))


def test_links_are_refused() -> None:
    link = tarfile.TarInfo("src/link")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with pytest.raises(ArtifactError, match="plain files"):
        files_of_tar(archive(link))


@pytest.mark.parametrize(
    "name",
    [
        "src/.env",
        ".env.production",
        "certs/site.pem",
        "id_rsa",
        "src/id_ed25519",
        "x.key",
        "credentials.json",
        ".pgpass",
    ],
)
def test_what_looks_like_a_secret_is_refused_by_name(name: str) -> None:
    with pytest.raises(ArtifactError, match="looks like a secret"):
        check_files({**APP, name: File(b"")}, "app")


def test_a_private_key_is_refused_whatever_it_is_called() -> None:
    key = b"x\n-----BEGIN " + b"OPENSSH PRIVATE KEY-----\n"
    with pytest.raises(ArtifactError, match=r"src/notes\.txt looks like a secret"):
        check_files({**APP, "src/notes.txt": File(key)}, "app")


def test_an_example_of_an_environment_is_no_secret() -> None:
    check_files({**APP, ".env.example": File(b"KEY=\n")}, "app")


@pytest.mark.parametrize(
    ("lock", "unhashed"),
    [
        (LOCK.decode(), ""),
        ("# comment\n\n" + LOCK.decode() + "    # via shop\n", ""),
        ("uvicorn==0.30.0\n", "uvicorn==0.30.0"),
        ("uvicorn>=0.30 --hash=sha256:00\n", "uvicorn>=0.30"),
        ("-e .\n", "-e"),
        ("--index-url https://example.com\n" + LOCK.decode(), "--index-url"),
    ],
)
def test_a_lock_is_hashed_to_its_last_line(lock: str, unhashed: str) -> None:
    assert unhashed_requirement(lock) == unhashed


def test_no_lock_is_refused() -> None:
    files = {name: file for name, file in APP.items() if name != "requirements.txt"}
    with pytest.raises(ArtifactError, match=r"has no requirements\.txt"):
        check_files(files, "app")


def test_git_and_the_packaged_tree_make_the_same_release(checkout: Path, tmp_path: Path) -> None:
    files = {name: file for name, file in APP.items() if name != "run"}
    (checkout / "run").unlink()
    commit(checkout.parent)
    packaged = write(tmp_path / "packaged", {**files, "tests/x.py": File(b""), ".venv/bin/python": File(b"")})
    one = builder.build(checkout, [], "", tmp_path / "cache", check=False)
    two = builder.build(packaged, [], "", tmp_path / "other", check=False)
    assert one["release"]["sha256"] == two["release"]["sha256"]
    assert Path(one["path"]).read_bytes() == Path(two["path"]).read_bytes()
    assert (one["release"]["version"], len(one["release"]["commit"])) == ("1.2.0", 40)


def test_only_what_is_committed_is_built_and_the_rest_is_told(checkout: Path, tmp_path: Path) -> None:
    before = builder.build(checkout, [], "", tmp_path, check=False)
    assert before["uncommitted"] == []
    (checkout / "src/shop/main.py").write_text("app = 2\n")
    (checkout / "src/.env").write_text("KEY=1\n")
    after = builder.build(checkout, [], "", tmp_path, check=False)
    assert after["release"]["id"] == before["release"]["id"]
    assert not after["changed"]
    assert sorted(after["uncommitted"]) == ["app/src/.env", "app/src/shop/main.py"]


def test_a_commit_elsewhere_is_the_same_release(checkout: Path, tmp_path: Path) -> None:
    before = builder.build(checkout, [], "", tmp_path, check=False)
    (checkout.parent / "README.md").write_text("more\n")
    commit(checkout.parent)
    assert builder.build(checkout, [], "", tmp_path, check=False)["release"]["id"] == before["release"]["id"]


def test_an_app_that_git_does_not_know_yet_is_refused(checkout: Path, tmp_path: Path) -> None:
    fresh = write(checkout.parent / "other", dict(APP))
    with pytest.raises(ArtifactError, match="commit the app first"):
        builder.build(fresh, [], "", tmp_path, check=False)


def test_an_ignored_directory_counts_as_packaged(checkout: Path, tmp_path: Path) -> None:
    (checkout.parent / ".gitignore").write_text("/collections/\n")
    packaged = write(checkout.parent / "collections/app", dict(APP))
    assert builder.build(packaged, [], "", tmp_path, check=False)["release"]["commit"] == ""


def test_a_secret_beside_the_sources_of_a_packaged_tree_is_refused(tmp_path: Path) -> None:
    packaged = write(tmp_path / "packaged", {**APP, "src/shop/.env": File(b"KEY=1\n")})
    with pytest.raises(ArtifactError, match=r"src/shop/\.env looks like a secret"):
        builder.build(packaged, [], "", tmp_path / "cache", check=False)


def test_include_says_what_belongs() -> None:
    files = {**APP, "prompts/a.md": File(b""), "docs/b.md": File(b""), "notes/c.md": File(b"")}
    assert "prompts/a.md" not in belonging(files, [], tracked=False)
    assert {"prompts/a.md", "notes/c.md"} <= belonging(files, [], tracked=True).keys()
    assert set(belonging(files, ["prompts", "docs", "requirements.txt"], tracked=True)) == {
        "prompts/a.md",
        "docs/b.md",
        "requirements.txt",
    }


def test_check_mode_keeps_nothing(checkout: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    would = builder.build(checkout, [], "", cache, check=True)
    assert (would["changed"], would["available"], would["path"], cache.exists()) == (True, True, "", False)
    assert builder.build(checkout, [], "", cache, check=False)["release"]["id"] == would["release"]["id"]


JUNIT = """<testsuites><testsuite tests="4" failures="1">
<testcase name="a"/><testcase name="b"><failure/></testcase><testcase name="c"><skipped/></testcase><testcase name="d"/>
</testsuite></testsuites>"""


def test_the_proof_of_the_tests_stays_beside_the_artifact_and_changes_nothing_of_it(
    checkout: Path, tmp_path: Path
) -> None:
    plain = builder.build(checkout, [], "", tmp_path, check=False)
    assert "proof" not in plain["release"]
    (checkout / "junit.xml").write_text(JUNIT)
    proven = builder.build(checkout, [], "", tmp_path, check=False, proof="junit.xml")
    proof = proven["release"]["proof"]
    assert (proof["tests"], proof["failed"], proof["older"], len(proof["sha256"])) == (3, 1, False, 64)
    assert proven["uncommitted"] == []
    assert (proven["release"]["id"], proven["release"]["sha256"]) == (
        plain["release"]["id"],
        plain["release"]["sha256"],
    )
    # Whoever deploys what was built, by its id or from the same code, has it as well.
    assert builder.find(plain["release"]["id"], tmp_path)["release"]["proof"] == proof
    (checkout / "junit.xml").unlink()
    again = builder.build(checkout, [], "", tmp_path, check=False)
    assert (again["changed"], again["release"]["proof"]) == (False, proof)


def test_a_proof_that_is_old_missing_or_of_another_form_is_told_as_it_is(checkout: Path, tmp_path: Path) -> None:
    def proof(name: str) -> dict[str, object]:
        return dict(builder.build(checkout, [], "", tmp_path, check=True, proof=name)["release"]["proof"])

    assert proof("none.xml") == {"file": "none.xml", "sha256": ""}
    (tmp_path / "log.txt").write_text("all is well\n")
    assert (proof(str(tmp_path / "log.txt"))["tests"], proof(str(tmp_path / "log.txt"))["older"]) == (None, False)
    os.utime(tmp_path / "log.txt", (0, 0))
    assert proof(str(tmp_path / "log.txt"))["older"] is True


def test_a_label_is_a_plain_word(checkout: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"label=\.\./\.\./etc"):
        builder.build(checkout, [], "../../etc", tmp_path, check=False)


def test_artifacts_are_found_by_path_and_by_id(checkout: Path, tmp_path: Path) -> None:
    made = builder.build(checkout, [], "", tmp_path, check=False)
    name = made["release"]["id"]
    assert builder.find(name, tmp_path)["release"] == made["release"]
    assert builder.find(made["path"], tmp_path / "none")["path"] == os.path.realpath(made["path"])
    absent = builder.find(name, tmp_path / "none")
    assert (absent["available"], absent["path"]) == (False, "")
    with pytest.raises(ArtifactError, match="neither a file"):
        builder.find("/nowhere.tar.gz", tmp_path)
    broken = bytearray(Path(made["path"]).read_bytes())
    broken[len(broken) // 2] ^= 0xFF
    Path(made["path"]).write_bytes(bytes(broken))
    with pytest.raises(ArtifactError, match=f"{name}.tar.gz is damaged"):
        builder.find(name, tmp_path)


def test_the_agent_service_is_the_same_release_from_a_checkout_and_from_an_installed_collection(tmp_path: Path) -> None:
    top = Path(__file__).resolve().parents[2]
    packaged = subprocess.run(["git", "-C", str(top / "app"), "archive", "HEAD"], check=True, capture_output=True)
    tree = write(tmp_path / "app", files_of_tar(packaged.stdout))
    one = builder.build(top / "app", [], "", tmp_path / "one", check=False)
    two = builder.build(tree, [], "", tmp_path / "two", check=False)
    assert one["release"]["sha256"] == two["release"]["sha256"]
    assert one["release"]["bytes"] < 1_000_000


def test_hosts_get_the_uv_that_the_tools_have() -> None:
    top = Path(__file__).resolve().parents[2]
    assert (top / "roles/agent/files/uv.txt").read_text() == (top / "requirements/uv.txt").read_text()
