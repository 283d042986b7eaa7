"""Amounts as tools take and give them: decimals with bounds, rounded as people round."""

from decimal import ROUND_HALF_UP, Decimal, localcontext
from typing import Annotated

from pydantic import Field

# Far above any company's, and far below what makes arithmetic slow or a column overflow.
LIMIT = Decimal("1e12")

Amount = Annotated[Decimal, Field(ge=0, le=LIMIT, max_digits=18, decimal_places=4)]
SignedAmount = Annotated[Decimal, Field(ge=-LIMIT, le=LIMIT, max_digits=18, decimal_places=4)]
Percent = Annotated[Decimal, Field(ge=0, le=1000, max_digits=9, decimal_places=5)]
Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$", description="ISO 4217 code, such as EUR")]


def cents(value: Decimal) -> Decimal:
    with localcontext(prec=50):
        return value.quantize(Decimal("0.01"), ROUND_HALF_UP)


def share(part: Decimal, whole: Decimal) -> Decimal | None:
    """PART as percent of WHOLE, to one decimal; nothing is a share of nothing."""
    with localcontext(prec=50):
        return (part / whole * 100).quantize(Decimal("0.1"), ROUND_HALF_UP) if whole else None
