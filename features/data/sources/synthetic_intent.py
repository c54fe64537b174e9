"""Views, carts and favourites of the synthetic shop that come from intents, and visitors who never buy.

The process, with `--intent` (orders are those of the shop without it):

1.  *Needs.* A person needs something of a category. A need ends with the purchase of one item, or the person gives up.
    Every trial line of an order (`draw_lines`: category by taste, item by popularity) is the end of a need. Needs that
    are given up begin at random times, `GIVEN_UP` for each order that the person's gap lets expect. A need has a
    *wanted item*: the one that is bought, or one drawn in the same way.
2.  *Visits.* `ONE_VISIT` of the needs take one visit of some minutes. The others begin up to ten days before their end
    (exponential, mean `NEED_DAYS`), and the person comes back at random times, `VISITS_PER_DAY` a day on average. The
    last visit of a need that ends with a purchase is that of the order, and those of several needs of one order are one
    visit.
3.  *Views.* A visit has ``1 + Poisson(MORE_VIEWS)`` views of each need, `SECONDS` apart. A view is one of an item
    viewed before for this need with probability `LOOK_AGAIN`. Otherwise it is an item of the category, drawn by
    popularity times ``exp(-|log price ratio to the wanted item| / PRICE_RANGE)``. At some view of the need the person
    meets the item that is bought, and with probability `LAST_LOOK` the last view is one of it.
4.  *Cart and favourites.* The item that is bought is put into the cart with probability `CARTED`: right before the
    order, or, with probability `CARTED_EARLIER` if there are several visits, at the end of an earlier visit. A need
    that is given up leaves an item in the cart with probability `LEFT_IN_CART`. An item viewed for a need of several
    visits becomes a favourite with probability `FAVOURED`.
5.  *Repurchases.* Lines of items that ran out follow no search: the item is put into the cart minutes before the order
    (`CARTED`), and viewed before with probability `VIEWED_AGAIN`.
6.  *Visitors.* Strangers who come for one or two needs, give up and never return: `VISITORS` for each customer. They
    have a record on the web and no profile, and their preferences are those of a random person.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.data.sources.synthetic_columns import Floats, Ints, join_ids, make_ids, timestamps, with_account
from features.data.sources.synthetic_demand import chosen_items
from features.data.sources.synthetic_orders import ITEMS_PER_CATEGORY, sample_items
from features.data.sources.synthetic_shop import SyntheticShop
from qianmian.times import SECONDS_PER_DAY

GIVEN_UP = 1.2  # needs that are given up, for each expected order
ONE_VISIT = 0.4  # share of needs that end in the visit in which they began
NEED_DAYS, LONGEST_NEED_DAYS = 2.5, 10.0
VISITS_PER_DAY = 0.7  # visits between the first and the last one of a need
MORE_VIEWS = 2.5  # mean number of views of a need in a visit, in addition to one
SECONDS = (10.0, 50.0)  # between two views: at least, and the mean of what comes on top
LOOK_AGAIN = 0.35
PRICE_RANGE = 0.25  # in units of the logarithm of the price
LAST_LOOK = 0.7
CARTED, CARTED_EARLIER, LEFT_IN_CART = 0.85, 0.35, 0.2
FAVOURED = 0.05
VIEWED_AGAIN = 0.5
VISITORS = 0.4


@dataclass(frozen=True)
class _Needs:
    """Needs as parallel arrays, shape (n,): the person, the wanted item, the end in days, the order (−1: given up)."""

    person: Ints
    item: Ints
    end: Floats
    order: Ints


def draw_visitors(
    rng: np.random.Generator, people: Mapping[str, Any], customers: int, days: int
) -> tuple[dict[str, Any], _Needs]:
    """Draw the strangers and their needs; their numbers as persons follow those of the customers."""
    count = int(customers * VISITORS)
    like_person = rng.integers(0, customers, count)
    times = 1 + (rng.random(count) < 0.25)
    visitor = np.repeat(np.arange(count), times)
    day = rng.uniform(0.0, days, count)
    end = np.minimum(day[visitor] + rng.exponential(1.0, len(visitor)), float(days))
    item = sample_items(rng, people["taste"], like_person[visitor])
    return {"count": count}, _Needs(customers + visitor, item, end, np.full(len(visitor), -1))


def intent_events(
    rng: np.random.Generator,
    people: Mapping[str, Any],
    orders: Mapping[str, Any],
    lines: Mapping[str, Any],
    items: Mapping[str, Any],
    accounts: Mapping[str, Any],
    second: Ints,
    days: int,
    synthetic_shop: SyntheticShop,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Generate the events of the process above.

    Parameters
    ----------
    second : int array, shape (number of orders,)
        1 where a person with two accounts ordered with the second one.

    Returns
    -------
    events : dict of str to array
        Columns of the table `events`, ordered by time.
    visitors : dict of str to array
        ``person_id``, ``source`` and ``source_user_id`` of the strangers.
    """
    customers = len(people["segment"])
    tried = ~lines["repurchased"]
    order, item = lines["order"][tried], lines["item"][tried]
    bought = _Needs(orders["person"][order], item, orders["at"][order], order)
    found, strangers = draw_visitors(rng, people, customers, days)
    needs = _joined(bought, _given_up(rng, people, items, days), strangers)
    start = np.concatenate([people["start"], np.zeros(found["count"])])
    groups = [_browse(rng, needs, items, start, float(days)), _repurchases(rng, orders, lines)]
    columns = {name: np.concatenate([group[name] for group in groups]) for name in groups[0]}
    # visits are numbered by person and time; those of an order have its number
    alone = columns["order"] < 0
    session = np.where(
        alone,
        join_ids(np.array(["n"]), make_ids("", np.where(alone, columns["visit"], 0), 8)),
        join_ids(np.array(["b"]), make_ids("", np.maximum(columns["order"], 0), 8)),
    )
    with_second = rng.random(int(columns["visit"].max(initial=0)) + 1) < 0.4
    account = np.where(alone, with_second[columns["visit"]], second[np.maximum(columns["order"], 0)])
    kind = np.array([synthetic_shop.event_names.get(name, name) for name in ("view", "cart", "favourite")])
    events = {
        "person": columns["person"],
        "event_type": kind[columns["kind"]],
        "ts": timestamps(columns["at"]),
        "item_id": items["item_id"][columns["item"]],
        "session_id": session,
        "duration_seconds": np.round(rng.exponential(40.0, len(session)), 1),
    }
    web = make_ids("v", np.arange(found["count"]))
    visitors = {"person_id": web, "source": np.repeat(np.array(["web"]), len(web)), "source_user_id": web}
    known = len(accounts["source"])
    both = {
        "source": np.concatenate([accounts["source"], visitors["source"]]),
        "source_user_id": np.concatenate([accounts["source_user_id"], web]),
        "first": np.concatenate([accounts["first"], known + np.arange(len(web))]),
        "second": np.concatenate([accounts["second"], known + np.arange(len(web))]),
    }
    by_time = np.argsort(columns["at"], kind="stable")
    events = with_account(events, both, account.astype(np.int64))
    return {name: values[by_time] for name, values in events.items()}, visitors


def _given_up(rng: np.random.Generator, people: Mapping[str, Any], items: Mapping[str, Any], days: int) -> _Needs:
    end = np.where(np.isnan(people["churn"]), float(days), people["churn"])
    span = end - people["start"]
    person = np.repeat(np.arange(len(span)), rng.poisson(GIVEN_UP * span / people["gap"]))
    at = people["start"][person] + span[person] * rng.random(len(person))
    item = chosen_items(people, items, person, sample_items(rng, people["taste"], person), ITEMS_PER_CATEGORY)
    return _Needs(person, item, at, np.full(len(person), -1))


def _joined(*parts: _Needs) -> _Needs:
    names = ("person", "item", "end", "order")
    return _Needs(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _browse(
    rng: np.random.Generator, needs: _Needs, items: Mapping[str, Any], start: Floats, days: float
) -> dict[str, NDArray[Any]]:
    """Draw the visits of each need, and their views, carts and favourites."""
    count = len(needs.person)
    span = np.where(
        rng.random(count) < ONE_VISIT, 0.0, np.clip(rng.exponential(NEED_DAYS, count), 0.05, LONGEST_NEED_DAYS)
    )
    span = np.minimum(span, np.maximum(needs.end - start[needs.person] - 0.01, 0.0))
    visits = np.where(span > 0, 2 + rng.poisson(VISITS_PER_DAY * span), 1)
    need = np.repeat(np.arange(count), visits)
    first_visit = np.cumsum(visits) - visits
    number = np.arange(len(need)) - first_visit[need]
    # the first visit begins the need, the last one ends it, the others lie between
    share = np.where(number == 0, 1.0, np.where(number == visits[need] - 1, 0.0, rng.random(len(need))))
    share = share[np.lexsort((-share, need))]
    ends_at = needs.end[need] - span[need] * share
    last = number == visits[need] - 1
    views = 1 + rng.poisson(MORE_VIEWS, len(need))
    visit = np.repeat(np.arange(len(need)), views)
    # the views of a visit end some minutes before its end, where the order is
    before_end = SECONDS[0] + rng.exponential(SECONDS[1], len(visit))
    until = np.cumsum(before_end)
    sums = until[np.cumsum(views) - 1]
    at = ends_at[visit] - (sums[visit] - until + before_end + 120.0) / SECONDS_PER_DAY
    at = np.maximum(at, start[needs.person[need[visit]]])
    of = need[visit]
    item = _viewed_items(rng, needs, of, items)
    is_last_view = np.append(of[1:] != of[:-1], True) if len(of) else np.empty(0, dtype=bool)
    bought = needs.order[of] >= 0
    item = np.where(is_last_view & bought & (rng.random(len(of)) < LAST_LOOK), needs.item[of], item)
    parts = [_rows(needs, of, visit, last, 0, item, at)]
    favoured = (visits[of] > 1) & (rng.random(len(of)) < FAVOURED)
    parts.append(_rows(needs, of[favoured], visit[favoured], last, 2, item[favoured], at[favoured] + 5.0 / 86_400))
    carted = rng.random(count) < np.where(needs.order >= 0, CARTED, LEFT_IN_CART)
    earlier = (visits > 1) & (rng.random(count) < CARTED_EARLIER)
    chosen = first_visit + np.where(earlier, (rng.random(count) * (visits - 1)).astype(np.int64), visits - 1)
    cart, put = np.flatnonzero(carted), chosen[carted]
    # the last view of the visit decides what a person who gives up leaves in the cart
    left = item[np.cumsum(views)[put] - 1]
    what = np.where(needs.order[cart] >= 0, needs.item[cart], left)
    put_at = ends_at[put] - (20.0 + 80.0 * rng.random(len(put))) / SECONDS_PER_DAY
    put_at = np.maximum(put_at, start[needs.person[cart]])
    parts.append(_rows(needs, cart, put, last, 1, what, put_at))
    columns = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    inside = columns["at"] < days
    return {name: values[inside] for name, values in columns.items()}


def _rows(
    needs: _Needs, of: Ints, visit: Ints, last: NDArray[np.bool_], kind: int, item: Ints, at: Floats
) -> dict[str, NDArray[Any]]:
    return {
        "person": needs.person[of],
        "order": np.where(last[visit], needs.order[of], -1),
        "visit": visit,
        "kind": np.full(len(of), kind),
        "item": item,
        "at": at,
    }


def _viewed_items(rng: np.random.Generator, needs: _Needs, of: Ints, items: Mapping[str, Any]) -> Ints:
    """Draw the item of each view; `of` is the need of each view, sorted, with views in the order of time."""
    fresh = _alternatives(rng, needs.item[of], items)
    first = np.searchsorted(of, of)
    place = np.arange(len(of)) - first
    # the view at which the person meets the item that is bought
    starts, counts = np.unique(of, return_index=True, return_counts=True)[1:]
    meets = starts + (rng.random(len(starts)) * counts).astype(np.int64)
    meets = meets[needs.order[of[meets]] >= 0]
    fresh[meets] = needs.item[of[meets]]
    again = (place > 0) & (rng.random(len(of)) < LOOK_AGAIN)
    again[meets] = False
    source = np.where(again, first + (rng.random(len(of)) * np.maximum(place, 1)).astype(np.int64), np.arange(len(of)))
    while not np.array_equal(source[source], source):  # an item seen again may itself have been seen again
        source = source[source]
    return np.asarray(fresh[source], dtype=np.int64)


def _alternatives(rng: np.random.Generator, wanted: Ints, items: Mapping[str, Any]) -> Ints:
    """Draw an item of the category of each wanted item: by popularity, and by how near its price is."""
    n = ITEMS_PER_CATEGORY
    price = np.log(items["price"]).reshape(-1, n)
    weight = np.exp(-np.abs(price[:, :, None] - price[:, None, :]) / PRICE_RANGE) / np.arange(1, n + 1)
    steps = (np.cumsum(weight, axis=2) / weight.sum(axis=2, keepdims=True)).reshape(-1, n)
    rank = np.empty(len(wanted), dtype=np.int64)
    for begin in range(0, len(wanted), 1_000_000):  # bounded memory
        part = slice(begin, begin + 1_000_000)
        above = rng.random(len(wanted[part]))[:, None] > steps[wanted[part]]
        rank[part] = np.minimum(above.sum(axis=1), n - 1)
    return np.asarray(wanted // n * n + rank, dtype=np.int64)


def _repurchases(
    rng: np.random.Generator, orders: Mapping[str, Any], lines: Mapping[str, Any]
) -> dict[str, NDArray[Any]]:
    again = lines["repurchased"]
    order, item = lines["order"][again], lines["item"][again]
    viewed, carted = rng.random(len(order)) < VIEWED_AGAIN, rng.random(len(order)) < CARTED
    at = orders["at"][order] - (20.0 + 100.0 * rng.random(len(order))) / SECONDS_PER_DAY
    parts = []
    for kind, kept, earlier in ((0, viewed, 30.0), (1, carted, 0.0)):
        parts.append(
            {
                "person": orders["person"][order[kept]],
                "order": order[kept],
                "visit": np.zeros(int(kept.sum()), dtype=np.int64),
                "kind": np.full(int(kept.sum()), kind),
                "item": item[kept],
                "at": at[kept] - earlier / SECONDS_PER_DAY,
            }
        )
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
