"""Certificates on disk: what they say, when a self-signed one has to be made anew, and how a pair is put in place."""

from __future__ import annotations

import ipaddress
import os
import re
import shutil
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils import disk

DAY = 86400
DESCRIBE = ("x509", "-noout", "-startdate", "-enddate", "-pubkey", "-issuer", "-subject", "-nameopt", "RFC2253")


class CertificateError(Exception):
    """One line for the user."""


@dataclass(frozen=True)
class Certificate:
    names: frozenset[str]
    expires: float
    public_key: str
    begins: float = 0.0
    issuer: str = ""  # nothing where it signed itself

    def days_left(self, now: float) -> int:
        """Whole days until it expires, negative afterwards."""
        return int((self.expires - now) // DAY)


def parse(text: str) -> Certificate:
    """What `openssl x509` prints of a certificate when asked as DESCRIBE does, with its alternative names."""
    said = dict(re.findall(r"^(notBefore|notAfter|issuer|subject)=(.*)$", text, re.MULTILINE))
    key = re.search(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", text, re.DOTALL)
    if "notBefore" not in said or "notAfter" not in said or not key:
        raise CertificateError(f"openssl describes a certificate in an unknown form: {text[:80]!r}")
    names = re.findall(r"(?:DNS|IP Address):([^\s,]+)", text)
    return Certificate(
        names=frozenset(canonical(name) for name in names),
        expires=ssl.cert_time_to_seconds(said["notAfter"]),
        public_key=key[0],
        begins=ssl.cert_time_to_seconds(said["notBefore"]),
        issuer="" if said.get("issuer") == said.get("subject") else plain(said.get("issuer", "")),
    )


def plain(name: str) -> str:
    """Organisation and common name of a distinguished NAME as RFC 2253 writes it."""
    found = {kind: re.sub(r"\\(.)", r"\1", value) for kind, value in re.findall(r"(\w+)=((?:\\.|[^,\\])*)", name)}
    return " ".join(found[kind] for kind in ("O", "CN") if kind in found) or name or "an unknown authority"


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
    found: Certificate | None,
    key: str | None,
    names: Iterable[str],
    renew_days: int,
    now: float,
    stand_in: bool = False,
) -> str | None:
    """Why a new self-signed certificate is needed, or None.

    KEY is the public half of the private key that lies beside it. A stand-in leaves what an authority issued alone.
    """
    if found is None:
        return "there is none"
    if found.public_key != key:
        return "certificate and key do not belong together"
    if found.issuer:
        return None if stand_in else f"it is from {found.issuer}"
    wanted = {canonical(name) for name in names}
    if found.names != wanted:
        return f"it names {', '.join(sorted(found.names)) or 'nothing'} instead of {', '.join(sorted(wanted))}"
    left = found.days_left(now)
    return f"{left} days are left" if left < renew_days else None


def covers(pattern: str, name: str) -> bool:
    """Whether a certificate that says PATTERN serves NAME: the same, or a wildcard for its first label."""
    if pattern.startswith("*."):
        return name.partition(".")[2] == pattern[2:] and not name.startswith(".")
    return pattern == name


def reason_to_refuse(found: Certificate | None, key: str | None, names: Iterable[str], now: float) -> str | None:
    """Why a certificate and the public half of a KEY that somebody gave cannot serve NAMES, or None."""
    if found is None:
        return "tls_certificate_file holds no certificate in PEM"
    if key is None:
        return "tls_key_file holds no private key in PEM that opens without a passphrase"
    if found.public_key != key:
        return (
            "tls_certificate_file and tls_key_file do not belong together; the site's own certificate must come first"
        )
    if found.expires <= now:
        return f"tls_certificate_file ended {-found.days_left(now)} days ago"
    if found.begins > now:
        begin = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(found.begins))
        return f"tls_certificate_file is not good before {begin}"
    lacking = [name for name in map(canonical, names) if not any(covers(pattern, name) for pattern in found.names)]
    if lacking:
        good = ", ".join(sorted(found.names)) or "no name"
        return f"tls_certificate_file is good for {good}, and not for {', '.join(lacking)} of tls_names"
    return None


def openssl(*arguments: str, stdin: str | None = None) -> str:
    try:
        done = subprocess.run(["openssl", *arguments], input=stdin or "", capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise CertificateError("openssl is not installed; mend it with: apt install openssl") from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
        raise CertificateError(f"openssl {arguments[0]}: {said[-1]}")
    return done.stdout


def describe(text: str) -> Certificate | None:
    """The first certificate in a PEM text, or None where there is none that can be read as one."""
    try:
        return parse(openssl(*DESCRIBE, "-ext", "subjectAltName", stdin=text))
    except CertificateError:
        return None


def read(path: Path) -> Certificate | None:
    """The certificate at PATH, or None where there is none that can be read as one."""
    return describe(path.read_text(errors="replace")) if path.exists() else None


def public_half_of(text: str) -> str | None:
    """The public half of a private key in PEM that no passphrase guards."""
    try:
        return openssl("pkey", "-pubout", "-passin", "pass:", stdin=text).strip()
    except CertificateError:
        return None


def public_half(path: Path) -> str | None:
    return public_half_of(path.read_text(errors="replace")) if path.exists() else None


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
    """A new key and its self-signed certificate."""
    with tempfile.TemporaryDirectory(dir=certificate.parent) as directory:
        made = Path(directory)
        (made / "conf").write_text(configuration(names))
        openssl(
            *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-noenc", "-batch"),
            *("-config", str(made / "conf"), "-days", str(days)),
            *("-keyout", str(made / "key"), "-out", str(made / "crt")),
        )
        install(certificate, key, (made / "crt").read_bytes(), (made / "key").read_bytes(), group)


def install(certificate: Path, key: Path, chain: bytes, private: bytes, group: int) -> None:
    """Put both in place at once: wherever this is interrupted, whoever opens them finds two that belong together.

    Both are links through one other link, which is what changes.
    """
    pair = certificate.with_suffix(".pair")
    made = lay_down(pair, chain, private, group)
    if not all(path.is_symlink() for path in (certificate, key, pair)):
        whole = certificate.exists() and key.exists()
        first = lay_down(pair, certificate.read_bytes(), key.read_bytes(), group) if whole else made
        disk.link(pair, first.name)
        disk.link(key, os.path.relpath(pair / "key", key.parent))
        disk.link(certificate, f"{pair.name}/crt")
    disk.link(pair, made.name)
    disk.sync(pair.parent)
    for old in pair.parent.glob(f".{pair.name}-*"):
        if old.name != made.name:
            shutil.rmtree(old)


def lay_down(pair: Path, chain: bytes, private: bytes, group: int) -> Path:
    """A directory of certificate and key beside PAIR, which does not point there yet."""
    made = Path(tempfile.mkdtemp(prefix=f".{pair.name}-", dir=pair.parent))
    disk.write(made / "key", private, 0o600)
    own(made / "key", group, 0o640)
    disk.write(made / "crt", chain, 0o644)
    made.chmod(0o755)
    return made


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
