"""Building an `OnlineState` from the lake; the only module of this package that uses an engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

import ibis
import ibis.expr.types as ir
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from ibis import _
from numpy.typing import NDArray

from features.compute.algebra import (
    PRICE_LEVEL,
    PRICED_VIEWS,
    SESSION_GAP_SECONDS,
    SESSION_SEPARATOR,
    SORT_KEYS,
    TIME_COLUMNS,
    WEIGHT_DIGITS,
    Feature,
)
from features.compute.builder import Builder
from features.compute.compile_ibis import all_of, compile_features, row_filter
from features.compute.engines.duckdb import DuckDBEngine, cutoff_variable, variable
from features.compute.online.order_lines import MONEY
from features.compute.online.plan import NULL_TEXT, OnlinePlan
from features.compute.online.state import (
    DATE_ONLY,
    MISSING,
    OLD_SESSIONS,
    Array,
    ItemAttributes,
    OnlineState,
    Ragged,
)
from features.compute.views import VIEW_TABLES, Views, first_part, view_with
from features.data.tables import LAKE_TABLES
from features.id_map import IdMap
from qianmian.times import MICROSECONDS_PER_SECOND, SECONDS_PER_DAY, microseconds

NO_TIMESTAMP = np.iinfo(np.int64).min
ORDER_COLUMNS = ("ts", DATE_ONLY, "lines", "units", "amount", "discount", "coupon_discount", "store_id", "channel")
PART_ROWS = 1_000_000  # rows that are encoded together
ROW_KEYS = {  # columns that identify a row, besides the sort order of the view
    "orders": ("source", "order_id"),
    "events": ("source", "source_user_id", "session_id", "event_id"),
}
DERIVED_COLUMNS = (*TIME_COLUMNS, "gap_days", "full_amount")  # derived from the other columns at request time


TAIL_START, GAP_START = variable("tail_start"), variable("gap_start")
# generated queries of states, shared by all lakes of this process with the same tables; the oldest is evicted first
_SQL_CACHE: dict[tuple[Any, ...], dict[str, str]] = {}
SQL_CACHE_SIZE = 32


class ViewsBeforeTail:
    """Views restricted to the rows before the tail, with the cutoff `as_of`."""

    def __init__(self, views: Views) -> None:
        self.views, self.as_of, self.cutoff = views, views.as_of, views.cutoff
        self.customers, self.before = views.customers, views.before

    def __getitem__(self, name: str) -> ir.Table:
        t = self.views[name]
        return t.filter(t.ts.isnull() | (t.ts < TAIL_START))


class StateQueries:
    """Runs the queries of one state.

    Ibis takes ten times as long to generate their SQL as DuckDB takes to run it over a small lake. So it is generated
    once for all lakes with the same tables, with the moments as variables.
    """

    def __init__(self, builder: Builder, kept: Sequence[Feature], plan: OnlinePlan, as_of: datetime) -> None:
        assert isinstance(builder.engine, DuckDBEngine)
        self.builder, self.as_of = builder, as_of
        self.tail_start = as_of - timedelta(days=plan.tail_days)
        self.connection = builder.engine.connection
        builder.engine.set_variables(
            as_of=as_of,
            tail_start=self.tail_start,
            gap_start=self.tail_start - timedelta(seconds=SESSION_GAP_SECONDS),
        )
        builder.rows.cache(VIEW_TABLES[view] for view in plan.views)  # the queries name these tables
        key = (tuple(kept), builder.rows.schema_key, builder.rows.is_past(as_of))
        while key not in _SQL_CACHE and len(_SQL_CACHE) >= SQL_CACHE_SIZE:
            _SQL_CACHE.pop(next(iter(_SQL_CACHE)))
        self._sql = _SQL_CACHE.setdefault(key, {})

    @cached_property
    def views(self) -> Views:
        """All rows before the cutoff."""
        views = Views(self.builder.rows, self.as_of, cutoff_variable())
        views.later_registrations = True  # a value at a later moment knows them
        return views

    @cached_property
    def old(self) -> ViewsBeforeTail:
        """The rows before the tail."""
        return ViewsBeforeTail(self.views)

    def sql(self, name: str, query: Callable[[], ir.Table]) -> str:
        """SQL of a query, which is known by its name."""
        if name not in self._sql:
            self._sql[name] = str(ibis.to_sql(query(), dialect="duckdb"))
        return self._sql[name]

    def table(self, name: str, query: Callable[[], ir.Table]) -> pa.Table:
        """Result of a query."""
        return self.connection.execute(self.sql(name, query)).to_arrow_table()


def build_state(builder: Builder, as_of: datetime, features: Sequence[Feature] | None = None) -> OnlineState:
    """Build the online state of all customers known before `as_of`.

    Parameters
    ----------
    builder : Builder
        Builder of the lake.
    as_of : datetime
        Cutoff, naive UTC.
    features : sequence of Feature, optional
        Features of the plan; default: all features the lake supports at `as_of`.
    """
    kept, _off = builder.supported(features, as_of)
    plan = OnlinePlan.of(kept)
    queries = StateQueries(builder, kept, plan, as_of)
    people = queries.table("customers", lambda: queries.views.customers.select("one_id").distinct().order_by("one_id"))
    one_ids = np.asarray(people["one_id"].to_pylist(), dtype=np.str_)
    codes = _Codes()
    base, last_order = _base_summaries(plan, queries, codes)
    counts = {
        number: _value_counts(queries, number, partial, one_ids, codes)
        for number, partial in enumerate(plan.partials)
        if partial.kind == "values" and partial.covers_old_rows
    }
    tails = {view: _tail_rows(plan, queries, view, one_ids, codes) for view in plan.views}
    if any(plan.partials[number].column == "session_id" for number in counts):
        tails[OLD_SESSIONS] = _old_sessions(queries, one_ids, codes)
    of_profiles = [feature for feature in kept if feature.view == "profiles"]
    profile = queries.table("profiles", lambda: compile_features(of_profiles, queries.views).order_by("one_id"))
    attributes = {feature.name: _values(profile[feature.name]) for feature in of_profiles}
    items, contents = _item_attributes(builder)
    return OnlineState(
        plan,
        one_ids,
        as_of,
        queries.tail_start,
        tails,
        base,
        counts,
        attributes,
        last_order,
        codes.vocabularies(),
        items,
        contents,
        builder.timezone,
        _price_levels(queries) if any(PRICE_LEVEL in plan.columns(view) for view in PRICED_VIEWS) else {},
    )


class _Codes:
    """One vocabulary per column name, shared by all views and summaries."""

    def __init__(self) -> None:
        self._parts: dict[str, pa.Array] = {}

    def encode(self, column: str, texts: pa.ChunkedArray) -> NDArray[np.int32]:
        known = self._parts.get(column, pa.array([], pa.string()))
        texts = texts.cast(pa.string())
        unique = pc.unique(texts).drop_null()
        fresh = unique.filter(pc.invert(pc.is_in(unique, value_set=known)))
        known = pa.concat_arrays([known, fresh.combine_chunks() if isinstance(fresh, pa.ChunkedArray) else fresh])
        self._parts[column] = known
        found = pc.index_in(texts, value_set=known).fill_null(MISSING)
        return np.asarray(found.to_numpy(), dtype=np.int32)

    def vocabularies(self) -> dict[str, pa.Array]:
        # session codes are only compared within a customer, so their texts are not needed
        return {column: texts for column, texts in self._parts.items() if column != "session_id"}


def _base_summaries(
    plan: OnlinePlan, queries: StateQueries, codes: _Codes
) -> tuple[dict[int, dict[str, Array]], NDArray[np.int64]]:
    """Summaries of the old rows, computed with the aggregates of features, and the time of the last order."""
    wanted = {
        f"c{number}": partial.base_features(f"c{number}")
        for number, partial in enumerate(plan.partials)
        if partial.covers_old_rows
    }
    last = Feature("last_order", "orders", "recency", default=float("nan"), description="state")
    features = [feature for numbers in wanted.values() for feature in numbers.values()]
    with_orders = "orders" in plan.views
    if with_orders:
        features.append(last)
    table = queries.table("summaries", lambda: compile_features(features, queries.old).order_by("one_id"))  # type: ignore[arg-type]
    base: dict[int, dict[str, Array]] = {}
    for name, numbers in wanted.items():
        partial = plan.partials[int(name[1:])]
        made: dict[str, Array] = {}
        for number, feature in numbers.items():
            column = table[feature.name]
            if partial.text:
                made[number] = codes.encode(partial.column, pc.if_else(pc.equal(column, NULL_TEXT), None, column))
            else:
                made[number] = _values(column)
        for number in ("age", "recency"):  # stored as times, because days before `as_of` change with the current time
            if number in made:
                seconds = np.round(np.nan_to_num(made[number]) * SECONDS_PER_DAY)
                moment = microseconds(queries.as_of) - seconds * MICROSECONDS_PER_SECOND
                made[number] = np.where(np.isnan(made[number]), np.nan, moment)
        if made:
            base[int(name[1:])] = made
    days = _values(table["last_order"]) if with_orders else np.full(table.num_rows, np.nan)
    seconds_ago = np.round(np.nan_to_num(days) * SECONDS_PER_DAY).astype(np.int64)
    moments = microseconds(queries.as_of) - seconds_ago * MICROSECONDS_PER_SECOND
    return base, np.where(np.isnan(days), NO_TIMESTAMP, moments)


def _value_counts(queries: StateQueries, number: int, partial: Any, one_ids: NDArray[np.str_], codes: _Codes) -> Ragged:
    def query() -> ir.Table:
        t = queries.old[view_with(partial.view, partial.columns)]
        t = t.filter(all_of(row_filter(t, partial.where), t[partial.column].notnull()))
        weight = t[partial.over].sum().fill_null(0.0).round(WEIGHT_DIGITS) if partial.over else t.count()
        counted = t.group_by(one_id=t.one_id, value=t[partial.column]).aggregate(weight=weight)
        return counted.filter(counted.weight > 0).order_by(["one_id", "value"])

    counted = queries.table(f"values {number}", query)
    offsets, kept = _offsets(counted, one_ids)
    values = _column(counted["value"], partial.column, codes)[kept]
    return Ragged(offsets, {"value": values, "weight": _values(counted["weight"])[kept]})


def _tail_rows(plan: OnlinePlan, queries: StateQueries, view: str, one_ids: NDArray[np.str_], codes: _Codes) -> Ragged:
    columns = _tail_columns(plan, view)
    keys = {name for name in (*SORT_KEYS[view], *ROW_KEYS.get(view, ())) if name != "ts"}

    def query() -> ir.Table:
        t = queries.views[view_with(view, plan.columns(view))]
        t = t.filter(t.ts >= TAIL_START)
        return t.select("one_id", *sorted(columns | keys)).order_by(["one_id", *SORT_KEYS[view]])

    sql = queries.sql(f"tail of {view}", query)
    ids, n = IdMap(one_ids), 0
    sizes = np.zeros(len(one_ids), dtype=np.int64)
    # filled part by part: the texts of all rows take many times the memory of their codes, and joined parts twice it
    (length,) = queries.connection.execute(f"SELECT count(*) FROM ({sql})").fetchone() or (0,)
    made: dict[str, Array] = {}
    kept_keys = []
    for part in _parts(queries.connection.execute(sql).to_arrow_reader(PART_ROWS)):
        for name in sorted(columns - made.keys()):
            made[name] = np.empty(length, _stored_type(part.schema.field(name)))
        found = ids.rows(part["one_id"])
        kept = found >= 0
        sizes += np.bincount(found[kept], minlength=len(one_ids))
        end = n + int(kept.sum())
        for name, values in made.items():
            values[n:end] = (_moments(part[name]) if name == "ts" else _column(part[name], name, codes))[kept]
        kept_keys.append(part.select(sorted(keys)).filter(pa.array(kept)))
        n = end
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    return Ragged(offsets, {name: values[:n] for name, values in made.items()}, pa.concat_tables(kept_keys))


def _tail_columns(plan: OnlinePlan, view: str) -> set[str]:
    """Columns of the rows of a view that the state keeps."""
    named = set(ORDER_COLUMNS if view == "orders" else plan.columns(view))
    if named.intersection(TIME_COLUMNS):
        named |= {DATE_ONLY} & {column.name for column in LAKE_TABLES[VIEW_TABLES[view]].columns}
    if view == "lines":
        named |= set(MONEY)  # what a line leaves its order without, if it is taken back
    return named - set(DERIVED_COLUMNS) | {"ts"}


def _stored_type(field: pa.Field) -> type[np.generic]:
    if field.name == "ts":
        return np.int64
    return np.int32 if _is_text(field.type) else np.float64


def _parts(reader: pa.RecordBatchReader) -> Iterator[pa.Table]:
    """The rows as tables of at most `PART_ROWS`, in their order; an empty table if there are none."""
    empty = True
    for batch in reader:
        empty = False
        yield pa.Table.from_batches([batch])
    if empty:
        yield reader.schema.empty_table()


def _old_sessions(queries: StateQueries, one_ids: NDArray[np.str_], codes: _Codes) -> Ragged:
    """The sessions before the tail that a newer row may belong to.

    One that its source named can go on at any time; any other one only within the gap after its last row.
    """

    def query() -> ir.Table:
        t = queries.old["events"]
        t = t.filter(t.session_id.notnull())
        own = t.source + SESSION_SEPARATOR + t.source_user_id + SESSION_SEPARATOR
        t = t.mutate(named=~t.session_id.startswith(own))
        sessions = t.group_by(["one_id", "session_id"]).aggregate(ts=t.ts.max(), named=t.named.any())
        running = sessions.ts >= GAP_START
        return sessions.filter(sessions.named | running).order_by(["one_id", "ts", "session_id"])

    rows = queries.table("old sessions", query)
    offsets, kept = _offsets(rows, one_ids)
    columns: dict[str, Array] = {
        "ts": _moments(rows["ts"]),
        "session_id": _column(rows["session_id"], "session_id", codes),
    }
    columns = {name: values[kept] for name, values in columns.items()}
    return Ragged(offsets, columns, rows.select(["session_id"]).filter(pa.array(kept)))


def _offsets(rows: pa.Table, one_ids: NDArray[np.str_]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    at = IdMap(one_ids).rows(rows["one_id"])
    kept = at >= 0
    return np.searchsorted(at[kept], np.arange(len(one_ids) + 1)).astype(np.int64), kept


def _column(values: pa.ChunkedArray, name: str, codes: _Codes) -> Array:
    if _is_text(values.type):
        return codes.encode(name, values)
    return _values(values)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _values(values: pa.ChunkedArray) -> Array:
    """Values as float64 with NaN for null; dates as days since 1970; text unchanged, as object."""
    if _is_text(values.type):
        return np.asarray(values.to_pylist(), dtype=object)
    if pa.types.is_date(values.type):
        values = values.cast(pa.date32()).cast(pa.int32())
    numbers = (
        values.cast(pa.float64()) if not pa.types.is_boolean(values.type) else values.cast(pa.int8()).cast(pa.float64())
    )
    return np.asarray(
        numbers.to_numpy(zero_copy_only=False) if isinstance(numbers, pa.Array) else numbers.to_numpy(),
        dtype=np.float64,
    )


def _moments(values: pa.ChunkedArray) -> NDArray[np.int64]:
    return np.asarray(values.cast(pa.timestamp("us")).cast(pa.int64()).to_numpy(), dtype=np.int64)


def _price_levels(queries: StateQueries) -> dict[str, float]:
    rows = queries.table("price levels", lambda: queries.views.price_levels.order_by("item_id"))
    return dict(zip(rows["item_id"].to_pylist(), rows[PRICE_LEVEL].to_pylist(), strict=True))


def _item_attributes(builder: Builder) -> tuple[Mapping[str, ItemAttributes | None], Mapping[str, str | None]]:
    items = builder.backend.table("items")
    columns = items.select("item_id", "category", "brand", "merchandise").to_pyarrow().to_pydict()
    contents = (
        builder.backend.table("contents").select("content_id", topic=first_part(_.topics, "|")).to_pyarrow().to_pydict()
    )
    attributes = zip(columns["category"], columns["brand"], columns["merchandise"], strict=True)
    return (
        {
            item: None if merchandise is False else (category, brand)
            for item, (category, brand, merchandise) in zip(columns["item_id"], attributes, strict=True)
        },
        dict(zip(contents["content_id"], contents["topic"], strict=True)),
    )
