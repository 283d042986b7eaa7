"""What a model call costs, exactly: a table as data, and decimals from it to the answer."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, time
from decimal import Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any

MILLION = Decimal(1_000_000)


class PricesError(ValueError):
    """A price table that cannot be used, in one line."""


@dataclass(frozen=True, slots=True)
class Rate:
    """US dollars for a million tokens."""

    input: Decimal
    cached_input: Decimal
    output: Decimal

    def cost(self, input_tokens: int, cached_tokens: int, output_tokens: int) -> Decimal:
        # A provider's counts are not to be trusted with a negative cost.
        cached = min(cached_tokens, input_tokens)
        total = (input_tokens - cached) * self.input + cached * self.cached_input + output_tokens * self.output
        return total / MILLION


@dataclass(frozen=True, slots=True)
class Price:
    usual: Rate
    peak: Rate | None = None
    peak_hours: tuple[tuple[time, time], ...] = ()
    long: Rate | None = None
    long_above: int = 0

    def rate(self, at: datetime, input_tokens: int) -> Rate:
        """What holds at a moment (in UTC) for a call of this size."""
        if self.long and input_tokens > self.long_above:
            return self.long
        if self.peak and any(start <= at.time() < end for start, end in self.peak_hours):
            return self.peak
        return self.usual


class Prices:
    def __init__(self, table: Mapping[str, Price]) -> None:
        self._table = table

    def known(self, model: str) -> bool:
        return model in self._table

    def cost(
        self, model: str, at: datetime, input_tokens: int, cached_tokens: int, output_tokens: int
    ) -> Decimal | None:
        """None for a model without a price; names are taken as they are, since a snapshot may cost otherwise."""
        price = self._table.get(model)
        if price is None:
            return None
        return price.rate(at, input_tokens).cost(input_tokens, cached_tokens, output_tokens)


def load_prices(override: str = "") -> Prices:
    """The table of the package; models of the file OVERRIDE replace those of the same name."""
    table = _table(files("agent_service.models").joinpath("prices.toml").read_text("utf-8"), "prices.toml")
    if override:
        try:
            text = Path(override).read_text("utf-8")
        except OSError as error:
            raise PricesError(f"{override} cannot be read: {error.strerror}") from None
        table |= _table(text, override)
    return Prices(table)


def _table(text: str, name: str) -> dict[str, Price]:
    try:
        document = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PricesError(f"{name}: {error}") from None
    table = {}
    for model, entry in document.items():
        try:
            table[model] = _price(entry)
        except KeyError as error:
            raise PricesError(f"{name}: {model} has no {error}") from None
        except (AttributeError, TypeError, ValueError, ArithmeticError):
            raise PricesError(f"{name}: the price of {model} is no price") from None
    return table


def _price(entry: Mapping[str, Any]) -> Price:
    if unknown := set(entry) - {"input", "cached_input", "output", "peak", "long"}:
        raise ValueError(f"{', '.join(sorted(unknown))}: not known")
    peak, long = entry.get("peak"), entry.get("long")
    return Price(
        usual=_rate(entry),
        peak=_rate(peak) if peak else None,
        peak_hours=tuple(_hours(text) for text in peak["hours"]) if peak else (),
        long=_rate(long) if long else None,
        long_above=int(long["above"]) if long else 0,
    )


def _rate(entry: Mapping[str, Any]) -> Rate:
    rate = Rate(Decimal(entry["input"]), Decimal(entry.get("cached_input", entry["input"])), Decimal(entry["output"]))
    if not all(amount.is_finite() and amount >= 0 for amount in (rate.input, rate.cached_input, rate.output)):
        raise ValueError("a price is a number from 0")
    return rate


def _hours(text: str) -> tuple[time, time]:
    start, _, end = text.partition("-")
    return time.fromisoformat(start), time.fromisoformat(end)
