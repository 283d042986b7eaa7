"""The fleet's own certificate authority, on its first edge, and what a host has from it: a key and its certificate."""

from __future__ import annotations

import re
import secrets
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.agentfleet.vm.plugins.module_utils import certificate as certificates
from ansible_collections.agentfleet.vm.plugins.module_utils import disk
from ansible_collections.agentfleet.vm.plugins.module_utils.certificate import (
    Certificate,
    CertificateError,
    alternative_names,
    canonical,
    describe,
    openssl,
    public_half_of,
)

YEAR = 365
CERTIFICATE_DAYS = 5 * YEAR
RENEW_DAYS = YEAR
AUTHORITY_DAYS = 20 * YEAR
# Common names are no longer.
LONGEST_NAME = 64
KEY_BLOCK = re.compile(r"-----BEGIN (?:EC )?PRIVATE KEY-----.+?-----END (?:EC )?PRIVATE KEY-----\n?", re.DOTALL)
PUBLIC_BLOCK = re.compile(r"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)
NEW_KEY = ("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256")


@dataclass(frozen=True)
class Pair:
    """A private key and its certificate in PEM, in one file: what reads one finds the other belonging to it."""

    key: str = ""
    certificate: str = ""

    def text(self) -> str:
        return self.key + self.certificate


def parse_pair(text: str) -> Pair:
    found = KEY_BLOCK.search(text)
    key = found[0] if found else ""
    return Pair(key, text.replace(key, "", 1) if key else "")


def reason_to_issue(
    found: Certificate | None, key: str | None, names: Iterable[str], ours: bool, now: float
) -> str | None:
    """Why a host needs another certificate, or None.

    KEY is the public half of the host's private key; OURS says whether the authority that is there now issued it.
    """
    if found is None:
        return "there is none"
    if found.public_key != key:
        return "it is of another key"
    if not ours:
        return "the fleet has another authority"
    wanted = {canonical(name) for name in names}
    if found.names != wanted:
        return f"it names {', '.join(sorted(found.names)) or 'nothing'} instead of {', '.join(sorted(wanted))}"
    left = found.days_left(now)
    return f"{left} days are left" if left < RENEW_DAYS else None


def request(key: str) -> str:
    """What the edge signs; it says itself for which names."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "key"
        disk.write(path, key.encode(), 0o600)
        return openssl("req", "-new", "-key", str(path), "-subj", "/CN=host")


def requested_key(text: str) -> str | None:
    """The public half of the key that asks, if its owner signed."""
    try:
        said = openssl("req", "-verify", "-noout", "-pubkey", stdin=text)
    except CertificateError:
        return None
    # Newer releases say there as well that the signature is right.
    found = PUBLIC_BLOCK.search(said)
    return found[0] if found else None


@dataclass(frozen=True)
class Authority:
    """Key and certificate below DIRECTORY, which is root's alone."""

    directory: Path
    name: str

    @property
    def key(self) -> Path:
        return self.directory / "authority.key"

    @property
    def certificate(self) -> Path:
        return self.directory / "authority.crt"

    def text(self) -> str:
        return self.certificate.read_text() if self.certificate.exists() else ""

    def reason_to_make(self, now: float) -> str | None:
        found = certificates.read(self.certificate)
        if found is None:
            return "there is none"
        if found.public_key != certificates.public_half(self.key):
            return "its key is not here"
        return "it ended" if found.expires <= now else None

    def make(self) -> None:
        """A new one; the key first, so that what was interrupted is found by its certificate."""
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            made = Path(directory)
            common = f"{self.name} hosts"[:LONGEST_NAME]
            (made / "conf").write_text(
                f"[req]\nprompt = no\ndistinguished_name = name\nx509_extensions = extensions\n"
                f"[name]\nO = Agentfleet\nCN = {common}\n"
                "[extensions]\nbasicConstraints = critical, CA:TRUE, pathlen:0\n"
                "keyUsage = critical, keyCertSign, cRLSign\nsubjectKeyIdentifier = hash\n"
            )
            openssl(
                *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-batch"),
                *("-config", str(made / "conf"), "-days", str(AUTHORITY_DAYS)),
                *("-keyout", str(made / "key"), "-out", str(made / "crt")),
            )
            disk.write(self.key, (made / "key").read_bytes(), 0o600)
            disk.write(self.certificate, (made / "crt").read_bytes(), 0o644)

    def issued(self, text: str) -> bool:
        """Whether this authority signed the certificate."""
        try:
            openssl("verify", "-no-CApath", "-no-CAstore", "-CAfile", str(self.certificate), stdin=text)
        except CertificateError:
            return False
        return True

    def reason(self, asked: str, certificate: str, names: Sequence[str]) -> str | None:
        found = describe(certificate) if certificate else None
        return reason_to_issue(found, requested_key(asked), names, self.issued(certificate), time.time())

    def sign(self, asked: str, host: str, names: Sequence[str]) -> str:
        """A certificate for the key that asks. Names are the inventory's, never the asking host's own word."""
        if requested_key(asked) is None:
            raise CertificateError(f"{host} asks for a certificate without showing that it has its key")
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            made = Path(directory)
            (made / "request").write_text(asked)
            (made / "extensions").write_text(
                f"subjectAltName = {alternative_names(names)}\nbasicConstraints = critical, CA:FALSE\n"
                "keyUsage = critical, digitalSignature\nextendedKeyUsage = serverAuth, clientAuth\n"
                "subjectKeyIdentifier = hash\nauthorityKeyIdentifier = keyid\n"
            )
            return openssl(
                *("x509", "-req", "-in", str(made / "request"), "-extfile", str(made / "extensions")),
                # HAProxy compares names alone, and looks at this one too.
                *("-subj", f"/CN={host[:LONGEST_NAME]}"),
                *("-CA", str(self.certificate), "-CAkey", str(self.key)),
                *("-set_serial", str(secrets.randbits(127) + 1), "-days", str(CERTIFICATE_DAYS)),
            )


def host_pair(path: Path) -> Pair:
    """What a host has; without a key that can be read, nothing."""
    pair = parse_pair(path.read_text(errors="replace")) if path.exists() else Pair()
    return pair if pair.key and public_half_of(pair.key) else Pair()


def new_key() -> str:
    return openssl(*NEW_KEY)
