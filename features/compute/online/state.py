"""The online state stored at a build: summaries of old rows and the recent rows of every customer, as flat arrays.

The rows are grouped by customer, and `offsets` contain where each customer begins. Texts are int32 codes into one
vocabulary per column. Files are Parquet, npy and JSON; nothing is unpickled.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.compute.algebra import Feature
from features.compute.online.plan import OnlinePlan
from features.compute.spec import FeatureSpec
from qianmian.errors import ArtifactError
from qianmian.timezones import UTC_ZONE
from qianmian.workspace import write_json

FORMAT = 2
ALL_ROWS_FORMAT = 1  # of earlier versions: its shares of hours are shares of all rows, and its days are those of UTC
DATE_ONLY = "date_only"  # column of the rows of a view that reads days or hours
MISSING = -1  # code of a null text
OLD_SESSIONS = "old_sessions"  # beside the views: the sessions before the tail that a newer row may belong to
Array = NDArray[Any]
ItemAttributes = tuple[str | None, str | None]  # category and brand


@dataclass(frozen=True)
class Ragged:
    """Rows of n customers, grouped by customer.

    Attributes
    ----------
    offsets : ndarray of int64, shape (n + 1,)
        Rows of customer i are ``offsets[i]:offsets[i + 1]``.
    columns : dict of str to ndarray, each of shape (rows,)
        float64 numbers, int32 text codes, int64 microseconds since 1970 in `ts`.
    keys : pyarrow.Table
        Columns that identify and order the rows; read only if new rows arrive. Without columns if none are stored.
    """

    offsets: NDArray[np.int64]
    columns: Mapping[str, Array]
    keys: pa.Table = field(default_factory=lambda: pa.table({}))


@dataclass(frozen=True)
class CustomerState:
    """State of one customer, as slices of the shared arrays; an unknown customer has no rows and no summaries.

    Attributes
    ----------
    tails : dict of str to dict of str to ndarray
        View → column → values, ordered by time. Where a feature counts the sessions of old rows, `OLD_SESSIONS` has the
        last moment and the code of those that a newer row may belong to.
    base : dict of int to dict of str to float or str
        Index of the partial aggregate → summary of the old rows; absent if there are none.
    counts : dict of int to dict of str to ndarray
        Index of the partial aggregate → `values` of its column in the old rows, and their `weights`.
    attributes : dict of str to float or str
        Values of the profile features at the build.
    order : dict of str to ndarray of int
        View → places of the rows of its tail among the stored ones, where some were taken out; else all, in order.
    """

    state: OnlineState
    row: int
    tails: Mapping[str, Mapping[str, Array]]
    base: Mapping[int, Mapping[str, float | str]]
    counts: Mapping[int, Mapping[str, Array]]
    attributes: Mapping[str, float | str]
    order: Mapping[str, NDArray[np.intp]] = field(default_factory=dict)

    def keys(self, view: str) -> pa.Table:
        """Columns that identify the rows of a tail; without columns if the tail is empty."""
        ragged = self.state.tails.get(view)
        if self.row < 0 or ragged is None:
            return pa.table({})
        low, high = ragged.offsets[self.row : self.row + 2]
        keys = ragged.keys.slice(low, high - low)
        return keys.take(self.order[view]) if view in self.order else keys

    def with_tail(self, view: str, tail: Mapping[str, Array], places: NDArray[np.intp]) -> CustomerState:
        """The state with other columns of a tail, and with only the rows at these places, in this order."""
        order = self.order[view][places] if view in self.order else places
        columns = {name: values[places] for name, values in tail.items()}
        return replace(self, tails={**self.tails, view: columns}, order={**self.order, view: order})


@dataclass(frozen=True)
class OnlineState:
    """State of n customers at `as_of`.

    Attributes
    ----------
    one_ids : ndarray of str, shape (n,)
        Customer ids, sorted.
    as_of, tail_start : datetime
        Rows in ``[tail_start, as_of)`` are stored as rows; older rows and rows without time are stored as summaries.
    base : dict of int to dict of str to ndarray, each of shape (n,)
        Index of the partial aggregate → number of the summary → values; texts as codes.
    counts : dict of int to Ragged
        Index of the partial aggregate → columns `value` and `weight`.
    last_order : ndarray of int64, shape (n,)
        Time of the last order before the tail, in microseconds since 1970; the smallest int64 if there is none.
    vocabularies : dict of str to pyarrow.Array
        Column → texts of its codes. `session_id` has codes only.
    items, contents : dict
        item_id → (category, brand), None if the item is no merchandise, and content_id → topic, to complete new rows.
    timezone : str
        Time zone of days and hours.
    price_levels : dict of str to float
        item_id → price level at the build, for new lines; empty if no feature reads it.
    """

    plan: OnlinePlan
    one_ids: NDArray[np.str_]
    as_of: datetime
    tail_start: datetime
    tails: Mapping[str, Ragged]
    base: Mapping[int, Mapping[str, Array]]
    counts: Mapping[int, Ragged]
    attributes: Mapping[str, Array]
    last_order: NDArray[np.int64]
    vocabularies: Mapping[str, pa.Array]
    items: Mapping[str, ItemAttributes | None]
    contents: Mapping[str, str | None]
    timezone: str = UTC_ZONE
    price_levels: Mapping[str, float] = field(default_factory=dict)

    @cached_property
    def _codes(self) -> dict[str, dict[str, int]]:
        return {}

    @cached_property
    def _texts(self) -> dict[str, list[str]]:
        return {}

    def code(self, column: str, text: str | None) -> int:
        """Code of a text; an unknown text gets a new code that is valid in this process only."""
        if text is None:
            return MISSING
        if column not in self._codes:
            known = self.vocabularies.get(column, pa.array([], pa.string()))
            self._codes[column] = {value: code for code, value in enumerate(known.to_pylist())}
        codes = self._codes[column]
        return codes.setdefault(text, len(codes))

    def text(self, column: str, code: int) -> str:
        """The inverse of `code`."""
        if column not in self._texts:
            known = self.vocabularies.get(column)
            self._texts[column] = known.to_pylist() if known is not None else []
        texts = self._texts[column]
        if code < len(texts):
            return texts[code]
        return next(text for text, number in self._codes[column].items() if number == code)

    def customer(self, one_id: str) -> CustomerState:
        """The state of one customer."""
        at = int(np.searchsorted(self.one_ids, one_id))
        if at >= len(self.one_ids) or self.one_ids[at] != one_id:
            empty = {
                view: {name: values[:0] for name, values in tail.columns.items()} for view, tail in self.tails.items()
            }
            defaults = {feature.name: feature.default for feature in self.attribute_features}
            return CustomerState(self, -1, empty, {}, {}, defaults)
        tails = {view: _slice(tail, at) for view, tail in self.tails.items()}
        base = {
            partial: found for partial, numbers in self.base.items() if (found := self._summary(partial, numbers, at))
        }
        counts = {}
        for partial, ragged in self.counts.items():
            low, high = ragged.offsets[at : at + 2]
            if high > low:
                counts[partial] = {
                    "values": ragged.columns["value"][low:high],
                    "weights": ragged.columns["weight"][low:high],
                }
        attributes = {name: _to_python(values[at]) for name, values in self.attributes.items()}
        return CustomerState(self, at, tails, base, counts, attributes)

    def _summary(self, partial: int, numbers: Mapping[str, Array], row: int) -> dict[str, float | str]:
        if self.plan.partials[partial].text:
            code = int(numbers["value"][row])
            return {"value": self.text(self.plan.partials[partial].column, code)} if code != MISSING else {}
        found: dict[str, float | str] = {name: float(values[row]) for name, values in numbers.items()}
        present = found["value"] == found["value"] if "value" in found else found["n"] > 0  # type: ignore[operator]
        return found if present else {}

    @property
    def attribute_features(self) -> tuple[Feature, ...]:
        """The profile features of the plan."""
        return tuple(feature for feature in self.plan.features if feature.view == "profiles")

    # ---- storage -------------------------------------------------------------------------------------------------

    def save(self, folder: Path) -> None:
        """Write the state into `folder`, which must not exist."""
        folder.mkdir(parents=True)
        for view, tail in self.tails.items():
            _write_ragged(folder / f"tail_{view}", tail)
        for partial, ragged in self.counts.items():
            _write_ragged(folder / f"counts_{partial}", ragged)
        base = {
            f"{partial}.{name}": values for partial, numbers in self.base.items() for name, values in numbers.items()
        }
        columns = {"one_id": self.one_ids, "last_order": self.last_order, **base}
        columns.update({f"attribute.{name}": values for name, values in self.attributes.items()})
        pq.write_table(pa.table(columns), folder / "customers.parquet", compression="zstd")
        for column, texts in self.vocabularies.items():
            pq.write_table(pa.table({"text": texts}), folder / f"vocabulary_{column}.parquet", compression="zstd")
        spec = FeatureSpec(self.plan.features, ((),) * len(self.plan.features), self.timezone)
        manifest = {
            "format": FORMAT,
            "as_of": self.as_of.isoformat(),
            "tail_start": self.tail_start.isoformat(),
            "features": spec.as_dict(),
            "items": {item: attributes and list(attributes) for item, attributes in self.items.items()},
            "contents": dict(self.contents),
            "price_levels": dict(self.price_levels),
        }
        write_json(folder / "state.json", manifest)

    @classmethod
    def load(cls, folder: Path) -> OnlineState:
        """The inverse of `save`.

        Raises
        ------
        ArtifactError
            The folder is not an online state, or has an unknown format.
        """
        try:
            manifest = json.loads((folder / "state.json").read_text(encoding="utf-8"))
            if manifest["format"] not in (FORMAT, ALL_ROWS_FORMAT):
                raise ArtifactError(
                    "the online state has an unknown format",
                    where=str(folder),
                    got=manifest["format"],
                    allowed=f"{ALL_ROWS_FORMAT}, {FORMAT}",
                    hint="run `qianmian features` to build it again",
                )
            spec = FeatureSpec.of(manifest["features"])
            plan = OnlinePlan.of(spec.features, share_of_all_rows=manifest["format"] == ALL_ROWS_FORMAT)
            table = pq.read_table(folder / "customers.parquet")
            base: dict[int, dict[str, Array]] = {}
            attributes = {}
            for name in table.column_names:
                head, _, tail = name.partition(".")
                if head == "attribute":
                    attributes[tail] = _numpy(table[name])
                elif tail:
                    base.setdefault(int(head), {})[tail] = _numpy(table[name])
            return cls(
                plan,
                np.asarray(table["one_id"].to_pylist(), dtype=np.str_),
                datetime.fromisoformat(manifest["as_of"]),
                datetime.fromisoformat(manifest["tail_start"]),
                {file.name[5:]: _read_ragged(file) for file in sorted(folder.glob("tail_*")) if file.is_dir()},
                base,
                {int(file.name[7:]): _read_ragged(file) for file in sorted(folder.glob("counts_*"))},
                attributes,
                _numpy(table["last_order"]),
                {
                    file.stem.removeprefix("vocabulary_"): pq.read_table(file)["text"].combine_chunks()
                    for file in folder.glob("vocabulary_*.parquet")
                },
                {item: attributes and (attributes[0], attributes[1]) for item, attributes in manifest["items"].items()},
                manifest["contents"],
                spec.timezone,
                manifest.get("price_levels", {}),  # a state of an earlier version has none
            )
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise ArtifactError(
                "the online state cannot be read",
                where=str(folder),
                got=str(error).splitlines()[0],
                hint="run `qianmian features` to build it again",
            ) from error


def _slice(ragged: Ragged, row: int) -> dict[str, Array]:
    low, high = ragged.offsets[row : row + 2]
    return {name: values[low:high] for name, values in ragged.columns.items()}


def _to_python(value: Any) -> float | str:
    return str(value) if isinstance(value, str) else float(value)


def _numpy(column: pa.ChunkedArray) -> Array:
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        return np.asarray(column.to_pylist(), dtype=object)
    return np.asarray(column.to_numpy())


def _write_ragged(folder: Path, ragged: Ragged) -> None:
    folder.mkdir()
    pq.write_table(pa.table(dict(ragged.columns)), folder / "rows.parquet", compression="zstd")
    if ragged.keys.num_columns:
        pq.write_table(ragged.keys, folder / "keys.parquet", compression="zstd")
    np.save(folder / "offsets.npy", ragged.offsets, allow_pickle=False)


def _read_ragged(folder: Path) -> Ragged:
    rows = pq.read_table(folder / "rows.parquet")
    keys = folder / "keys.parquet"
    columns = {name: _numpy(rows[name]) for name in rows.column_names}
    return Ragged(
        np.load(folder / "offsets.npy", allow_pickle=False),
        columns,
        pq.read_table(keys) if keys.exists() else pa.table({}),
    )


__all__ = ["MISSING", "CustomerState", "OnlineState", "Ragged"]
