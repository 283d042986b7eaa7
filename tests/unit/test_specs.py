import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.specs import (
    Option,
    mismatch,
    placeholder,
    read_options,
    suggest,
)
from hypothesis import given
from hypothesis import strategies as st


def option(kind="str", **rest):
    return Option(name="x", owner="agent", type=kind, **rest)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("str", "text"),
        ("str", 17),
        ("str", ""),
        ("int", 8100),
        ("int", "8100"),
        ("float", "0.5"),
        ("float", 2),
        ("bool", True),
        ("bool", "yes"),
        ("bool", "False"),
        ("list", []),
        ("list", ("a",)),
        ("dict", {}),
        ("path", "/srv/app"),
        ("raw", object()),
    ],
)
def test_what_a_role_can_use_fits(kind, value):
    assert mismatch(option(kind, default="set"), value) == ""


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("str", True, "must be a string, not True"),
        ("str", ["a"], "must be a string, not ['a']"),
        ("int", "eighty", "must be a whole number, not 'eighty'"),
        ("int", 1.5, "must be a whole number, not 1.5"),
        ("int", True, "must be a whole number, not True"),
        ("float", "fast", "must be a number, not 'fast'"),
        ("bool", "maybe", "must be true or false, not 'maybe'"),
        ("bool", 2, "must be true or false, not 2"),
        ("list", "a,b", "must be a list, not 'a,b'"),
        ("dict", [], "must be a mapping, not []"),
        ("path", 5, "must be a path, not 5"),
        ("str", None, "is null"),
    ],
)
def test_what_a_role_cannot_use_is_told(kind, value, told):
    assert mismatch(option(kind, default="set"), value) == told


def test_null_fits_only_where_it_is_the_default():
    assert mismatch(option(), None) == ""
    assert mismatch(option(required=True), None) == "is null"


def test_a_choice_is_named_with_the_allowed_values():
    strategy = option(choices=("rolling", "canary"))
    assert mismatch(strategy, "canary") == ""
    assert mismatch(strategy, "cannary") == "must be one of rolling, canary, not 'cannary'"


def test_each_entry_of_a_list_is_looked_at():
    numbers = option("list", elements="int", default=[])
    assert mismatch(numbers, [1, 2]) == ""
    assert mismatch(numbers, [1, "two"]) == "entry 2 must be a whole number, not 'two'"


DATABASES = read_options(
    "postgres",
    {
        "postgres_databases": {
            "type": "list",
            "elements": "dict",
            "default": [],
            "options": {
                "name": {"type": "str", "required": True},
                "password": {"type": "str", "required": True, "no_log": True},
            },
        }
    },
)["postgres_databases"]


@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ({"name": "agent", "password": "p"}, ""),
        ({"name": "agent"}, "entry 1 lacks its key 'password'"),
        ({"nome": "agent", "password": "p"}, "entry 1 has an unknown key 'nome'; did you mean 'name'?"),
        ({"name": "agent", "password": ["hunter2"]}, "entry 1 key 'password' must be a string"),
    ],
)
def test_keys_inside_a_list_are_looked_at(entry, told):
    assert mismatch(DATABASES, [entry]) == told


def test_keys_of_a_mapping_are_looked_at():
    limits = read_options("x", {"limits": {"type": "dict", "options": {"rate": {"type": "int"}}}})["limits"]
    assert mismatch(limits, {"rate": 5}) == ""
    assert mismatch(limits, {"rate": "fast"}) == "key 'rate' must be a whole number, not 'fast'"
    assert mismatch(limits, {"burst": 5}) == "has an unknown key 'burst'"


@given(st.one_of(st.integers(), st.booleans(), st.lists(st.text(min_size=8)), st.text(min_size=8)))
def test_a_secret_is_never_shown(value):
    for kind in ("str", "int", "bool", "list", "dict"):
        told = mismatch(option(kind, secret=True, required=True, choices=("only",)), value)
        assert told.split(",")[0] in ("", "must be one of only") or told.startswith("must be ")
        assert "not " not in told


@pytest.mark.parametrize(
    "value",
    [
        "CHANGE-ME",
        "changeme",
        "xxx",
        "xxxxxxxxxxxxxxxxxxxxxx",
        "password",
        "Password123",
        "example-key-0123456789",
        "<key>",
        "sk-...",
    ],
)
def test_a_placeholder_is_recognised(value):
    assert placeholder(value) == "is a placeholder"


def test_a_short_secret_is_told_by_its_length_alone():
    assert placeholder("k9Zq", minimum=16) == "is shorter than 16 characters"
    assert placeholder("k9Zq") == ""


@given(st.text("abcdef0123456789", min_size=48, max_size=48))
def test_a_random_secret_is_accepted(value):
    # openssl rand -hex 24; six equal digits in a row are what a person types.
    if not any(digit * 6 in value for digit in set(value)):
        assert placeholder(value, minimum=16) == ""


def test_a_misspelt_name_gets_its_suggestion():
    assert suggest("agnet_port", {"agent_port", "redis_port", "agent_name"}) == "agent_port"
    assert suggest("colour_of_the_sky", {"agent_port"}) == ""
