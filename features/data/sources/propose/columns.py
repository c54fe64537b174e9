"""Which column of a file is which canonical column, and which table the file is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from features.data.sources.propose.names import canonical_of, plain, rank_of
from features.data.sources.propose.sample import Sample
from features.data.sources.propose.values import is_clock_time, is_time, number_reading
from features.data.sources.propose.words import BEHAVIOURS, BOOKINGS, NAMES

# canonical table → its columns in order
TABLE_COLUMNS: dict[str, tuple[str, ...]] = {
    "transactions": (
        *("order_id", "source_user_id", "item_id", "ts", "quantity", "amount", "status", "store_id", "channel"),
    ),
    "events": ("source_user_id", "event_type", "ts", "item_id", "category", "session_id"),
    "items": ("item_id", "category", "brand", "price", "available"),
    "profiles": (
        *("source_user_id", "gender", "birth_date", "city", "region", "registered_at", "member_tier"),
        *("consent_email", "consent_sms", "consent_push"),
    ),
}
# columns without which a table is of little use: a file that seems to lack one is asked for it
ASKED = {
    "transactions": ("order_id", "source_user_id", "item_id", "ts", "amount"),
    "events": ("source_user_id", "event_type", "ts"),
    "items": ("item_id",),
    "profiles": ("source_user_id",),
}
MIN_FILLED = 0.5  # a column that is blank in more rows comes after one that is not
MAX_STATES = 12  # distinct values of a column of states
_SHARE = 0.9


def best_columns(sample: Sample) -> dict[str, str]:
    """Canonical column → the column of the file that it is, by names, or by values in a file without a header."""
    if not sample.has_header:
        return _by_content(sample)
    best = {column: name for column in NAMES if (name := _column_named(sample, column)) is not None}
    if "order_id" not in best and best.get("source_user_id") and {"amount", "quantity"} & best.keys():
        own = next((name for name in sample.names if plain(name) == "id" and name != best["source_user_id"]), None)
        if own is not None:
            best["order_id"] = own
    # the Shopify export calls the order number `Name`; no other export with line items does
    if "order_id" not in best and {"Name", "Lineitem sku"} <= set(sample.names):
        best["order_id"] = "Name"
    if plain(best.get("source_user_id", "")) == "id" and "item_id" not in best and _is_catalogue(best):
        best["item_id"] = best.pop("source_user_id")
    event = best.get("event_type")
    if event is not None and "order_id" in best and states(sample, event, BOOKINGS):
        del best["event_type"]  # the kinds of bookings of a till: payment, refund
    if "event_type" not in best and not {"order_id", "amount", "quantity"} & best.keys():
        kind = next((name for name in sample.names if name not in best.values() and _behaviours(sample, name)), None)
        if kind is not None:
            best["event_type"] = kind
    if "status" not in best and "event_type" not in best:
        state = next(
            (name for name in sample.names if name not in best.values() and states(sample, name, BOOKINGS)), None
        )
        if state is not None:
            best["status"] = state
    return best


def _is_catalogue(best: Mapping[str, str]) -> bool:
    people = {"email", "gender", "birth_date", "city", "registered_at", "member_tier", "order_id", "ts"}
    return bool({"unit_price", "brand", "category", "item_title"} & best.keys()) and not people & best.keys()


def _column_named(sample: Sample, column: str) -> str | None:
    """The column of the file whose name is the most certain name of `column`; mostly blank ones come last."""
    ranked = [
        (len(sample.values(name)) < MIN_FILLED * len(sample.columns[place]), rank, place)
        for place, name in enumerate(sample.names)
        if (rank := rank_of(column, name)) is not None
    ]
    if column == "source_user_id" and len(ranked) == 1 and plain(sample.names[ranked[0][2]]) == "id" and _sells(sample):
        return None  # the id of the order or of the line
    return sample.names[min(ranked)[2]] if ranked else None


def _sells(sample: Sample) -> bool:
    return any(rank_of(number, name) is not None for number in ("quantity", "amount") for name in sample.names)


def _by_content(sample: Sample) -> dict[str, str]:
    """Columns of a file without a header line: behaviours and times by their values, ids by their order."""
    best: dict[str, str] = {}
    rest = []
    for name in sample.names:
        values = sample.values(name)
        if values and all(canonical_of(value, BEHAVIOURS) for value in values):
            best.setdefault("event_type", name)
        elif is_time(values):
            best.setdefault("ts", name)
        else:
            rest.append(name)
    ids = (
        ("source_user_id", "item_id", "category") if "event_type" in best else ("order_id", "source_user_id", "item_id")
    )
    return {**dict(zip(ids, rest, strict=False)), **best}


def table_of(best: Mapping[str, str]) -> str | None:
    """The canonical table that has these columns; None if they do not tell."""
    money = bool({"amount", "quantity", "unit_price"} & best.keys())
    if "event_type" in best:
        return "events"
    if "order_id" in best and (money or {"item_id", "ts"} & best.keys()):
        return "transactions"
    if money and ("ts" in best or {"amount", "quantity"} <= best.keys()):
        return "transactions"
    if "item_id" in best and "source_user_id" not in best and "ts" not in best:
        return "items"
    if "item_id" in best and "ts" in best:
        return "events"
    if ("source_user_id" in best or "email" in best) and "order_id" not in best and "item_id" not in best:
        return "profiles"
    return None


def states(sample: Sample, name: str, words: Mapping[str, str]) -> bool:
    """Whether a column holds states of orders: few values, half of them known, and one for refunds or cancellations."""
    values = {value.strip() for value in sample.values(name)}
    known = [canonical_of(value, words) for value in values]
    return (
        1 < len(values) <= MAX_STATES
        and 2 * sum(canonical is not None for canonical in known) >= len(values)
        and bool({"refunded", "cancelled"} & set(known))
    )


def _behaviours(sample: Sample, name: str) -> bool:
    """Whether a column holds kinds of events: few values, and most of them known."""
    values = {value.strip() for value in sample.values(name)}
    known = sum(canonical_of(value, BEHAVIOURS) is not None for value in values)
    return bool(values) and len(values) <= MAX_STATES and 2 * known > len(values)


def clock_column(sample: Sample, day: str) -> str | None:
    """The column with the clock times, if the column `day` holds days only."""
    if any(":" in value for value in sample.values(day)):
        return None
    named = [name for name in sample.names if name != day and rank_of("ts", name) is not None]
    return next((name for name in named if is_clock_time(sample.values(name))), None)


def per_unit(sample: Sample, best: Mapping[str, str]) -> bool:
    """Whether the amount of a line is its price times its quantity.

    The file has a price and no amount of the line: none at all, or the same one on all lines of an order.
    """
    if not {"unit_price", "quantity"} <= best.keys():
        return False
    if "amount" not in best or best["unit_price"].lower().startswith("lineitem"):
        return True
    return repeats_in_orders(sample, best) and not _is_product(sample, best)


def repeats_in_orders(sample: Sample, best: Mapping[str, str]) -> bool:
    """Whether the amount is the same on all lines of nearly all orders with several lines: that of the order."""
    if not {"order_id", "amount"} <= best.keys():
        return False
    amounts: dict[str, list[str]] = {}
    for order, amount in zip(_cells(sample, best["order_id"]), _cells(sample, best["amount"]), strict=True):
        amounts.setdefault(order, []).append(amount.strip())
    several = [lines for order, lines in amounts.items() if order.strip() and len(lines) > 1 and any(lines)]
    return bool(several) and sum(len(set(lines)) == 1 for lines in several) >= _SHARE * len(several)


def _is_product(sample: Sample, best: Mapping[str, str]) -> bool:
    """Whether the amount of most lines is the price times the quantity."""
    parts = [_numbers(_cells(sample, best[name])) for name in ("amount", "unit_price", "quantity")]
    known = [(a, p, q) for a, p, q in zip(*parts, strict=True) if a is not None and p is not None and q is not None]
    return bool(known) and sum(abs(p * q - a) < 0.01 for a, p, q in known) > len(known) / 2


def _numbers(cells: Sequence[str]) -> list[float | None]:
    comma = number_reading(cells).separators == {","}
    found: list[float | None] = []
    for cell in cells:
        text = re.sub(r"[^0-9.,-]", "", cell)
        text = text.replace(".", "").replace(",", ".") if comma else text.replace(",", "")
        found.append(float(text) if re.fullmatch(r"-?\d+(\.\d+)?", text) else None)
    return found


def _cells(sample: Sample, name: str) -> tuple[str, ...]:
    return sample.columns[sample.names.index(name)]


def blank_after_first_line(sample: Sample, order: str, used: set[str]) -> list[str]:
    """Used columns that are filled on the first line of every order and blank on all its other lines."""
    orders = _cells(sample, order)
    later = [at for at in range(1, len(orders)) if orders[at] == orders[at - 1]]
    first = [at for at in range(len(orders)) if at == 0 or orders[at] != orders[at - 1]]
    return [
        name
        for name, cells in zip(sample.names, sample.columns, strict=True)
        if name in used
        and later
        and not any(cells[at].strip() for at in later)
        and all(cells[at].strip() for at in first)
    ]
