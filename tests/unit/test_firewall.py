"""The difference between a host's UFW and the inventory, and the order in which it is closed."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.firewall import (
    Firewall,
    FirewallError,
    Rule,
    expand,
    has_ours,
    observed,
    parse_added,
    plan,
    port_of,
    set_ipv6,
    source_of,
)
from hypothesis import given
from hypothesis import strategies as st

SSH = Rule("allow 22/tcp", "agentfleet: ssh")
DATABASE = Rule("allow from 10.0.0.21 to any port 5432 proto tcp", "agentfleet: postgres")
STALE = Rule("allow from 10.0.0.99 to any port 5432 proto tcp", "agentfleet: postgres")
AGENT = Rule("allow from 10.0.0.11 to any port 8100 proto tcp", "agentfleet agent: instances")
OTHER_SERVICE = Rule("allow from 10.0.0.11 to any port 8200 proto tcp", "agentfleet billing: instances")
FOREIGN = Rule("allow 51820/udp", "wireguard")
LIMITED_SSH = Rule("limit 22/tcp", "")

ADDED = """Added user rules (see 'ufw status' for running firewall):
ufw allow 22/tcp comment 'agentfleet: ssh'
ufw limit 2222/tcp
ufw allow from 10.0.0.21 to any port 5432 proto tcp comment 'agentfleet: postgres'
ufw route allow in on eth0 out on docker0 comment 'containers'
"""
DEFAULTS = """# IPv6
IPV6=yes
DEFAULT_INPUT_POLICY="DROP"
DEFAULT_OUTPUT_POLICY="ACCEPT"
"""


def on(*rules: Rule, **different: object) -> Firewall:
    return Firewall(**{"active": True, "ipv6": True, "incoming": "deny", "rules": rules, **different})


def texts(rules: tuple[Rule, ...]) -> list[str]:
    return [rule.command for rule in rules]


def test_what_ufw_shows_is_read():
    assert parse_added(ADDED) == (
        SSH,
        Rule("limit 2222/tcp"),
        DATABASE,
        Rule("route allow in on eth0 out on docker0", "containers"),
    )
    assert parse_added("Added user rules (see 'ufw status' for running firewall):\n(None)\n") == ()


def test_state_is_read_from_ufw_and_its_defaults():
    assert observed("Status: active\n", ADDED, DEFAULTS) == on(*parse_added(ADDED))
    assert observed("Status: inactive\n", "", DEFAULTS.replace("DROP", "ACCEPT").replace("yes", "no")) == Firewall()


@pytest.mark.parametrize(
    ("now", "wanted", "add", "delete"),
    [
        pytest.param(Firewall(), [SSH, DATABASE], [SSH, DATABASE], [], id="a bare host"),
        pytest.param(on(SSH, DATABASE), [SSH, DATABASE], [], [], id="nothing to do"),
        pytest.param(on(SSH, STALE), [SSH, DATABASE], [DATABASE], [STALE], id="one host replaced by another"),
        pytest.param(on(SSH, FOREIGN), [SSH], [], [], id="a rule that is not ours stays"),
        pytest.param(on(SSH, AGENT, OTHER_SERVICE), [SSH], [], [AGENT], id="another service's rules stay"),
        pytest.param(on(LIMITED_SSH), [SSH], [], [], id="somebody limits what we want open"),
        pytest.param(on(Rule("allow 22/tcp", "admin")), [SSH], [], [], id="somebody opened it already"),
        pytest.param(
            on(Rule("allow 22/tcp", "admin"), ipv6=False), [SSH], [Rule("allow 22/tcp", "admin")], [], id="v4 only"
        ),
    ],
)
def test_difference(now, wanted, add, delete):
    made = plan(now, wanted, "agent")
    assert list(made.add) == add
    assert list(made.delete) == delete
    assert made.changed == (bool(add or delete) or not now.active)


def test_what_opens_is_done_before_what_closes():
    made = plan(Firewall(rules=(STALE,)), [SSH, DATABASE], "agent")
    assert made.commands() == [
        ["allow", "22/tcp", "comment", "agentfleet: ssh"],
        ["allow", "from", "10.0.0.21", "to", "any", "port", "5432", "proto", "tcp", "comment", "agentfleet: postgres"],
        ["default", "deny", "incoming"],
        ["--force", "enable"],
        ["delete", "allow", "from", "10.0.0.99", "to", "any", "port", "5432", "proto", "tcp"],
    ]


def test_chains_of_ipv6_exist_before_rules_go_into_them():
    assert plan(on(SSH, ipv6=False), [SSH], "agent").commands()[0] == ["reload"]


@pytest.mark.parametrize("action", ["deny", "reject"])
def test_a_contradiction_is_refused_with_the_command_that_mends_it(action):
    with pytest.raises(FirewallError, match=f"ufw delete {action} 22/tcp"):
        plan(on(Rule(f"{action} 22/tcp")), [SSH], "agent")


def wish(**different):
    return {"ports": ["5432"], "protocol": "tcp", "sources": ["any"], "name": "x", "of_service": False, **different}


def test_a_wish_is_a_rule_for_each_port_and_source():
    rules = expand([wish(ports=["8100:8101", 8150], sources=["10.0.0.11", "fd77::11"])], "agent")
    assert texts(rules) == [
        "allow from 10.0.0.11 to any port 8100:8101 proto tcp",
        "allow from 10.0.0.11 to any port 8150 proto tcp",
        "allow from fd77::11 to any port 8100:8101 proto tcp",
        "allow from fd77::11 to any port 8150 proto tcp",
    ]


def test_the_comment_says_whose_a_rule_is():
    assert [rule.comment for rule in expand([wish(), wish(ports=["1"], of_service=True)], "billing")] == [
        "agentfleet: x",
        "agentfleet billing: x",
    ]


def test_nobody_is_not_everybody():
    assert expand([wish(sources=[])], "agent") == []


def test_a_host_needs_no_rule_for_itself():
    assert texts(expand([wish(sources=["10.0.0.1", "10.0.0.2"])], "agent", own=["10.0.0.1"])) == [
        "allow from 10.0.0.2 to any port 5432 proto tcp"
    ]


@pytest.mark.parametrize(
    ("given_as", "shown"),
    [("10.0.0.1", "10.0.0.1"), ("10.0.0.1/32", "10.0.0.1"), ("10.0.0.7/24", "10.0.0.0/24"), ("0.0.0.0/0", "any"),
     ("FD77:0::1", "fd77::1"), ("any", "any")],
)  # fmt: skip
def test_sources_are_written_as_ufw_shows_them(given_as, shown):
    assert source_of(given_as) == shown


@pytest.mark.parametrize(
    ("given_as", "shown"), [("22", "22"), (8100, "8100"), ("8100:8100", "8100"), ("8100:8103", "8100:8103")]
)
def test_ports_are_written_as_ufw_shows_them(given_as, shown):
    assert port_of(given_as) == shown


@pytest.mark.parametrize(
    ("different", "says"),
    [
        ({"sources": ["data1.example.org"]}, "data1.example.org.*fleet_address"),
        ({"ports": ["http"]}, "'http' is no port"),
        ({"ports": ["0"]}, "'0' is no port"),
        ({"ports": ["65536"]}, "'65536' is no port"),
        ({"ports": ["9:8"]}, "ends before it begins"),
        ({"name": "it's"}, "quote"),
    ],
)
def test_what_ufw_would_not_take_is_named(different, says):
    with pytest.raises(FirewallError, match=says):
        expand([wish(**different)], "agent")


@pytest.mark.parametrize("text", ["IPV6=no\nX=1\n", "X=1\n", ""])
def test_ipv6_is_turned_on_and_nothing_else_touched(text):
    assert "IPV6=yes" in set_ipv6(text).splitlines()
    assert ("X=1" in set_ipv6(text)) == ("X=1" in text)


RULES = st.sampled_from([SSH, DATABASE, STALE, AGENT, OTHER_SERVICE, FOREIGN, LIMITED_SSH])
STATES = st.builds(
    lambda active, ipv6, incoming, rules: Firewall(active, ipv6, incoming, tuple(rules)),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["allow", "deny", "reject"]),
    st.lists(RULES, unique_by=lambda rule: rule.command),
)


@given(now=STATES, wanted=st.lists(st.sampled_from([SSH, DATABASE, AGENT]), unique=True))
def test_one_run_is_enough_and_others_lose_nothing(now, wanted):
    made = plan(now, wanted, "agent")
    assert not plan(made.then, wanted, "agent").changed
    assert {FOREIGN, OTHER_SERVICE, LIMITED_SSH} & set(now.rules) <= set(made.then.rules)
    assert STALE not in made.then.rules
    assert made.then.active
    assert made.then.incoming == "deny"


def test_a_firewall_is_as_before_the_fleet_while_no_rule_is_ours():
    assert not has_ours(on(FOREIGN, LIMITED_SSH, active=False))
    assert has_ours(on(FOREIGN, SSH))
    assert has_ours(on(OTHER_SERVICE))
