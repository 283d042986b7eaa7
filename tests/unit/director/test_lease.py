"""One writer at a time, with a number that only grows."""

import pytest
from ansible_collections.agentfleet.vm.plugins.module_utils.director.lease import (
    Lease,
    LeaseError,
    acquire,
    check,
    release,
    renew,
)
from hypothesis import given
from hypothesis import strategies as st


def test_a_live_lease_is_refused_by_name_and_one_that_lapsed_is_not():
    lease = acquire(Lease(), "ann on desk", "deploy", 1000)
    with pytest.raises(LeaseError, match="ann on desk has the lease for deploy; it ends in 10 s"):
        acquire(lease, "bob", "deploy", 1020)
    assert acquire(lease, "bob", "deploy", 1030).generation > lease.generation


def test_who_lost_the_lease_changes_nothing():
    lease = acquire(Lease(), "ann", "deploy", 1000)
    with pytest.raises(LeaseError, match="lapsed 1 s ago"):
        check(lease, lease.generation, 1031)
    with pytest.raises(LeaseError):
        renew(lease, lease.generation, 1031)
    newer = acquire(lease, "bob", "rollback", 1031)
    with pytest.raises(LeaseError, match="since bob began rollback"):
        check(newer, lease.generation, 1032)
    assert release(newer, lease.generation) == newer, "what somebody else has stays theirs"
    assert not release(newer, newer.generation).live(1032)


def test_renewed_it_lives_on():
    lease = renew(acquire(Lease(), "ann", "deploy", 1000), 1000, 1020, "stage 2")
    check(lease, 1000, 1049)
    assert "stage 2" in lease.words(1049)


@given(st.lists(st.tuples(st.floats(0, 100), st.booleans()), max_size=20))
def test_generations_only_grow_whatever_the_clock_does(moves):
    lease, now, seen = Lease(), 1000.0, []
    for step, back in moves:
        now += -step if back else step
        try:
            lease = acquire(lease, "x", "y", now)
        except LeaseError:
            continue
        seen.append(lease.generation)
    assert seen == sorted(set(seen))


def test_an_edge_that_was_made_anew_passes_the_generations_of_its_hosts():
    old = acquire(Lease(), "ann", "deploy", 1_800_000_000)
    assert acquire(Lease(), "bob", "deploy", 1_800_000_100).generation > old.generation
