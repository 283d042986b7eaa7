"""What an inventory says of the certificate and cannot work is told before anything changes."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.tls import Wish, judge_tls

GOOD = {"mode": "certbot", "names": ["agent.example.com"], "mail": "admin@example.com"}
FILES = {"tls_certificate_file": "/i/a.crt", "tls_key_file": "/i/a.key"}


@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        ({}, []),
        ({"mode": "self_signed", "names": ["10.0.0.1", "*.example.com"], "mail": ""}, []),
        ({"names": ["10.0.0.1"]}, ["tls_names has the address 10.0.0.1"]),
        ({"names": ["fd00::1"]}, ["tls_names has the address fd00::1"]),
        ({"names": ["example.com", "*.example.com"]}, ["tls_names has *.example.com, and tls_mode certbot"]),
        ({"names": ["agent"]}, ["tls_names has agent, which no DNS in the world knows"]),
        ({"mail": ""}, ["'tls_mail' is not set, and tls_mode certbot needs a mail address"]),
        ({"mail": "admin"}, ["'tls_mail' is 'admin', and"]),
        ({"staging": True, "directory": "https://ca"}, ["tls_staging asks Let's Encrypt, and tls_acme_directory"]),
        ({"directory": "ca.example.com"}, ["'tls_acme_directory' must begin with https://"]),
        (
            {"files": {"tls_acme_ca": "/i/ca"}, "absent": frozenset({"tls_acme_ca"})},
            ["'tls_acme_ca' is /i/ca, which is no file on this machine"],
        ),
        ({"mode": "files", "files": FILES}, []),
        ({"mode": "files"}, ["'tls_certificate_file' is not set, and", "'tls_key_file' is not set, and"]),
        (
            {"mode": "files", "files": FILES, "absent": frozenset({"tls_key_file"})},
            ["'tls_key_file' is /i/a.key, which is no file on this machine"],
        ),
        ({"absent": frozenset({"tls_key_file"}), "files": FILES}, []),
    ],
)
def test_what_cannot_work_is_one_line_each(changes, lines):
    found = judge_tls("edge1", Wish(**{**GOOD, **changes}), "inventories/single")
    assert len(found) == len(lines)
    for finding, line in zip(found, lines, strict=True):
        assert finding.host == "edge1"
        assert line in finding.text
        assert finding.mend
