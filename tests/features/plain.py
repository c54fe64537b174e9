"""Features computed plainly, row by row: made-up histories, declarations of every kind, and what each must give."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from datetime import UTC, datetime, time, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

from hypothesis import strategies as st

from features.compute.algebra import Condition, Feature

BEGIN = datetime(2024, 2, 20)
WINDOWS = (None, 7, 28)
# summer time begins within the histories, by an hour; an offset of half an hour; summer time ends, by half an hour
ZONES = ("UTC", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe")

# ---- made-up histories ---------------------------------------------------------------------------------------------------

MILKS = ("m1", "m2", "m3", "m4")  # with i1 just enough items in one category for price levels
SOURCES, USERS, ITEMS = ("app", "shop 2"), ("1", "2", "张三"), ("i1", "i2", "i3", "bag", "i9", *MILKS)
# i9 is in no list
CATEGORIES = {
    "i1": "food/milk",
    "i2": "food/bread",
    "i3": "home",
    "bag": "food/bags",
    **dict.fromkeys(MILKS, "food/milk"),
}
BRANDS = {"i1": "b", "i2": "a", "bag": "a"}
MERCHANDISE = {"i1": True, "bag": False}
TOPICS = {"c1": "milk|bread", "c2": "bread"}  # c3 is in no list
# few distinct moments, so that many rows share one; midnights, window edges and seconds beside them
TIMES = st.builds(
    lambda day, second: BEGIN + timedelta(days=day, seconds=second),
    st.integers(0, 50),
    st.sampled_from([0, 0, 1, 43_200, 86_399]),
)
MOMENTS = st.builds(
    lambda day, second: BEGIN + timedelta(days=day, seconds=second),
    st.integers(1, 55),
    st.sampled_from([0, 0, 0, 1, 43_200]),
)
AMOUNTS = st.sampled_from([None, 0.0, 1.0, 2.5, 10.0, 99.5])
DATE_ONLY = st.sampled_from([None, False, False, True])
STATUSES = st.sampled_from(["paid", "paid", "paid", "paid", "refunded", "cancelled"])

LINE = st.fixed_dictionaries(
    {
        "source": st.sampled_from(SOURCES),
        "source_user_id": st.sampled_from([*USERS, *USERS, None]),
        "order_id": st.sampled_from(["o1", "o2", "o3", "o4"]),
        "ts": TIMES,
        "date_only": DATE_ONLY,
        "item_id": st.sampled_from([*ITEMS, None]),
        "quantity": st.sampled_from([None, 0.0, 1.0, 3.0]),
        "amount": AMOUNTS,
        "discount": AMOUNTS,
        "coupon_discount": st.sampled_from([None, 0.0, 1.0]),
        "store_id": st.sampled_from(["s1", "s2", None]),
        "channel": st.sampled_from(["web", "app", None]),
        "status": STATUSES,
    }
)
EVENT = st.fixed_dictionaries(
    {
        "source": st.sampled_from(SOURCES),
        "source_user_id": st.sampled_from([*USERS, "4", None]),
        "event_type": st.sampled_from(["view", "cart", "search"]),
        "ts": TIMES,
        "date_only": DATE_ONLY,
        "item_id": st.sampled_from([*ITEMS, None]),
        "category": st.sampled_from([None, None, "own/category"]),
        "session_id": st.sampled_from(["x", None, None]),
        "duration_seconds": AMOUNTS,
        "content_id": st.sampled_from(["c1", "c2", "c3", None]),
        "channel": st.sampled_from(["web", "app", None]),
    }
)
TOUCH = st.fixed_dictionaries(
    {
        "source": st.sampled_from(SOURCES),
        "source_user_id": st.sampled_from(USERS),
        "campaign_id": st.sampled_from(["m1", "m2"]),
        "ts": TIMES,
        "opened": st.sampled_from([True, False, None]),
    }
)
PROFILE = st.fixed_dictionaries(
    {
        "source": st.sampled_from(SOURCES),
        "source_user_id": st.sampled_from([*USERS, "5"]),
        "age_band": st.sampled_from(["18-24", "65+", None]),
        "points_balance": AMOUNTS,
        "registered_at": st.one_of(st.none(), TIMES),
    }
)


def numbered(lines):
    """Line numbers within (source, order)."""
    seen = Counter()
    for line in lines:
        seen[line["source"], line["order_id"]] += 1
        line["line_no"] = seen[line["source"], line["order_id"]]
    return lines


def unique(rows):
    return list({(row["source"], row["source_user_id"]): row for row in rows}.values())


@st.composite
def histories(draw):
    """A past with something in every column."""
    events = draw(st.lists(EVENT, max_size=15))
    # something to be known by, and something in every column
    first = {
        "source": "app",
        "source_user_id": "1",
        "order_id": "o0",
        "ts": BEGIN,
        "item_id": "i1",
        "quantity": 1.0,
        "amount": 3.0,
        "discount": 1.0,
        "coupon_discount": 1.0,
        "store_id": "s1",
        "channel": "web",
        "status": "paid",
    }
    milks = [{**first, "item_id": item, "amount": amount} for item, amount in zip(MILKS, (3.0, 7, 11, 99), strict=True)]
    seen = {
        "source": "app",
        "source_user_id": "1",
        "event_type": "view",
        "ts": BEGIN,
        "item_id": "i1",
        "category": "own/category",
        "session_id": "x",
        "duration_seconds": 1.0,
        "content_id": "c1",
        "channel": "web",
    }
    touch = {"source": "app", "source_user_id": "1", "campaign_id": "m1", "ts": BEGIN, "opened": True}
    person = {"source": "app", "source_user_id": "1", "age_band": "65+", "points_balance": 1.0, "registered_at": BEGIN}
    return {
        "transactions": numbered([first, *milks, *draw(st.lists(LINE, max_size=30))]),
        "events": [{**event, "event_id": f"e{number}"} for number, event in enumerate([seen, *events])],
        "touches": [
            {**row, "touch_id": f"t{number}"} for number, row in enumerate([touch, *draw(st.lists(TOUCH, max_size=8))])
        ],
        "profiles": unique([*draw(st.lists(PROFILE, max_size=5)), person]),
        **catalogue(),
    }


def catalogue():
    """What is known of items and contents, whenever."""
    return {
        "items": [
            {"item_id": item, "category": category, "brand": BRANDS.get(item), "merchandise": MERCHANDISE.get(item)}
            for item, category in CATEGORIES.items()
        ],
        "contents": [{"content_id": content, "topics": topics} for content, topics in TOPICS.items()],
    }


# ---- the same, computed plainly ------------------------------------------------------------------------------------------


def day_of(ts):
    return ts.date()


def with_calendar(row, zone):
    local = row["ts"].replace(tzinfo=UTC).astimezone(ZoneInfo(zone)).replace(tzinfo=None)
    if row.get("date_only") and local.time() != time(0):
        local = row["ts"] + timedelta(hours=13, minutes=59)
    day = local.date()
    return {
        **row,
        "hour": None if row.get("date_only") else local.hour,
        "weekday": day.weekday(),
        "day": day,
        "week": day - timedelta(days=day.weekday()),
    }


def price_levels(tables, as_of):
    """Item → ln(its usual price ÷ that of its category), of the paid lines of a year, if five items are sold there."""
    amounts = {}
    for line in tables.get("transactions", ()):
        full = None if line["amount"] is None else line["amount"] + (line.get("discount") or 0.0)
        full = None if full is None else full + (line.get("coupon_discount") or 0.0)
        item, recent = line["item_id"], as_of - timedelta(days=365) <= line["ts"] < as_of
        if recent and line["status"] == "paid" and full and MERCHANDISE.get(item) is not False:
            amounts.setdefault(CATEGORIES.get(item), {}).setdefault(item, []).append(full)
    levels = {}
    for category, items in amounts.items():
        if category is None or len(items) < 5:
            continue
        price = {item: math.log(statistics.median(paid)) for item, paid in items.items()}
        usual = statistics.fmean([price[item] for item, paid in items.items() for _ in paid])
        levels |= {item: min(max(price[item] - usual, -math.log(4)), math.log(4)) for item in items}
    return levels


def rows_of(tables, view, key, as_of, zone):
    """Rows of one customer before `as_of`, as the view says."""
    table = {"orders": "transactions", "lines": "transactions", "refunds": "transactions"}.get(view, view)
    rows = [row for row in tables.get(table, ()) if (row["source"], row["source_user_id"]) == key]
    if view == "profiles":  # their attributes are fixed, but a registration is not known before it happens
        return [{**row, "registered_at": at if (at := row["registered_at"]) and at < as_of else None} for row in rows]
    rows = [with_calendar(row, zone) for row in rows if row["ts"] < as_of]
    for row in rows:
        if MERCHANDISE.get(row.get("item_id")) is False:  # no customer chose it
            row.update(item_id=None, category=None)
        category = (row.get("category") if table == "events" else None) or CATEGORIES.get(row.get("item_id"))
        row.update(
            category=category,
            category_top=category.split("/")[0] if category else None,
            brand=BRANDS.get(row.get("item_id")),
        )
    if view == "lines":
        levels = price_levels(tables, as_of)
        for row in rows:
            row["price_level"] = levels.get(row["item_id"])
    if table == "events":
        for row in rows:
            row["topic"] = TOPICS[row["content_id"]].split("|")[0] if row["content_id"] in TOPICS else None
        with_sessions(rows)
    if view in ("lines", "orders", "refunds"):
        rows = [row for row in rows if row["status"] == ("refunded" if view == "refunds" else "paid")]
    return orders_of(rows, zone) if view == "orders" else rows


def with_sessions(rows):
    """A visit the source gave no id ends after half an hour without an event; a date is in no such visit."""
    before, number = None, 0
    for row in sorted(rows, key=lambda row: (row["ts"], row["event_id"])):
        if row["session_id"] is None and not row.get("date_only"):
            number += before is None or (row["ts"] - before).total_seconds() > 1_800
            before, row["session_id"] = row["ts"], f"{row['source']}/{number}"


ORDER = {
    "lines": ("ts", "order_id", "line_no", "item_id", "source"),
    "orders": ("ts", "order_id", "source"),
    "events": ("ts", "event_id", "source"),
    "touches": ("ts", "touch_id", "source"),
}
ORDER["refunds"] = ORDER["lines"]


def total(values):
    present = [value for value in values if value is not None]
    return sum(present) if present else None


def orders_of(lines, zone):
    groups = {}
    for line in lines:
        groups.setdefault((line["source"], line["order_id"]), []).append(line)
    orders = []
    for key, group in groups.items():
        amount, discount, coupon = (
            total(line[name] for line in group) for name in ("amount", "discount", "coupon_discount")
        )
        orders.append(
            {
                "source": key[0],
                "order_id": key[1],
                **dict(
                    zip(
                        ("ts", "date_only"),
                        min((line["ts"], bool(line.get("date_only"))) for line in group),
                        strict=True,
                    )
                ),
                "lines": len(group),
                "units": total(line["quantity"] for line in group),
                "amount": amount,
                "discount": discount or 0.0,
                "coupon_discount": coupon or 0.0,
                "full_amount": None if amount is None else amount + (discount or 0.0) + (coupon or 0.0),
                "store_id": min((line["store_id"] for line in group if line["store_id"]), default=None),
                "channel": min((line["channel"] for line in group if line["channel"]), default=None),
                "gap_days": None,
            }
        )
    orders.sort(key=lambda order: tuple(order[name] for name in ORDER["orders"]))
    for before, after in pairwise(orders):
        after["gap_days"] = (after["ts"] - before["ts"]).total_seconds() / 86_400
    return [with_calendar(order, zone) for order in orders]


COMPARE = {
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "in": lambda a, b: a in b,
    "under": lambda a, b: a == b or a.startswith(f"{b}/"),
}


def passes(row, condition):
    value = row[condition.column]
    if condition.operator == "known":
        return (value is not None) == condition.value
    return value is not None and COMPARE[condition.operator](value, condition.value)


def passing(rows, feature):
    return [row for row in rows if all(passes(row, condition) for condition in feature.where)]


def within(rows, days, as_of, back=0):
    if days is None:
        return rows
    low, high = as_of - timedelta(days=days * (back + 1)), as_of - timedelta(days=days * back)
    return [row for row in rows if low <= row["ts"] < high]


def amount_of(rows, column):
    return (total(row[column] for row in rows) or 0) if column else len(rows)


def divided(a, b):
    return None if not b else a / b


def reference_value(feature, tables, key, as_of, others, zone="UTC"):
    """The value of one feature of one customer; None where there is nothing to make it of."""
    if feature.aggregate == "quotient":
        return divided(others[feature.column], others[feature.over])
    everything = rows_of(tables, feature.view, key, as_of, zone)
    window = within(everything, feature.window_days, as_of)
    rows = passing(window, feature)
    values = [row[feature.column] for row in rows if row[feature.column] is not None] if feature.column else []
    days = [(as_of - row["ts"]).total_seconds() / 86_400 for row in rows] if feature.view != "profiles" else []
    if feature.view in ORDER:
        rows.sort(key=lambda row: tuple(row[name] if row[name] is not None else "" for name in ORDER[feature.view]))
        values = [row[feature.column] for row in rows if row[feature.column] is not None] if feature.column else []
    gaps = (
        [(after["ts"] - before["ts"]).total_seconds() / 86_400 for before, after in pairwise(rows)]
        if feature.view in ORDER
        else []
    )
    weights = Counter()
    for row in rows if feature.column and feature.aggregate != "expected" else ():
        if row[feature.column] is not None:
            weights[row[feature.column]] += (
                (row[feature.over] or 0.0) if feature.over and feature.aggregate != "ratio" else 1
            )
    counts = sorted(((str(value), n) for value, n in weights.items() if n > 0), key=lambda pair: (-pair[1], pair[0]))
    weight = sum(n for _, n in counts)
    match feature.aggregate:
        case "count":
            return len(rows)
        case "sum":
            return total(values)
        case "mean":
            return statistics.fmean(values) if values else None
        case "min" | "attribute":
            return min(values, default=None)
        case "missing":
            return float(len(rows) == len(everything)) if everything else None
        case "max":
            return max(values, default=None)
        case "std":
            return statistics.stdev(values) if len(values) > 1 else None
        case "first":
            return values[0] if values else None
        case "last":
            return values[-1] if values else None
        case "gap_mean":
            return statistics.fmean(gaps) if gaps else None
        case "gap_std":
            return statistics.stdev(gaps) if len(gaps) > 1 else None
        case "days_since":
            return (as_of - min(values)).total_seconds() / 86_400 if values else None
        case "distinct":
            return len(set(values))
        case "share":
            if any(condition.column == "hour" for condition in feature.where):
                window = [row for row in window if row["hour"] is not None]
            return divided(amount_of(rows, feature.column), amount_of(window, feature.column))
        case "ratio":
            return divided(amount_of(rows, feature.column), amount_of(rows, feature.over))
        case "recency":
            return min(days, default=None)
        case "age":
            return max(days, default=None)
        case "expected":
            return sum(expected_again(times, as_of) for times in times_of(rows, feature)) or None
        case "trend" | "slope":
            now = amount_of(rows, feature.column)
            then = amount_of(passing(within(everything, feature.window_days, as_of, back=1), feature), feature.column)
            return (
                divided(now - then, now + then) if feature.aggregate == "trend" else (now - then) / feature.window_days
            )
        case "top":
            return counts[0][0] if counts else None
        case "top_share":
            return counts[0][1] / weight if counts else None
        case "entropy":
            return -sum(n / weight * math.log(n / weight) for _, n in counts) if counts else None


def times_of(rows, feature):
    """(moment, occasion) of the rows of each value."""
    times = {}
    for row in rows:
        if row[feature.column] is not None and row[feature.over] is not None:
            times.setdefault(row[feature.column], []).append((row["ts"], row[feature.over]))
    return times.values()


def expected_again(times, as_of):
    """How many times in four weeks something comes again, by its own gap and the usual one of four weeks."""
    moments, occasions = [ts for ts, _ in times], {occasion for _, occasion in times}
    span = (max(moments) - min(moments)).total_seconds() / 86_400
    gap = (span + 2 * 28) / (len(occasions) - 1 + 2)
    silent = (as_of - max(moments)).total_seconds() / 86_400 / gap
    return 28 / gap * math.exp(-0.7 * max(silent - 1, 0))


def known(tables, as_of):
    """Customers with anything undated, or anything before `as_of`."""
    times = {}
    for table, column in (("transactions", "ts"), ("events", "ts"), ("touches", "ts"), ("profiles", "registered_at")):
        for row in tables.get(table, ()):
            if row["source_user_id"] is not None:
                times.setdefault((row["source"], row["source_user_id"]), []).append(row[column])
    return {key for key, found in times.items() if None in found or min(found) < as_of}


# ---- which features ------------------------------------------------------------------------------------------------------

CART = (Condition("event_type", "in", ("cart", "search")),)
DISCOUNTED = (Condition("discount", ">", 0.5), Condition("channel", "!=", "app"))
FOOD, OWN = (Condition("category", "under", "food"),), (Condition("category", "under", "own/category"),)
EARLY = (Condition("hour", "<", 12),)
DEAR = (Condition("price_level", ">", 0.0),)


def declared():
    """Every aggregate on several views, columns, conditions and windows."""
    for days in WINDOWS:
        yield from (
            ("lines", "count", "", DISCOUNTED, "", 0.0, days),
            ("orders", "count", "", EARLY, "", 0.0, days),
            ("refunds", "count", "", (), "", 0.0, days),
            ("events", "count", "", CART, "", 0.0, days),
            ("lines", "sum", "quantity", (), "", 0.0, days),
            ("refunds", "sum", "amount", (), "", -5.0, days),
            ("orders", "sum", "full_amount", (), "", 0.0, days),
            ("orders", "mean", "amount", (), "", -1.0, days),
            ("orders", "mean", "gap_days", (), "", 365.0, days),
            ("events", "mean", "duration_seconds", CART, "", 0.0, days),
            ("lines", "mean", "price_level", (), "", 0.0, days),
            ("lines", "std", "price_level", (), "", -9.0, days),
            ("lines", "count", "", DEAR, "", 0.0, days),
            ("lines", "last", "price_level", (), "", -9.0, days),
            ("lines", "top", "brand", DEAR, "", "none", days),
            ("lines", "min", "amount", (), "", -1.0, days),
            ("orders", "max", "lines", (), "", 0.0, days),
            ("orders", "max", "gap_days", (), "", 365.0, days),
            ("lines", "std", "amount", (), "", -1.0, days),
            ("orders", "std", "gap_days", (), "", -1.0, days),
            ("lines", "distinct", "item_id", (), "", 0.0, days),
            ("orders", "distinct", "day", (), "", 0.0, days),
            ("orders", "distinct", "week", EARLY, "", 0.0, days),
            ("events", "distinct", "session_id", CART, "", 0.0, days),
            ("lines", "distinct", "category", (), "", 0.0, days),
            ("lines", "distinct", "order_id", FOOD, "", 0.0, days),
            ("events", "recency", "", OWN, "", 9999.0, days),
            ("lines", "share", "", DISCOUNTED, "", -1.0, days),
            ("lines", "share", "amount", DISCOUNTED, "", -1.0, days),
            ("orders", "share", "", EARLY, "", -1.0, days),
            ("lines", "ratio", "amount", (), "quantity", -1.0, days),
            ("orders", "ratio", "discount", EARLY, "full_amount", -1.0, days),
            ("orders", "recency", "", (), "", 9999.0, days),
            ("refunds", "recency", "", (), "", 9999.0, days),
            ("events", "recency", "", CART, "", 9999.0, days),
            ("orders", "age", "", (), "", 0.0, days),
            ("lines", "age", "", DISCOUNTED, "", -1.0, days),
            ("lines", "top", "category_top", (), "", "", days),
            ("lines", "top", "brand", DISCOUNTED, "", "none", days),
            ("orders", "top", "weekday", (), "", "", days),
            ("events", "top", "category_top", (), "", "", days),
            ("lines", "top_share", "item_id", (), "", 0.0, days),
            ("orders", "top_share", "store_id", EARLY, "", 0.0, days),
            ("lines", "entropy", "category_top", (), "", -1.0, days),
            ("orders", "entropy", "hour", (), "", -1.0, days),
            ("orders", "first", "amount", (), "", -1.0, days),
            ("lines", "first", "item_id", (), "", "", days),
            ("events", "first", "channel", CART, "", "", days),
            ("lines", "last", "brand", DISCOUNTED, "", "none", days),
            ("orders", "last", "gap_days", (), "", 365.0, days),
            ("touches", "last", "campaign_id", (), "", "", days),
            ("orders", "gap_mean", "", EARLY, "", 365.0, days),
            ("events", "gap_mean", "", (), "", 365.0, days),
            ("orders", "gap_std", "", (), "", -1.0, days),
            ("events", "gap_std", "", CART, "", -1.0, days),
            ("events", "top", "topic", (), "duration_seconds", "", days),
            ("lines", "top_share", "category_top", (), "amount", -1.0, days),
            ("lines", "entropy", "brand", DISCOUNTED, "quantity", -1.0, days),
            ("events", "distinct", "session_id", (), "", 0.0, days),
            ("touches", "share", "", (Condition("opened", "==", True),), "", -1.0, days),
        )
        if days is not None:
            yield from (
                ("orders", "slope", "", (), "", 0.0, days),
                ("lines", "slope", "amount", DISCOUNTED, "", 0.0, days),
                ("orders", "trend", "", (), "", 0.0, days),
                ("orders", "trend", "amount", (), "", 0.0, days),
                ("events", "trend", "", CART, "", 0.0, days),
                ("lines", "expected", "category", (), "day", 0.0, days),
                ("lines", "expected", "item_id", DISCOUNTED, "order_id", -1.0, days),
                ("events", "expected", "category_top", CART, "hour", -1.0, days),
            )
    yield from (
        ("profiles", "attribute", "age_band", (), "", "", None),
        ("profiles", "attribute", "points_balance", (), "", -1.0, None),
        ("profiles", "missing", "", (Condition("age_band", "known", False),), "", 1.0, None),
        (
            *("profiles", "missing", ""),
            (Condition("age_band", "known", False), Condition("points_balance", "known", False)),
            *("", 1.0, None),
        ),
        ("profiles", "days_since", "registered_at", (), "", -9_999.0, None),
    )


FEATURE_POOL = tuple(
    Feature(f"f{number:03d}_{aggregate}", view, aggregate, column, where, days, over, default, description="d")
    for number, (view, aggregate, column, where, over, default, days) in enumerate(declared())
)
