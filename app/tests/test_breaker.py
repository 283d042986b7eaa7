"""The breaker as a state machine, against what it promises."""

import math

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from agent_service.models.breaker import Breaker

THRESHOLD, SECONDS = 3, 10.0


class Machine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(THRESHOLD, SECONDS)
        self.now = 100.0
        self.in_a_row = 0
        self.recovered_at = -math.inf
        # When the last call of an open breaker started, or it opened.
        self.tried_at = -math.inf

    @rule(seconds=st.floats(0, 3 * SECONDS))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def call_asks(self) -> None:
        was_closed = self.in_a_row < THRESHOLD
        admitted = self.breaker.admit(self.now)
        assert admitted == (was_closed or self.now >= self.tried_at + SECONDS)
        if admitted and not was_closed:
            self.tried_at = self.now
            assert not self.breaker.admit(self.now), "a second try at once"

    @rule(age=st.floats(0, 2 * SECONDS))
    def call_fails(self, age: float) -> None:
        began = self.now - age
        was_closed = self.in_a_row < THRESHOLD
        tripped = self.breaker.failed(self.now, began)
        if was_closed and began >= self.recovered_at:
            self.in_a_row += 1
            assert tripped == (self.in_a_row == THRESHOLD)
            if tripped:
                self.tried_at = self.now
        else:
            assert not tripped

    @rule()
    def call_succeeds(self) -> None:
        if self.in_a_row >= THRESHOLD:
            self.recovered_at = self.now
        assert self.breaker.succeeded(self.now) == (self.in_a_row > 0)
        self.in_a_row = 0

    @rule(wait=st.floats(0, SECONDS))
    def another_instance_trips(self, wait: float) -> None:
        self.breaker.adopt(self.now, THRESHOLD, tripped=True, wait=wait)
        self.in_a_row = THRESHOLD
        self.tried_at = self.now + wait - SECONDS

    @precondition(lambda self: self.in_a_row >= THRESHOLD)
    @rule()
    def another_instance_recovers(self) -> None:
        self.breaker.adopt(self.now, 0, tripped=False, wait=0)
        self.in_a_row = 0
        self.recovered_at = self.now

    @invariant()
    def state_is_what_calls_meet(self) -> None:
        closed = self.in_a_row < THRESHOLD
        assert (self.breaker.state(self.now) == "closed") == closed

    @invariant()
    def no_wait_is_longer_than_one(self) -> None:
        """So the first try comes within one wait, whatever happened before."""
        assert self.breaker.state(self.now + SECONDS) != "open"


TestBreaker = Machine.TestCase
