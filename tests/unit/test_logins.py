"""Who may log in at Nginx: digests that stay while passwords do, and show nothing."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils import logins

USERS = {"bob": "a long password", "alice": "pa$$ word: with signs"}


def test_a_digest_is_of_the_kind_that_nginx_reads():
    """That it opens the door is for the edge's scenario."""
    kind, salt, kept = logins.digest("Hello world!", "saltstring").split("$")[1:]
    assert (kind, salt, len(kept)) == ("6", "saltstring", 86)


def test_who_keeps_a_password_keeps_the_digest():
    first = logins.settle({}, USERS)
    assert list(first) == ["alice", "bob"]
    assert logins.settle(logins.parse(logins.render(first)), USERS) == first


def test_another_password_is_another_digest_with_another_salt():
    first = logins.settle({}, USERS)
    second = logins.settle(first, {**USERS, "bob": "another password"})
    assert second["alice"] == first["alice"]
    assert logins.salt_of(second["bob"]) != logins.salt_of(first["bob"])
    assert logins.digest("another password", logins.salt_of(second["bob"])) == second["bob"]


def test_two_with_one_password_have_two_digests():
    made = logins.settle({}, {"alice": "the same password", "bob": "the same password"})
    assert made["alice"] != made["bob"]


@pytest.mark.parametrize("kept", ["", "plain", "$apr1$abc$def", "$6$abc", "$6$rounds=10000$abc$def"])
def test_what_is_not_of_our_kind_is_made_anew(kept):
    assert logins.settle({"bob": kept}, {"bob": "a long password"})["bob"].startswith("$6$")
    assert logins.salt_of(kept) == ""


def test_who_is_gone_is_gone():
    assert list(logins.settle(logins.settle({}, USERS), {"bob": USERS["bob"]})) == ["bob"]


def test_a_difference_names_people_and_shows_no_digest():
    before = logins.settle({}, USERS)
    after = logins.settle(before, {"bob": "another password", "carol": "a third password"})
    shown = logins.difference(before, after)
    assert shown == {"before": "alice\nbob\n", "after": "bob (new password)\ncarol\n"}
