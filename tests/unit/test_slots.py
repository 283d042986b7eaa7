"""Names, ports and environments of slots."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.identity import HIDDEN, identity, redact
from ansible_collections.agentfleet.vm.plugins.module_utils.slots import (
    RELEASE_ID,
    Service,
    environment_problem,
    instance_names,
    other,
    parse_environment,
    ports,
    render_environment,
    server_names,
)
from hypothesis import given
from hypothesis import strategies as st

variables = st.dictionaries(
    st.from_regex(r"[A-Z_][A-Z0-9_]{0,10}", fullmatch=True),
    st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30),
    max_size=5,
)


def test_ports_and_names_of_both_slots() -> None:
    assert (other("blue"), other("green")) == ("green", "blue")
    assert ports("blue", 8100, 2) == [8100, 8101]
    assert ports("green", 8100, 2) == [8150, 8151]
    assert instance_names("green", 2) == ["green-1", "green-2"]
    assert server_names("agent1", "blue", 1) == ["agent1-blue-1"]


def test_two_services_share_nothing_on_a_host() -> None:
    one, two = Service("agent", Path("/opt/agent")), Service("shop", Path("/opt/shop"))
    for part in ("releases", "venvs", "uv", "lock", "unit_file", "migrate_file"):
        assert getattr(one, part) != getattr(two, part)
    assert one.unit("blue-1") == "agent@blue-1.service"
    assert one.slot_pattern("blue") == "agent@blue-*.service"
    assert two.stop_timer("green") == "shop-stop-green"


@given(variables)
def test_an_environment_is_read_back_as_it_was(values: dict[str, str]) -> None:
    assert parse_environment(render_environment(values)) == values


def test_an_environment_is_quoted_as_systemd_reads_it() -> None:
    assert render_environment({"B": 'a "b" $c `d` \\e', "A": ""}) == 'A=""\nB="a \\"b\\" \\$c \\`d\\` \\\\e"\n'


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"AGENT-MODEL": "x"}, "no name of a variable"),
        ({"PORT": "1"}, "set by the slot itself"),
        ({"A": "a\x00b"}, "control characters"),
        ({"A": "fine\n"}, ""),
    ],
)
def test_environments_that_cannot_be(values: dict[str, str], says: str) -> None:
    assert says in environment_problem(values)
    assert bool(environment_problem(values)) == bool(says)


@pytest.mark.parametrize("name", ["../x-0123456789ab", "x-0123456789AB", "-0123456789ab", "a b-0123456789ab", "1.0"])
def test_what_is_no_release_id(name: str) -> None:
    assert not RELEASE_ID.match(name)


BASE = ("1.0-0123456789ab", {"A": "1"}, {"key": "s"}, 1, {"service": "u"})


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (0, "1.1-0123456789ab"),
        (1, {"A": "2"}),
        (2, {"key": "t"}),
        (3, 2),
        (4, {"service": "v"}),
        (1, {"A": "1", "B": ""}),
    ],
)
def test_whatever_a_slot_runs_is_part_of_its_identity(place: int, value: object) -> None:
    changed = list(BASE)
    changed[place] = value  # type: ignore[call-overload]
    assert identity(*changed) != identity(*BASE)  # type: ignore[arg-type]
    assert identity(*BASE) == identity(*BASE)


def test_secrets_are_hidden_plain_and_in_urls() -> None:
    text = "postgresql://agent:p%40ss%2Fword@db and p@ss/word, key k3y-longer k3y"
    hidden = redact(text, ["p@ss/word", "k3y-longer", "k3y", ""])
    assert hidden == f"postgresql://agent:{HIDDEN}@db and {HIDDEN}, key {HIDDEN} k3y"
