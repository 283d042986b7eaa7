"""A package from somebody else's repository: whose key it is, what apt is asked, what its answers mean. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

# What apt says of a repository that answers, and is not who it should be.
DISTRUST = re.compile(r"NO_PUBKEY|BADSIG|KEYSIG|is not signed|signatures? (couldn't|were)|OpenPGP signature|Signed-By")
PUBLIC_KEY = 6
SECONDS = 10


class PackageError(Exception):
    """One line for the user: what is wrong, and what mends it."""


class Away(Exception):
    """Why the repository cannot be had now."""


def fingerprints(key: bytes) -> list[str]:
    """Of the primary keys in a file of public keys, armored or not."""
    return [fingerprint(body) for tag, body in packets(unarmored(key)) if tag == PUBLIC_KEY]


def unarmored(key: bytes) -> bytes:
    if b"-----BEGIN PGP PUBLIC KEY BLOCK-----" not in key:
        return key
    found = b""
    for block in re.findall(rb"BEGIN PGP PUBLIC KEY BLOCK-----(.*?)-----END PGP", key, re.DOTALL):
        # Headers end with an empty line; what follows an equals sign at a line's beginning is a checksum.
        body = re.sub(rb"\r", b"", block).partition(b"\n\n")[2]
        try:
            found += base64.b64decode(re.sub(rb"(?m)^=.*$", b"", body))
        except binascii.Error:
            return b""
    return found


def packets(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Tag and body of each packet (RFC 9580, 4.2); ends where what follows is none."""
    place = 0
    while place + 1 < len(data) and data[place] & 0x80:
        head, place = data[place], place + 1
        if head & 0x40:
            tag, size, used = head & 0x3F, *_new_length(data[place : place + 5])
        else:
            tag, used = head >> 2 & 0x0F, (1, 2, 4, 0)[head & 3]
            size = int.from_bytes(data[place : place + used], "big") if used else len(data) - place
        place += used
        yield tag, data[place : place + size]
        place += size


def _new_length(data: bytes) -> tuple[int, int]:
    if data[0] < 192 or len(data) < 2:
        return data[0], 1
    if data[0] < 224:
        return (data[0] - 192 << 8) + data[1] + 192, 2
    return int.from_bytes(data[1:5], "big"), 5


def fingerprint(body: bytes) -> str:
    """The name of a public key's packet (RFC 9580, 5.5.4)."""
    if body[:1] == b"\x06":
        return hashlib.sha256(b"\x9b" + len(body).to_bytes(4, "big") + body).hexdigest().upper()
    return hashlib.sha1(b"\x99" + len(body).to_bytes(2, "big") + body).hexdigest().upper()


def refuse_key(key: bytes, wanted: str, where: str) -> None:
    """Only the key that was asked for may vouch for packages, and no other beside it."""
    found = fingerprints(key)
    if not found:
        raise PackageError(f"{where} is no public key")
    if set(found) != {wanted.replace(" ", "").upper()}:
        raise PackageError(
            f"{where} is {', '.join(found)} and not {wanted}: find out whether it was replaced, and set its fingerprint"
        )


def source(repository: str, suite: str, component: str, key: Path) -> str:
    return f"deb [signed-by={key}] {repository} {suite} {component}\n"


def options(directory: Path) -> list[str]:
    """apt's options for a repository of its own below DIRECTORY: the host's own lists stay as they are."""
    settings = {
        "Dir::Etc::sourcelist": directory / "source.list",
        "Dir::Etc::sourceparts": directory / "parts",
        "Dir::State::lists": directory / "lists",
        "Dir::Cache": directory / "cache",
        "Acquire::Languages": "none",
        "Acquire::Retries": 0,
        "Acquire::http::Timeout": SECONDS,
        "Acquire::https::Timeout": SECONDS,
        "APT::Update::Error-Mode": "any",
    }
    return [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]


def refused(output: str, repository: str) -> Exception:
    """What a failed update means."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    if any(DISTRUST.search(line) for line in lines):
        said = next(line for line in lines if DISTRUST.search(line))
        return PackageError(f"{repository} is not signed by the key that was given: {said.removeprefix('E: ')}")
    errors = [line for line in lines if line.startswith("E: ")]
    said = re.sub(r"^E: (Failed to fetch \S+\s*)?", "", errors[0]) if errors else (lines or ["apt says nothing"])[-1]
    return Away(said)


def versions(madison: str) -> list[str]:
    """The versions that `apt-cache madison` lists, the newest first."""
    rows = [line.split("|") for line in madison.splitlines()]
    return list(dict.fromkeys(row[1].strip() for row in rows if len(row) == 3))


def chosen(name: str, wanted: str, there: Sequence[str], repository: str) -> str:
    """The version to install."""
    if not there:
        raise PackageError(f"{repository} has no package {name}")
    if wanted and wanted not in there:
        raise PackageError(f"{repository} has no {name} {wanted}; it has {', '.join(there[:5])}")
    return wanted or there[0]
