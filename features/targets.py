"""What recommenders predict: purchases, another type of interaction, or all types, depending on the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import ibis
import ibis.expr.types as ir
from ibis import _

from features.compute.builder import Builder
from features.compute.views import timestamp
from features.data.lake import TableState
from features.event_interactions import item_events
from features.interaction_types import ANY, AUTO, INTERACTION_TYPES, PURCHASE
from qianmian.errors import DataError

MIN_TARGET_CUSTOMERS = 30  # customers of the target in the validation and in the test period, for `auto`
TABLES_WITH_ITEMS = ("transactions", "events")


@dataclass(frozen=True)
class TypeCounts:
    """How much there is of a type of interaction.

    Attributes
    ----------
    rows, customers, items : int
        Rows that name an item, and their distinct customers and items.
    evaluable : int
        Customers who can be evaluated: with the type in the test period and in the validation period after earlier
        interactions of any type, the smaller number of both. Of undated rows, customers with two items.
    """

    rows: int
    customers: int
    items: int
    evaluable: int


@dataclass(frozen=True)
class Target:
    """What is recommended.

    Attributes
    ----------
    name : str
        A type of interaction, or ``any``.
    counts : mapping of str to TypeCounts
        The types that occur, and ``any``.
    notes : tuple of str
        Sentences that say what was chosen and why, and what is not used.
    """

    name: str
    counts: Mapping[str, TypeCounts]
    notes: tuple[str, ...]


def tables_with_items(states: Mapping[str, TableState]) -> tuple[str, ...]:
    """The tables whose rows name items.

    Raises
    ------
    DataError
        There is none.
    """
    found = tuple(name for name in TABLES_WITH_ITEMS if name in states and "item_id" in states[name].filled)
    if found:
        return found
    rows = {name: states[name].rows for name in TABLES_WITH_ITEMS if name in states}
    raise DataError(
        "neither transactions nor events have an item_id",
        where="the lake",
        got=", ".join(f"{count:,} {name} without items" for name, count in rows.items() if count) or "no rows",
        hint="map `item_id` in sources.yaml; without items nothing can be recommended",
    )


def lines_are_dated(states: Mapping[str, TableState]) -> bool:
    """Whether the order lines have times, or there are none."""
    return "transactions" not in states or not states["transactions"].rows or "ts" in states["transactions"].filled


def split_days(states: Mapping[str, TableState], as_of: datetime, wanted: int) -> int | None:
    """Length of the validation and test periods: `wanted`, shorter where the history is; None for undated data."""
    begins = [states[name].begin for name in tables_with_items(states)]
    dated = [begin for begin in begins if begin is not None]
    return min(wanted, (as_of - min(dated)).days // 4) if dated else None


def choose_target(builder: Builder, as_of: datetime, *, wanted: str = AUTO, horizon_days: int = 28) -> Target:
    """Resolve the setting `recommend.target` at a cutoff.

    ``auto`` is purchases if at least `MIN_TARGET_CUSTOMERS` customers can be evaluated by them, else all types if these
    reach that number, or if there are events only.

    Parameters
    ----------
    horizon_days : int
        Length of the test period and of the validation period before it.

    Raises
    ------
    DataError
        No table names items, or nobody has an interaction of the wanted type.
    """
    states = builder.states_at(as_of)
    tables = tables_with_items(states)
    notes = _notes(builder, as_of, tables)
    if len(tables) > 1 and not lines_are_dated(states):  # only the tables of the target are read
        tables = ("transactions",) if wanted in (AUTO, PURCHASE) else ("events",)
    days = split_days(states, as_of, horizon_days)
    counts = type_counts(builder, as_of, tables, max(days or 0, 1))
    if not counts:
        raise DataError(
            f"no event that names an item before {as_of.date()} is an interaction",
            where=", ".join(tables),
            allowed=", ".join(INTERACTION_TYPES),
            hint="map event_type in sources.yaml to one of these types",
        )
    of_any = counts[ANY]
    if wanted not in (AUTO, ANY):
        if wanted not in counts:
            raise DataError(
                f"recommend.target is {wanted}, and nobody has an interaction of this type before {as_of.date()}",
                where=", ".join(tables),
                got=_listed(counts),
                hint="set recommend.target to auto, any, or one of the types that occur",
            )
        return _target(wanted, counts, notes)
    if wanted == ANY:
        return _target(ANY, counts, notes)
    if PURCHASE not in counts:
        return _target(ANY, counts, ("no purchase names an item", *notes))
    bought = counts[PURCHASE]
    if bought.evaluable >= MIN_TARGET_CUSTOMERS or len(counts) == 2:  # purchases and `any`
        return _target(PURCHASE, counts, notes)
    if "transactions" not in tables or of_any.evaluable >= MIN_TARGET_CUSTOMERS:
        reason = (
            f"too few customers buy to predict purchases: {bought.evaluable} of {bought.customers:,} buyers can be "
            f"evaluated, and {MIN_TARGET_CUSTOMERS} are needed"
        )
        return _target(ANY, counts, (reason, *notes))
    return _target(PURCHASE, counts, notes)


def _target(name: str, counts: Mapping[str, TypeCounts], notes: tuple[str, ...]) -> Target:
    """The target, with a note on the types that it learns from where there are several, or no purchases."""
    others = [kind for kind in counts if kind not in (ANY, name)]
    if name == ANY:
        notes = (*notes, f"recommendations predict the next interaction of any type, from {_types(counts, others)}")
    elif others:
        own = f"{counts[name].rows:,} {name} rows of {counts[name].customers:,} customers"
        notes = (*notes, f"recommendations predict {name}, from {own} and, besides, {_types(counts, others)}")
    return Target(name, counts, notes)


def type_counts(builder: Builder, as_of: datetime, tables: Sequence[str], days: int) -> dict[str, TypeCounts]:
    """Counts of every type before a cutoff that occurs, and of ``any``, the sum of all types."""
    rows = _typed_rows(builder, as_of, tables)
    test, validation = (timestamp(as_of - timedelta(days=days * back)) for back in (1, 2))
    mine = rows.group_by("one_id", "type").aggregate(
        rows=_.count(),
        one_item=_.item_id.min(),
        other_item=_.item_id.max(),
        undated=_.ts.isnull().any(),
        first=_.ts.min(),
        in_test=(_.ts >= test).fill_null(False).any(),
        in_validation=((_.ts >= validation) & (_.ts < test)).fill_null(False).any(),
    )
    everything = mine.group_by("one_id").aggregate(
        rows=_.rows.sum(),
        one_item=_.one_item.min(),
        other_item=_.other_item.max(),
        undated=_.undated.any(),
        first=_["first"].min(),
        in_test=_.in_test.any(),
        in_validation=_.in_validation.any(),
    )
    earliest = everything.select(owner="one_id", earliest="first")
    both = mine.union(everything.mutate(type=ibis.literal(ANY)).select(*mine.columns))
    both = both.inner_join(earliest, both.one_id == earliest.owner)
    found = both.group_by("type").aggregate(
        rows=_.rows.sum(),
        customers=_.count(),
        undated=(_.undated & (_.one_item != _.other_item)).sum(),
        test=(_.in_test & (_.earliest < test)).sum(),
        validation=(_.in_validation & (_.earliest < validation)).sum(),
    )
    goods = rows.group_by("type").aggregate(goods=_.item_id.nunique()).to_pyarrow().to_pylist()
    items = {ANY: int(rows.item_id.nunique().execute()), **{row["type"]: row["goods"] for row in goods}}
    result = {}
    for row in found.to_pyarrow().to_pylist():
        evaluable = max(min(row["test"] or 0, row["validation"] or 0), row["undated"] or 0)
        result[row["type"]] = TypeCounts(row["rows"], row["customers"], items[row["type"]], int(evaluable))
    return {name: result[name] for name in (*INTERACTION_TYPES, ANY) if name in result}


def _typed_rows(builder: Builder, as_of: datetime, tables: Sequence[str]) -> ir.Table:
    """Rows of all interactions before a cutoff: one_id, item_id, ts, type."""
    views, parts = builder.views(as_of), []
    if "transactions" in tables:
        lines = views["lines"].filter(_.item_id.notnull())
        parts.append(lines.select("one_id", "item_id", "ts", type=ibis.literal(PURCHASE)))
    if "events" in tables:
        events = item_events(views, beside_lines="transactions" in tables)
        parts.append(events.select("one_id", "item_id", "ts", type="event_type"))
    return parts[0] if len(parts) == 1 else parts[0].union(parts[1])


def _notes(builder: Builder, as_of: datetime, tables: Sequence[str]) -> tuple[str, ...]:
    if len(tables) < 2:
        return ()
    if not lines_are_dated(builder.states):
        return ("the order lines have no times, so events are not used beside them",)
    views = builder.views(as_of)
    counted = [
        int(item_events(views, beside_lines=beside).filter(_.event_type == PURCHASE).count().execute())
        for beside in (False, True)
    ]
    twice = counted[0] - counted[1]
    return (f"{twice:,} purchase events are in the transactions too and count once",) if twice else ()


def _types(counts: Mapping[str, TypeCounts], kinds: Sequence[str]) -> str:
    """Some types and their rows, in words."""
    names = [f"{counts[name].rows:,} {name} rows" for name in kinds]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _listed(counts: Mapping[str, TypeCounts]) -> str:
    return ", ".join(
        f"{name}: {found.rows:,} rows of {found.customers:,} customers" for name, found in counts.items() if name != ANY
    )
