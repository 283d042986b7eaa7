"""Certificates on disk: what they say, and when a self-signed one has to be made anew."""

from __future__ import annotations

import ipaddress
import os
import re
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

DAY = 86400


class CertificateError(Exception):
    """One line for the user."""


@dataclass(frozen=True)
class Certificate:
    names: frozenset[str]
    expires: float
    public_key: str

    def days_left(self, now: float) -> int:
        """Whole days until it expires, negative afterwards."""
        return int((self.expires - now) // DAY)


def parse(text: str) -> Certificate:
    """What `openssl x509 -enddate -pubkey -ext subjectAltName` prints."""
    expires = re.search(r"^notAfter=(.+)$", text, re.MULTILINE)
    key = re.search(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", text, re.DOTALL)
    if not expires or not key:
        raise CertificateError(f"openssl describes a certificate in an unknown form: {text[:80]!r}")
    names = re.findall(r"(?:DNS|IP Address):([^\s,]+)", text)
    return Certificate(frozenset(canonical(name) for name in names), ssl.cert_time_to_seconds(expires[1]), key[0])


def canonical(name: str) -> str:
    """One spelling for a name or address."""
    try:
        return str(ipaddress.ip_address(name))
    except ValueError:
        return name.lower()


def alternative_names(names: Iterable[str]) -> str:
    """NAMES as the extension subjectAltName wants them."""
    entries = []
    for name in names:
        try:
            entries.append(f"IP:{ipaddress.ip_address(name)}")
        except ValueError:
            entries.append(f"DNS:{name}")
    return ",".join(entries)


def reason_to_make(
    found: Certificate | None, key: str | None, names: Iterable[str], renew_days: int, now: float
) -> str | None:
    """Why a new certificate is needed, or None. KEY is the public half of the private key that lies beside it."""
    if found is None:
        return "there is none"
    if found.public_key != key:
        return "certificate and key do not belong together"
    wanted = {canonical(name) for name in names}
    if found.names != wanted:
        return f"it names {', '.join(sorted(found.names)) or 'nothing'} instead of {', '.join(sorted(wanted))}"
    left = found.days_left(now)
    return f"{left} days are left" if left < renew_days else None


def openssl(*arguments: str) -> str:
    try:
        done = subprocess.run(["openssl", *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CertificateError("openssl is not installed; mend it with: apt install openssl") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise CertificateError(f"openssl {arguments[0]}: {said[-1]}")
    return done.stdout


def read(path: Path) -> Certificate | None:
    """The certificate at PATH, or None where there is none that can be read as one."""
    if not path.exists():
        return None
    try:
        return parse(openssl("x509", "-in", str(path), "-noout", "-enddate", "-pubkey", "-ext", "subjectAltName"))
    except CertificateError:
        return None


def public_half(path: Path) -> str | None:
    if not path.exists():
        return None
    try:
        return openssl("pkey", "-in", str(path), "-pubout").strip()
    except CertificateError:
        return None


def configuration(names: list[str]) -> str:
    """For `openssl req`: a certificate that serves these names and signs nothing else."""
    return f"""
[req]
prompt = no
distinguished_name = name
x509_extensions = extensions
[name]
CN = {names[0][:64]}
[extensions]
subjectAltName = {alternative_names(names)}
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectKeyIdentifier = hash
"""


def make(certificate: Path, key: Path, names: list[str], days: int, group: int) -> None:
    """A new key and its self-signed certificate. An interruption between both files is mended by the next run."""
    with tempfile.TemporaryDirectory(dir=certificate.parent) as directory:
        made = Path(directory)
        (made / "conf").write_text(configuration(names))
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-batch"),
            *("-config", str(made / "conf"), "-days", str(days)),
            *("-keyout", str(made / "key"), "-out", str(made / "crt")),
        )
        own(made / "key", group, 0o640)
        own(made / "crt", 0, 0o644)
        (made / "key").replace(key)
        (made / "crt").replace(certificate)


def own(path: Path, group: int, mode: int) -> bool:
    """Root's, and GROUP's as far as MODE says; whether that was not so."""
    found = path.stat()
    if (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (0, group, mode):
        return False
    os.chown(path, 0, group)
    path.chmod(mode)
    return True


def days_left(path: Path) -> int | None:
    found = read(path)
    return found.days_left(time.time()) if found else None
