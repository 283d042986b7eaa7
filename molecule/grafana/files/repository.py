"""Makes a signed repository that holds two versions of a stand-in for Grafana: repository.py DIRECTORY."""

import hashlib
import os
import subprocess
import sys
import tempfile
from email.utils import formatdate
from pathlib import Path

VERSIONS = ("12.1.0", "12.2.0")
# As the packages of Grafana's own have it.
UNIT = """[Unit]
Description=Grafana instance
After=network-online.target

[Service]
EnvironmentFile=/etc/default/grafana-server
User=grafana
Group=grafana
Type=simple
ExecStart=/usr/bin/python3 /usr/share/grafana/stand_in.py
UMask=0027

[Install]
WantedBy=multi-user.target
"""
POSTINST = """#!/bin/sh
set -e
getent group grafana >/dev/null || groupadd --system grafana
getent passwd grafana >/dev/null || useradd --system --gid grafana --home-dir /usr/share/grafana grafana
mkdir -p /var/log/grafana /var/lib/grafana
chown -R grafana:grafana /var/log/grafana /var/lib/grafana
chown -Rh root:grafana /etc/grafana/*
chmod 755 /etc/grafana
find /etc/grafana -type f -exec chmod 640 {} ';'
find /etc/grafana -type d -exec chmod 755 {} ';'
"""


def run(*command, **options):
    return subprocess.run(command, check=True, capture_output=True, text=True, **options).stdout


def write(path, text, mode=0o644):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def package(pool, version):
    with tempfile.TemporaryDirectory() as name:
        tree = Path(name) / "tree"
        tree.mkdir(mode=0o755)
        stand_in = Path(__file__).with_name("stand_in.py").read_text().replace("@VERSION@", version)
        write(tree / "usr/share/grafana/stand_in.py", stand_in)
        write(tree / "lib/systemd/system/grafana-server.service", UNIT)
        write(tree / "etc/default/grafana-server", "CONF_FILE=/etc/grafana/grafana.ini\n")
        write(tree / "etc/grafana/grafana.ini", "[server]\nhttp_addr =\nhttp_port = 3000\n")
        write(tree / "DEBIAN/postinst", POSTINST, 0o755)
        write(tree / "DEBIAN/conffiles", "/etc/default/grafana-server\n/etc/grafana/grafana.ini\n")
        control = {"Package": "grafana", "Version": version, "Architecture": "all", "Depends": "python3, adduser"}
        control |= {"Maintainer": "Nobody <nobody@example.com>", "Description": "Stands in for Grafana"}
        write(tree / "DEBIAN/control", "".join(f"{key}: {value}\n" for key, value in control.items()))
        run("dpkg-deb", "--build", "--root-owner-group", str(tree), str(pool / f"grafana_{version}_all.deb"))


def entry(top, path):
    data = path.read_bytes()
    figures = {"Filename": path.relative_to(top), "Size": len(data), "SHA256": hashlib.sha256(data).hexdigest()}
    return run("dpkg-deb", "--field", str(path)) + "".join(f"{key}: {value}\n" for key, value in figures.items())


def make(top):
    pool, suite = top / "pool", top / "dists/stable"
    pool.mkdir(parents=True)
    for version in VERSIONS:
        package(pool, version)
    architecture = run("dpkg", "--print-architecture").strip()
    packages = suite / f"main/binary-{architecture}/Packages"
    write(packages, "\n".join(entry(top, path) for path in sorted(pool.glob("*.deb"))))
    data = packages.read_bytes()
    sums = f" {hashlib.sha256(data).hexdigest()} {len(data)} {packages.relative_to(suite)}\n"
    head = {"Origin": "stand-in", "Suite": "stable", "Codename": "stable", "Components": "main"}
    head |= {"Architectures": architecture, "Date": formatdate(usegmt=True)}
    release = "".join(f"{key}: {value}\n" for key, value in head.items()) + f"SHA256:\n{sums}"
    with tempfile.TemporaryDirectory() as home:
        os.environ["GNUPGHOME"] = home
        run("gpg", "--batch", "--passphrase", "", "--quick-generate-key", "Stand-in", "rsa3072", "sign", "never")
        run("gpg", "--batch", "--clearsign", "--output", str(suite / "InRelease"), input=release)
        write(top / "key.asc", run("gpg", "--batch", "--armor", "--export"))
        shown = run("gpg", "--batch", "--with-colons", "--fingerprint")
    # Written last: it says that the rest is there.
    write(top / "fingerprint", next(line.split(":")[9] for line in shown.splitlines() if line.startswith("fpr:")))


make(Path(sys.argv[1]))
