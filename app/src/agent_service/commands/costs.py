"""What model calls have cost in a month, and its projection."""

import argparse
import json
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any

from agent_service.commands import database
from agent_service.core.settings import load_settings
from agent_service.models.projection import DAYS, project

# Days and months are UTC, as the budget's are.
_DAY = "(called_at AT TIME ZONE 'UTC')::date"
_GROUPS = {"model": "model", "agent": "agent", "user": "coalesce(user_id, '-')", "day": f"{_DAY}::text"}

_BY = """
SELECT {group}, count(*), coalesce(sum(input_tokens), 0), coalesce(sum(output_tokens), 0),
       coalesce(sum(cost_usd), 0), count(*) FILTER (WHERE input_tokens IS NOT NULL AND cost_usd IS NULL)
FROM model_calls
WHERE called_at >= %s AND called_at < %s
GROUP BY 1
ORDER BY {order}
"""
_DAILY = (
    f"SELECT {_DAY}, coalesce(sum(cost_usd), 0) FROM model_calls WHERE called_at >= %s AND called_at < %s GROUP BY 1"
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--month", type=_month, metavar="YYYY-MM", help="the present one by default (UTC)")
    parser.add_argument("--by", choices=sorted(_GROUPS), default="model", help="what to sum by (default: model)")
    parser.add_argument("--json", action="store_true", help="one JSON document, with exact amounts as strings")


def run(options: argparse.Namespace) -> int:
    with database(load_settings()) as connection:
        report = _report(connection, options.month or _today().replace(day=1), options.by, _today())
    print(json.dumps(report, indent=2) if options.json else _text(report, options.by))
    return 0


def _report(connection: Any, month: date, by: str, today: date) -> dict[str, Any]:
    start, end = _midnight(month), _midnight((month + timedelta(days=31)).replace(day=1))
    query = _BY.format(group=_GROUPS[by], order="1" if by == "day" else "5 DESC, 1")
    rows = connection.execute(query, [start, end]).fetchall()
    days = dict(connection.execute(_DAILY, [start - timedelta(days=DAYS), end]).fetchall())
    projection = project(days, month, today)
    return {
        "month": f"{month:%Y-%m}",
        "spent_usd": f"{projection.spent:f}",
        "projected_usd": None if projection.total is None else f"{projection.total:f}",
        "projection": projection.how,
        "unpriced_calls": sum(row[5] for row in rows),
        f"by_{by}": [
            {
                by: name,
                "calls": calls,
                "input_tokens": int(asked),
                "output_tokens": int(answered),
                "cost_usd": f"{cost:f}",
                "unpriced_calls": unpriced,
            }
            for name, calls, asked, answered, cost, unpriced in rows
        ],
    }


def _text(report: dict[str, Any], by: str) -> str:
    lines = [f"{by:<32} {'calls':>10} {'input':>14} {'output':>14} {'USD':>14}"]
    lines += [
        f"{row[by]:<32} {row['calls']:>10} {row['input_tokens']:>14} {row['output_tokens']:>14} "
        f"{_cents(row['cost_usd']):>14}"
        for row in report[f"by_{by}"]
    ]
    total = report["projected_usd"]
    lines += [
        "",
        f"{report['month']}: {_cents(report['spent_usd'])} USD spent, "
        f"{'no projection' if total is None else _cents(total) + ' USD projected'} ({report['projection']})",
    ]
    if report["unpriced_calls"]:
        lines.append(f"{report['unpriced_calls']} calls have no price and are not in these sums (AGENT_PRICES_FILE).")
    return "\n".join(lines)


def _cents(amount: str) -> str:
    """Hundredths of a cent: single calls cost less than a cent."""
    return str(Decimal(amount).quantize(Decimal("0.0001"), ROUND_HALF_UP))


def _month(text: str) -> date:
    try:
        return datetime.strptime(text, "%Y-%m").date()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no month; write it as 2026-11") from None


def _today() -> date:
    return datetime.now(UTC).date()


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
