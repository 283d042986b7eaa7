"""Money of single calls: the table, exact sums, and what is never guessed."""

from datetime import UTC, datetime, time
from decimal import Decimal
from itertools import product
from pathlib import Path

import pytest
from genai_prices import Usage, calc_price
from hypothesis import given
from hypothesis import strategies as st

from agent_service.models.prices import Price, Prices, PricesError, Rate, load_prices

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
TABLE = load_prices()
MODELS = sorted(TABLE._table)

tokens = st.integers(0, 10**9)
amounts = st.decimals(0, 10_000, places=6)
rates = st.builds(Rate, amounts, amounts, amounts)
moments = st.datetimes(datetime(2026, 1, 1), datetime(2027, 1, 1), timezones=st.just(UTC))


@pytest.mark.parametrize("model", [model for model in MODELS if model != "offline"])
def test_table_is_what_the_public_one_says(model: str) -> None:
    """Where this fails after a change of the lock, a provider changed its prices: follow it in prices.toml."""
    provider = {"d": "deepseek", "g": "openai", "c": "anthropic"}[model[0]]
    for hour, asked in product(range(24), (1_000, 200_000, 200_001)):
        at = NOON.replace(hour=hour)
        usage = Usage(input_tokens=asked, cache_read_tokens=400, output_tokens=500)
        public = calc_price(usage, model_ref=model, provider_id=provider, genai_request_timestamp=at)
        assert TABLE.cost(model, at, asked, 400, 500) == public.total_price, (hour, asked)


def test_cost_is_exact() -> None:
    # 1,000 fresh and 500 cached tokens in, 100 out, off peak and in it.
    assert TABLE.cost("deepseek-v4-flash", NOON, 1_500, 500, 100) == Decimal("0.0002115")
    assert TABLE.cost("deepseek-v4-flash", NOON.replace(hour=2), 1_500, 500, 100) == Decimal("0.000423")


@pytest.mark.parametrize("name", ["deepseek-v5", "gpt-5-2025-08-07", "GPT-5", "", "gpt-5 "])
def test_unknown_name_has_no_price(name: str) -> None:
    assert TABLE.cost(name, NOON, 1, 0, 1) is None
    assert not TABLE.known(name)


@given(rates, tokens, tokens, tokens)
def test_cost_is_never_negative_and_never_a_float(rate: Rate, asked: int, cached: int, answered: int) -> None:
    cost = rate.cost(asked, cached, answered)
    assert isinstance(cost, Decimal)
    assert 0 <= cost <= (asked * max(rate.input, rate.cached_input) + answered * rate.output) / 1_000_000


@given(rates, tokens, tokens, tokens, tokens, tokens)
def test_two_calls_cost_what_their_sum_costs(rate: Rate, a: int, b: int, c: int, d: int, cached: int) -> None:
    first, second = min(cached, a), min(cached, b)
    assert rate.cost(a, first, c) + rate.cost(b, second, d) == rate.cost(a + b, first + second, c + d)


@given(rates, tokens, st.integers(0, 10**6), tokens, tokens)
def test_more_tokens_never_cost_less(rate: Rate, asked: int, more: int, cached: int, answered: int) -> None:
    cached = min(asked, cached)
    assert rate.cost(asked + more, cached, answered) >= rate.cost(asked, cached, answered)
    assert rate.cost(asked, cached, answered + more) >= rate.cost(asked, cached, answered)


PEAKS = ((time(1), time(4)), (time(6), time(10)))


@given(st.builds(Price, rates, rates, st.just(PEAKS), rates, tokens), moments, tokens)
def test_one_rate_holds_at_any_time(price: Price, at: datetime, asked: int) -> None:
    rate = price.rate(at, asked)
    if asked > price.long_above:
        assert rate == price.long
    elif at.hour in {1, 2, 3, 6, 7, 8, 9}:
        assert rate == price.peak
    else:
        assert rate == price.usual


def test_override_adds_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "prices.toml"
    path.write_text('[gpt-4o]\ninput = 1\noutput = 2\n["llama3:8b"]\ninput = 0.1\noutput = 0.1\n')
    prices = load_prices(str(path))
    assert prices.cost("gpt-4o", NOON, 10**6, 10**6, 0) == 1
    assert prices.cost("llama3:8b", NOON, 3, 0, 0) == Decimal("0.0000003")
    assert prices.cost("gpt-5", NOON, 1000, 0, 0) == TABLE.cost("gpt-5", NOON, 1000, 0, 0)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[m]\ninput = 1\n", "m has no 'output'"),
        ("[m]\ninput = -1\noutput = 1\n", "m is no price"),
        ("[m]\ninput = nan\noutput = 1\n", "m is no price"),
        ("[m]\ninput = inf\noutput = 1\n", "m is no price"),
        ("[m]\ninput = 'much'\noutput = 1\n", "m is no price"),
        ("[m]\ninput = 1\noutput = 1\nprompt = 1\n", "m is no price"),
        ("m = 3\n", "m is no price"),
        ("[m]\ninput = 1\noutput = 1\npeak = {hours = ['late'], input = 1, output = 1}\n", "m is no price"),
        ("[m\n", "prices.toml: "),
    ],
)
def test_wrong_override_is_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "prices.toml"
    path.write_text(text)
    with pytest.raises(PricesError, match=reason):
        load_prices(str(path))


def test_missing_override_is_named() -> None:
    with pytest.raises(PricesError, match="/nowhere cannot be read: No such file"):
        load_prices("/nowhere")


def test_empty_table_knows_nothing() -> None:
    assert Prices({}).cost("gpt-5", NOON, 1, 0, 1) is None
