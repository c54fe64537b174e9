"""Values that cannot be: negative amounts, impossible times and birth dates, lines of sums."""

from __future__ import annotations

import re
from datetime import datetime, timedelta

from features.data.lake import literal, quote
from qianmian.schema import Column, Table

NON_NEGATIVE = {
    ("transactions", "discount"),
    ("transactions", "coupon_discount"),
    ("items", "price"),
    ("events", "duration_seconds"),
}
# times outside this range are placeholders, and do not fit into nanoseconds
FIRST_TIME, LAST_TIME = "1900-01-01", "2262-01-01"
# what reports write before the sum of the lines above
TOTAL_WORDS = (
    *("total", "totals", "grand total", "sub total", "sub-total", "subtotal", "sum", "sums", "overall"),
    *("summe", "gesamt", "gesamtsumme", "zwischensumme", "endsumme", "insgesamt", "total général", "sous-total"),
    *("total general", "suma", "totale", "totaal", "subtotaal", "razem", "celkem", "összesen", "totalt", "yhteensä"),
    *("итого", "всего", "toplam", "genel toplam", "合计", "合計", "总计", "總計", "小计", "小計", "总和", "汇总"),
    *("総計", "총계", "합계", "소계"),
)
_TOTAL_LINE = rf"(?i)[\s*=#-]*(?:{'|'.join(map(re.escape, TOTAL_WORDS))})[\s:：*=#-]*"
PAID = "coalesce(lower(trim(status)), 'paid') = 'paid'"


def range_cases(table: Table, column: Column, now: datetime | None) -> list[tuple[str, str]]:
    """(SQL condition, reason) of the values of a column that cannot be; `now` rejects those more than a day later."""
    name = quote(column.name)
    if (table.name, column.name) in NON_NEGATIVE:
        condition = f"{name} < 0"
        if table.name == "transactions":  # in a refund every sign may be reversed
            condition += f" AND coalesce(quantity, 0) >= 0 AND coalesce(amount, 0) >= 0 AND {PAID}"
        return [(condition, f"{column.name} is negative")]
    if column.unit == "0..1":
        return [(f"NOT {name} BETWEEN 0 AND 1", f"{column.name} is not between 0 and 1")]
    if column.name == "birth_date":
        cases = [(f"{name} < DATE '{FIRST_TIME}'", f"birth_date is before {FIRST_TIME}")]
        if now is not None:
            latest = (now + timedelta(days=1)).date().isoformat()
            reason = "birth_date is in the future: strptime reads the years 00 to 68 of %y as 2000 to 2068"
            cases.append((f"{name} > DATE '{latest}'", reason))
        return cases
    if column.name in ("ts", "observed_at", "known_at") or column.dates_row:
        outside = f"{name} < TIMESTAMP '{FIRST_TIME}' OR {name} >= TIMESTAMP '{LAST_TIME}'"
        cases = [(outside, f"{column.name} is not between {FIRST_TIME} and {LAST_TIME}")]
        if now is not None:  # one day of tolerance for a wrong time zone
            latest = (now + timedelta(days=1)).isoformat(sep=" ")
            reason = f"{column.name} is in the future: check the clock of the source"
            cases.append((f"{name} > TIMESTAMP {literal(latest)}", reason))
        return cases
    return []


def order_cases() -> list[tuple[str, str]]:
    """(SQL condition, reason) of the order lines that cannot be."""
    return [
        (
            "CASE WHEN source_user_id IS NULL AND item_id IS NULL "
            f"THEN regexp_full_match(order_id, {literal(_TOTAL_LINE)}) END",
            "order_id is a word for a total, and the row has neither customer nor item: the sum of a report, no order",
        ),
        (f"{PAID} AND quantity * amount < 0", "quantity and amount have opposite signs, and status is not refunded"),
    ]


def promotion_cases() -> list[tuple[str, str]]:
    """(SQL condition, reason) of the promotions that cannot be."""
    return [
        (
            "item_id IS NULL AND category IS NULL",
            "neither item_id nor category: the row does not name what is promoted",
        ),
        ('"end" < start', "end is before start"),
    ]
