"""A circuit breaker as a state machine of its own: no clock, no network."""

import math
from dataclasses import dataclass
from typing import Literal

State = Literal["closed", "half-open", "open"]


@dataclass(slots=True)
class Breaker:
    """Opens after so many failures in a row; then one call every so many seconds may try, until one succeeds.

    A try that never comes back holds up nobody: the next one may start as long after its start as after a trip.
    """

    threshold: int
    seconds: float
    failures: int = 0
    tripped: bool = False
    wait_until: float = -math.inf
    closed_at: float = -math.inf

    def state(self, now: float) -> State:
        if not self.tripped:
            return "closed"
        return "open" if now < self.wait_until else "half-open"

    def admit(self, now: float) -> bool:
        """Whether a call may start; a half-open breaker takes it as its try."""
        state = self.state(now)
        if state == "half-open":
            self.wait_until = now + self.seconds
        return state != "open"

    def failed(self, now: float, began: float) -> bool:
        """Count a failure; whether it trips the breaker. One that began before a recovery says nothing of now."""
        if self.tripped or began < self.closed_at:
            return False
        self.failures += 1
        if self.failures < self.threshold:
            return False
        self.tripped = True
        self.wait_until = now + self.seconds
        return True

    def succeeded(self, now: float) -> bool:
        """Note a success; whether there was anything to forget."""
        if not self.tripped and not self.failures:
            return False
        self.adopt(now, 0, tripped=False, wait=0)
        return True

    def adopt(self, now: float, failures: int, *, tripped: bool, wait: float) -> None:
        """Take over what other instances know."""
        if self.tripped and not tripped:
            self.closed_at = now
        self.failures = failures
        self.tripped = tripped
        self.wait_until = now + wait
