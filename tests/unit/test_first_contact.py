"""A host's key is told apart from another's, and a port that a firewall closes from one where nobody listens yet."""

import base64
import subprocess

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.first_contact import (
    HostKey,
    changed_key,
    host_pattern,
    judge_doors,
    judge_keys,
    keys_in,
    lines_for,
    unknown_key,
)


def key(kind="ssh-ed25519", seed="a"):
    return HostKey(kind, base64.b64encode(seed.encode() * 32).decode())


def test_a_fingerprint_is_what_ssh_keygen_says(tmp_path):
    file = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", file], check=True)
    public = file.with_suffix(".pub").read_text()
    said = subprocess.run(["ssh-keygen", "-lf", file], capture_output=True, text=True, check=True).stdout.split()[1]
    [read] = keys_in(f"192.0.2.10 {public}")
    assert read.fingerprint == said


def test_the_key_that_ssh_prefers_comes_first_and_other_lines_are_left_out():
    rsa, ed25519 = key("ssh-rsa", "a"), key(seed="z")
    text = "# 192.0.2.10:22 SSH-2.0-OpenSSH\n" + lines_for("192.0.2.10", [rsa, ed25519])
    text += f"@revoked 192.0.2.10 ssh-ed25519 {key(seed='x').key}\n192.0.2.10 ssh-ed25519 ***\n"
    assert keys_in(text) == [ed25519, rsa]


@pytest.mark.parametrize(
    ("known", "state"),
    [([], "unknown"), ([key()], "known"), ([key(seed="b")], "changed"), ([key(seed="b"), key()], "known")],
)
def test_a_key_is_known_changed_or_unknown(known, state):
    assert judge_keys([key(), key("ssh-rsa", "r")], known) == state


def test_a_host_is_named_as_known_hosts_names_it():
    assert host_pattern("192.0.2.10", 22) == "192.0.2.10"
    assert host_pattern("192.0.2.10", 2222) == "[192.0.2.10]:2222"


def test_what_is_said_of_keys_names_the_way_on():
    said = unknown_key("vm1", "192.0.2.10", [key()], "in the console: look")
    assert key().fingerprint in said.text
    assert said.mend == "Compare it (in the console: look), then run this again with -e accept_host_keys=true"
    said = changed_key("vm1", "[192.0.2.10]:2222", [key()], "/home/me/.ssh/known_hosts")
    assert said.mend.startswith(
        "If it was reinstalled: ssh-keygen -R '[192.0.2.10]:2222' -f /home/me/.ssh/known_hosts;"
    )


def doors(**states):
    return [finding.text for finding in judge_doors("vm1", "192.0.2.10", {int(k[1:]): v for k, v in states.items()})]


def test_a_silent_port_is_told_and_one_where_nobody_listens_is_fine():
    assert doors(p80="closed", p443="open") == []
    assert doors(p80="silent", p443="closed") == [
        "nothing comes back from port 80 of 192.0.2.10 (a firewall?); certbot and redirects need 80"
    ]
    assert doors(p80="silent", p443="silent") == [
        "nothing comes back from ports 80 and 443 of 192.0.2.10 (a firewall?);"
        " certbot and redirects need 80, users need 443"
    ]
