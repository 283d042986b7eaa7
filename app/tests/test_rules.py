"""The pure rules around a model call: pauses and tiers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent_service.core.settings import Tier
from agent_service.models.retry import LONGEST_SECONDS, pause
from agent_service.models.tiers import TIERS, complexity, suited

chances = st.floats(0, 1)
tiers = st.sampled_from(TIERS)


@given(st.integers(0, 10_000), st.floats(0, 1000), chances)
def test_pause_is_bounded_and_keeps_what_was_asked(attempt: int, asked: float, chance: float) -> None:
    seconds = pause(attempt, asked, chance)
    if asked > LONGEST_SECONDS:
        assert seconds is None
    else:
        assert seconds is not None
        assert max(asked, 0.25) <= seconds <= LONGEST_SECONDS


@given(st.integers(0, 100), chances, chances)
def test_pauses_grow_whatever_the_chance(attempt: int, first: float, second: float) -> None:
    earlier, later = pause(attempt, 0, first), pause(attempt + 1, 0, second)
    assert earlier is not None and later is not None
    assert later >= earlier or later >= LONGEST_SECONDS / 2


@pytest.mark.parametrize(
    ("message", "step"),
    [
        ("Hi", -1),
        ("Obrigado, até amanhã!", -1),
        ("谢谢", -1),
        ("Please tell me how the budget process of our company works when two departments share a cost.", 0),
        ("What did we earn in 2025?", 0),
        ("Why? How? Who pays?", 1),
        ("为什么\uff1f怎么办\uff1f谁来付\uff1f", 1),
        ("Plan:\n- hire\n- train\n- review", 1),
        ("word " * 300, 1),
        ("字" * 450, 1),
        ("Check ```total = a + b```", 1),
        ("10 20 30 40 50 60 70 80", 1),
    ],
)
def test_complexity(message: str, step: int) -> None:
    assert complexity(message) == step


@given(tiers, st.text(), tiers, tiers)
def test_tier_stays_in_its_bounds_and_moves_one_step(tier: Tier, message: str, one: Tier, other: Tier) -> None:
    minimum, maximum = sorted((one, other), key=TIERS.index)
    chosen = TIERS.index(suited(tier, message, minimum, maximum))
    low, high = TIERS.index(minimum), TIERS.index(maximum)
    assert low <= chosen <= high
    assert abs(chosen - max(low, min(TIERS.index(tier), high))) <= 1
