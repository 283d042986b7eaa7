"""Answers that cannot work are told in one line each, and only what is needed is asked for."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.findings import lines_by_host
from ansible_collections.agentfleet.vm.plugins.module_utils.first_answers import (
    DEFAULTS,
    Domain,
    completed,
    default_parts,
    judge,
    judge_domain,
    missing,
    next_question,
    wrong_answer,
)

GOOD = {
    "fleet_name": "shop",
    "addresses": "192.0.2.10",
    "domain": "agent.shop.test",
    "mail": "ops@shop.test",
    "model_key": "",
}
THREE = {**GOOD, "addresses": "192.0.2.10,192.0.2.21,192.0.2.31"}


def told(**given):
    answers = {**GOOD, **given}
    lines = lines_by_host(judge(answers, completed(answers)), ["fleet"]).get("fleet", [])
    return [line.removeprefix("fleet: ") for line in lines]


def test_good_answers_are_fine():
    assert told() == []
    assert told(**THREE, private_addresses="10.0.0.1, 10.0.0.2 10.0.0.3") == []
    assert told(mail="", tls_mode="self_signed", ssh_user="debian", ssh_port="2222") == []
    assert told(app_source="~/shop", app="shop.main:app", model_key="sk-0f1e2d3c4b5a69788796a5b4c3d2e1f0") == []


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("fleet_name", "Shop", "fleet_name 'Shop' has capitals. Write shop"),
        ("fleet_name", "../shop", "fleet_name '../shop' is no name of a fleet. Write it as shop or shop-eu"),
        ("fleet_name", "single", "fleet_name 'single' is an example's name. Take another"),
        ("addresses", "", "addresses '' is empty. Write it as 192.0.2.10,192.0.2.21,192.0.2.31"),
        (
            "addresses",
            "VM1.shop.test",
            "addresses 'VM1.shop.test' has capitals in VM1.shop.test. Write vm1.shop.test",
        ),
        (
            "addresses",
            "192.0.2.10,192.0.2.10",
            "addresses '192.0.2.10,192.0.2.10' names 192.0.2.10 twice."
            " Name every host once; one host may do everything",
        ),
        (
            "addresses",
            "2001:db8::10",
            "addresses '2001:db8::10' has the IPv6 address 2001:db8::10, and hosts are reached over IPv4."
            " Write the host's IPv4 address",
        ),
        (
            "addresses",
            "debian@192.0.2.10",
            "addresses 'debian@192.0.2.10' names a user in debian@192.0.2.10."
            " Write the address alone, and -e ssh_user=debian",
        ),
        (
            "addresses",
            "192.0.2.10:2222",
            "addresses '192.0.2.10:2222' has a port in 192.0.2.10:2222. Write 192.0.2.10, and -e ssh_port=2222",
        ),
        (
            "addresses",
            "192.0.2.300",
            "addresses '192.0.2.300' has 192.0.2.300, which is neither an IPv4 address nor a host's name."
            " Write it as 192.0.2.10,192.0.2.21,192.0.2.31",
        ),
        ("domain", "Agent.shop.test", "domain 'Agent.shop.test' has capitals. Write agent.shop.test"),
        (
            "domain",
            "https://agent.shop.test/",
            "domain 'https://agent.shop.test/' is a URL. Write the name alone",
        ),
        ("domain", "192.0.2.10", "domain '192.0.2.10' is an address. Write the name that resolves to it"),
        ("domain", "2001:db8::10", "domain '2001:db8::10' is an address. Write the name that resolves to it"),
        (
            "domain",
            "agent.example.com",
            "domain 'agent.example.com' is an example's name. Write a name of your own",
        ),
        ("domain", "agent", "domain 'agent' is no name of a site. Write it as agent.example.com"),
        ("mail", "ops", "mail 'ops' is no mail address. Write it as you@example.com"),
        ("mail", "", "tls_mode certbot needs a mail address. Add -e mail=ADDRESS, or -e tls_mode=self_signed"),
        ("tls_mode", "letsencrypt", "tls_mode 'letsencrypt' is none of certbot, self_signed, files."),
        ("ssh_user", "the root", "ssh_user 'the root' is no user's name. Write it as root or debian"),
        ("ssh_port", "ssh", "ssh_port 'ssh' is no port. Write a number from 1 to 65535"),
        ("ssh_port", "65536", "ssh_port '65536' is no port. Write a number from 1 to 65535"),
        ("ssh_key_file", "~/.ssh/id.pub", "ssh_key_file '~/.ssh/id.pub' is the public half. Write ~/.ssh/id"),
        ("app", "shop.main", "app 'shop.main' is not what uvicorn takes, a module and a variable in it."),
        ("app", "shop.main:app", "app is set and app_source is not. Add -e app_source=~/shop"),
        ("app_source", "~/shop", "app_source is set and app is not. Add -e app=shop.main:app"),
        (
            "app_source",
            "https://git.shop.test/shop.git",
            "app_source 'https://git.shop.test/shop.git' is a URL. Clone it, and write where it lies on this machine",
        ),
        ("edge_host", "192.0.2.99", "edge_host names 192.0.2.99, which is not among the addresses."),
        ("private_addresses", "10.0.0.1,10.0.0.2", "private_addresses has 2 for 1 hosts."),
    ],
)
def test_a_wrong_answer_is_one_line(name, value, line):
    given = {name: value, **({"tls_mode": "certbot"} if (name, value) == ("mail", "") else {})}
    [said] = told(**given)
    assert said.startswith(line)


@pytest.mark.parametrize(
    "key",
    ["sk-0f1e2d3c 4b5a69788796a5b4", '"sk-0f1e2d3c4b5a69788796"', "sk-…", "sk-short", "CHANGE-ME-CHANGE-ME"],
)
def test_a_mistyped_key_is_told_and_never_shown(key):
    [line] = told(model_key=key)
    assert line.startswith("model_key ")
    assert "Copy it again from the provider's page" in line
    assert key not in line


def test_a_key_pasted_twice_is_told():
    [line] = told(model_key="sk-0f1e2d3c4b5a69788796a5b4c3d2e1f0" * 2)
    assert "more than one key" in line


@pytest.mark.parametrize(
    ("count", "parts"),
    [(1, ("a", "a", "a")), (2, ("a", "b", "a")), (3, ("a", "b", "c")), (5, ("a", "b,c,d", "e"))],
)
def test_hosts_do_by_default_what_their_number_allows(count, parts):
    chosen = default_parts(list("abcde"[:count]))
    assert (chosen["edge_host"], chosen["agent_hosts"], chosen["data_host"]) == parts


def test_a_host_with_nothing_to_do_and_two_edges_are_told():
    [line] = told(**{**THREE, "agent_hosts": "192.0.2.31"})
    assert line.startswith("192.0.2.21 would have nothing to do. Name it in one of edge_host, ")
    [line] = told(**{**THREE, "edge_host": "192.0.2.10,192.0.2.31"})
    assert line == "edge_host names 2 hosts. Name one; several are not supported yet"


def asked(given):
    given, names = dict(given), []
    while question := next_question(given):
        names.append(question.name)
        given[question.name] = question.default
    return names


def test_one_host_is_asked_nothing_about_others():
    everything = ["ssh_user", "ssh_port", "ssh_key_file", "domain", "mail", "app_source", "model_key"]
    assert asked({"fleet_name": "shop", "addresses": "192.0.2.10"}) == everything
    assert "agent_hosts" in asked({"fleet_name": "shop", "addresses": "192.0.2.10,192.0.2.11"})


def test_an_own_app_and_a_certificate_ask_for_what_they_need():
    assert asked({**GOOD, **DEFAULTS, "ssh_key_file": "", "app_source": "~/shop"}) == ["app"]
    rest = {name: value for name, value in GOOD.items() if name != "mail"}
    assert "mail" not in asked({**rest, "tls_mode": "self_signed"})
    assert "mail" in asked({**rest, "tls_mode": "certbot"})


def test_what_is_missing_is_named_as_it_is_typed():
    assert missing(GOOD) == []
    assert missing({"fleet_name": "shop", "tls_mode": "self_signed", "app_source": "~/shop"}) == [
        "-e addresses=ADDRESS[,ADDRESS…]",
        "-e domain=NAME",
        "-e model_key=KEY (nothing after the = for the offline model)",
        "-e app=MODULE:APP",
    ]


def domain(ipv4=(), ipv6=(), mode="certbot"):
    at_once, later = judge_domain(Domain("agent.shop.test", ipv4, ipv6), ["192.0.2.10"], {"tls_mode": mode})
    return [f"{found.text}. {found.mend}" for found in at_once], [f"{found.text}. {found.mend}" for found in later]


def test_the_name_has_to_lead_to_the_edge():
    assert domain(("192.0.2.10",), ("2001:db8::1",)) == ([], [])
    assert domain(("192.0.2.9",)) == (
        [],
        ["agent.shop.test is 192.0.2.9, and the edge is 192.0.2.10. Set its A record to 192.0.2.10"],
    )
    mend = "Set its A record to 192.0.2.10"
    assert domain() == ([f"agent.shop.test does not resolve. {mend}, or correct -e domain"], [])
    assert domain(ipv6=("2001:db8::1",)) == (
        [f"agent.shop.test has an IPv6 address alone (2001:db8::1), and most users come over IPv4. {mend}"],
        [],
    )


def test_a_name_may_come_later_where_no_authority_looks_for_it():
    assert domain(mode="self_signed") == ([], [])


def test_an_answer_is_judged_by_itself_for_who_is_asked():
    assert wrong_answer("domain", "agent.shop.test") == ""
    assert wrong_answer("ssh_user", "") == ""
