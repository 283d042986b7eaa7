"""What others have Nginx serve on an edge."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.nginx_neighbours import (
    default_ports,
    edited,
    shipped_in,
)

MAIN = "/etc/nginx/nginx.conf"
DEBIAN = "user www-data;\nhttp { include /etc/nginx/sites-enabled/*; }\n"
STATUS = f"""\
Package: nginx-common
Status: install ok installed
Conffiles:
 /etc/nginx/mime.types 3180f2d3ff7d2af64aca4b4e4ff3b7a4
 {MAIN} {hashlib.md5(DEBIAN.encode()).hexdigest()}
Description: small, powerful
"""


@pytest.mark.parametrize(
    ("main", "lost"),
    [
        (None, False),
        ("", False),
        (DEBIAN, False),
        ("# Managed by Agentfleet (role edge)\nhttp {}\n", False),
        (DEBIAN.replace("http {", "http { gzip on;"), True),
    ],
)
def test_only_what_somebody_wrote_would_be_lost(main: str | None, lost: bool) -> None:
    assert edited(MAIN, main, shipped_in(STATUS)) is lost


def test_without_dpkgs_word_every_file_is_somebodys() -> None:
    assert edited(MAIN, DEBIAN, {})


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("server {\n    listen 80 default_server;\n    listen [::]:80 default_server;\n}", [80]),
        ("server { server_name a; }", []),
        ("server {\n  listen 10.0.0.1:443 ssl default_server;\n  listen 8080;\n}", [443]),
        ("server {\n  # listen 80 default_server;\n  listen 80;\n}", []),
        ("server {\n  listen localhost default_server;\n}", [80]),
        ("server {\n  listen [::1] default_server;\n}", [80]),
        ("server {\n\tlisten *:8443 ssl http2 default_server reuseport;\n}", [8443]),
    ],
)
def test_who_answers_for_unknown_names(text: str, ports: list[int]) -> None:
    assert default_ports([text]) == ports
