"""What a turn asked of models: found through the context by whoever is called on its behalf."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal


@dataclass(frozen=True, slots=True)
class ModelCall:
    """One call, as it is stored. Tokens and cost are None where nobody told them."""

    at: datetime
    agent: str
    model: str
    milliseconds: int
    outcome: str
    input_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None
    cost_usd: Decimal | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    input_tokens: int
    output_tokens: int
    total_tokens: int
    cached_tokens: int
    cost_usd: Decimal | None
    from_cache: bool


@dataclass(slots=True)
class TurnCalls:
    """The calls of one turn, or of one job; also why its answer is as it is."""

    request_id: str | None = None
    session_id: str | None = None
    user_id: str | None = None
    opening: bool = False
    agent: str = "none"
    # The model that gave the answer, and whether the present call has sent any of it to the client.
    model: str | None = None
    sending: bool = False
    degraded: bool = False
    from_cache: bool = False
    # Whose request it is, where one is: a key's callers or a token's user.
    caller: str = ""
    # The day's counter as it was known before anything of this was stored.
    counter: str = ""
    # Whether its calls are in the database.
    stored: bool = False
    calls: list[ModelCall] = field(default_factory=list)

    def largest(self, agent: str) -> int | None:
        """The tokens of the agent's largest call, with its answer; None where none told."""
        told = [call for call in self.calls if call.agent == agent and call.input_tokens is not None]
        return max(((call.input_tokens or 0) + (call.output_tokens or 0) for call in told), default=None)

    @property
    def known_cost(self) -> Decimal:
        return sum((call.cost_usd for call in self.calls if call.cost_usd is not None), Decimal(0))

    @property
    def cost_usd(self) -> Decimal | None:
        """What the turn cost, or None where a call has no price."""
        counted = [call.cost_usd for call in self.calls if call.input_tokens is not None]
        return self.known_cost if counted and None not in counted else None

    @property
    def usage(self) -> Usage | None:
        """All that its calls used; None where no call told."""
        told = [call for call in self.calls if call.input_tokens is not None]
        if not told:
            return None
        asked = sum(call.input_tokens or 0 for call in told)
        answered = sum(call.output_tokens or 0 for call in told)
        return Usage(
            input_tokens=asked,
            output_tokens=answered,
            total_tokens=asked + answered,
            cached_tokens=sum(call.cached_tokens or 0 for call in told),
            cost_usd=self.cost_usd,
            from_cache=self.from_cache,
        )


_current: ContextVar[TurnCalls] = ContextVar("turn_calls")


def current_turn() -> TurnCalls:
    """The turn that this code runs for; outside of one, one that nobody looks at."""
    return _current.get(None) or TurnCalls()


def begin_turn(turn: TurnCalls) -> None:
    """From here on, in this task and what it starts, calls belong to TURN."""
    _current.set(turn)
