"""`FeatureSpec` and `UserFeatures`: the profiles of all customers as one matrix, and the meaning of its columns."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.compute.algebra import TIME_COLUMNS, Feature
from features.id_map import IdMap
from qianmian.errors import ArtifactError, DataError
from qianmian.timezones import UTC_ZONE

MISSING_CODE = -1
BLOCK = 4_096  # customers encoded at a time: their rows of the matrix stay in the cache of the processor


@dataclass(frozen=True)
class FeatureSpec:
    """Declarations and vocabularies of the columns of a feature matrix, in order.

    Attributes
    ----------
    features : tuple of Feature
        Declarations, in column order.
    vocabularies : tuple of tuple of str
        Values of the codes 0, 1, … of each column; empty for a number. Any other value has code −1.
    timezone : str
        Time zone of the days and hours that the columns read.
    neutral : tuple of float or None
        Value that stands for an unknown profile attribute, in the middle of the known ones; None for columns that have
        none, empty if no column has one. Of codes it is between two codes, so that it is no value of the attribute.

    Examples
    --------
    >>> spec = FeatureSpec((Feature("orders_28d", "orders", "count", window_days=28),), ((),))
    >>> spec.names, len(spec.hash)
    (('orders_28d',), 16)
    """

    features: tuple[Feature, ...]
    vocabularies: tuple[tuple[str, ...], ...]
    timezone: str = UTC_ZONE
    neutral: tuple[float | None, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(feature.name for feature in self.features)

    @property
    def hash(self) -> str:
        """Digest of the declarations and vocabularies: specs with equal hashes have columns of equal meaning."""
        return hashlib.sha256(json.dumps(self.as_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """The spec as JSON-compatible data, the saved form."""
        columns = []
        for feature, vocabulary in zip(self.features, self.vocabularies, strict=True):
            column = {one.name: getattr(feature, one.name) for one in fields(feature) if one.compare}
            column["where"] = [list(condition.__dict__.values()) for condition in feature.where]
            column |= {"dtype": "category" if feature.categorical else "float32", "vocabulary": list(vocabulary)}
            columns.append(column)
        for column, value in zip(columns, self.neutral, strict=bool(self.neutral)):
            if value is not None:  # the hash of a spec without neutral values stays
                column["neutral"] = value
        # UTC is not named, so that the hash of a spec of earlier versions stays
        return {"columns": columns, **({"timezone": self.timezone} if self.timezone != UTC_ZONE else {})}

    @classmethod
    def of(cls, value: dict[str, Any]) -> FeatureSpec:
        """The inverse of `as_dict`."""
        from features.compute.algebra import Condition

        features = []
        for column in value["columns"]:
            fields = {k: v for k, v in column.items() if k not in ("dtype", "vocabulary", "neutral")}
            fields["where"] = tuple(
                Condition(c, o, tuple(v) if isinstance(v, list) else v) for c, o, v in fields["where"]
            )
            features.append(Feature(**fields))
        vocabularies = tuple(tuple(column["vocabulary"]) for column in value["columns"])
        neutral = _neutral(column.get("neutral") for column in value["columns"])
        return cls(tuple(features), vocabularies, value.get("timezone", UTC_ZONE), neutral)

    def select(self, names: Sequence[str]) -> FeatureSpec:
        """The spec of the named columns, in the order of `names`."""
        at = [self.names.index(name) for name in names]
        return replace(
            self,
            features=tuple(self.features[i] for i in at),
            vocabularies=tuple(self.vocabularies[i] for i in at),
            neutral=_neutral(self.neutral[i] for i in at) if self.neutral else (),
        )

    def indicators(self, j: int) -> list[int]:
        """Columns of the missing indicators that are about the attribute in column `j`."""
        column = self.features[j].column
        return [
            i for i, feature in enumerate(self.features) if feature.aggregate == "missing" and column in feature.columns
        ]

    def missing(self, values: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Which values of a matrix with these columns are those of unknown profile attributes, shape (n, f).

        A number is unknown where the missing indicators say so, because its default may also be a value.
        """
        unknown = np.zeros(values.shape, dtype=bool)
        for j, feature in enumerate(self.features):
            if feature.aggregate != "attribute":
                continue
            if feature.categorical:
                unknown[:, j] = values[:, j] != np.round(values[:, j])
                unknown[:, j] |= values[:, j] == MISSING_CODE
            elif found := self.indicators(j):
                unknown[:, j] = (values[:, found] == 1).all(axis=1)
        return unknown

    def check_timezone(self, timezone: str) -> None:
        """Check that values of another build mean the same days and hours as the columns of this spec.

        Parameters
        ----------
        timezone : str
            Time zone of the build.

        Raises
        ------
        ArtifactError
            A column reads days or hours, and they are those of another time zone.
        """
        read = any(feature.columns & frozenset(TIME_COLUMNS) for feature in self.features)
        if read:
            check_same_timezone(self.timezone, timezone)


def check_same_timezone(learnt: str, timezone: str) -> None:
    """Check that a model learnt from the days and hours of the time zone of a build.

    Raises
    ------
    ArtifactError
    """
    if timezone != learnt:
        raise ArtifactError(
            "the model was trained on the days and hours of another time zone than the profiles have",
            got=learnt,
            allowed=timezone,
            hint=f"train the model again, or set `timezone: {learnt}` in qianmian.yaml and run `qianmian features`",
        )


@dataclass(frozen=True)
class UserFeatures:
    """The profiles of n customers at one cutoff.

    Attributes
    ----------
    one_ids : ndarray of str, shape (n,)
        Customer ids, sorted and unique.
    values : ndarray of float32, shape (n, f)
        Feature values; categories as their codes.
    as_of : datetime
        Cutoff, naive UTC; no row at or after it was read.
    spec : FeatureSpec
        Meaning of the f columns.
    """

    one_ids: NDArray[np.str_]
    values: NDArray[np.float32]
    as_of: datetime
    spec: FeatureSpec

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        features: Sequence[Feature],
        as_of: datetime,
        spec: FeatureSpec | None = None,
        timezone: str = UTC_ZONE,
    ) -> UserFeatures:
        """Encode a table of `features.compute.builder.Builder.build`: numbers become float32, text becomes codes.

        With `spec`, its columns, order and vocabularies are used, as a trained model expects. A column that the table
        does not have gets its default. `timezone` is that of the table, for the spec that is made without `spec`.
        """
        if spec is None:
            vocabularies = []
            for feature in features:
                values = table[feature.name].unique().to_pylist() if feature.categorical else []
                vocabularies.append(tuple(sorted(value for value in values if value)))
            spec = FeatureSpec(tuple(features), tuple(vocabularies), timezone)
        matrix = np.empty((table.num_rows, len(spec.features)), dtype=np.float32)
        columns = [_encoded(table, *column) for column in zip(spec.features, spec.vocabularies, strict=True)]
        for start in range(0, table.num_rows, BLOCK):
            block = matrix[start : start + BLOCK]
            for j, column in enumerate(columns):
                block[:, j] = column if isinstance(column, float) else column.slice(start, BLOCK).to_numpy()
            _set_neutral(block, spec)
        return cls(np.asarray(table["one_id"].to_pylist(), dtype=np.str_), matrix, as_of, spec)

    def column(self, name: str) -> NDArray[np.float32]:
        """One column by name, shape (n,)."""
        if name not in self.spec.names:
            raise DataError(f"unknown feature '{name}'", allowed=", ".join(self.spec.names))
        return self.values[:, self.spec.names.index(name)]

    def text(self, name: str) -> list[str]:
        """One categorical column as text; an empty string if unknown."""
        vocabulary = dict(enumerate(self.spec.vocabularies[self.spec.names.index(name)]))
        return [vocabulary.get(code, "") for code in self.column(name).tolist()]

    def neutral_spec(self) -> FeatureSpec:
        """The spec of these features, with a neutral value for each profile attribute that some customers have.

        Models learn from the neutral value and the missing indicator in place of a code −1 or a default that is at one
        end of the values, so that what a missing record means is not learnt as the effect of a low value.
        """
        unknown = self.spec.missing(self.values)
        neutral: list[float | None] = []
        for j, feature in enumerate(self.spec.features):
            known = self.values[~unknown[:, j], j] if feature.aggregate == "attribute" else self.values[:0, j]
            middle = float(np.median(known)) if len(known) else None
            neutral.append(float(np.floor(middle)) + 0.5 if middle is not None and feature.categorical else middle)
        return replace(self.spec, neutral=_neutral(neutral))

    def rows_of(self, one_ids: NDArray[np.str_] | Sequence[str]) -> NDArray[np.int64]:
        """Row of each id, −1 if unknown; int64 array, shape (len(one_ids),)."""
        return IdMap(self.one_ids).rows(one_ids)

    def take(self, rows: NDArray[np.int64]) -> UserFeatures:
        """A copy with the customers of these rows only."""
        return replace(self, one_ids=self.one_ids[rows].copy(), values=self.values[rows].copy())


def _encoded(table: pa.Table, feature: Feature, vocabulary: tuple[str, ...]) -> pa.ChunkedArray | float:
    """The numbers or codes of a column; a column that the table does not have is its default."""
    at = table.schema.get_field_index(feature.name)  # `column_names` makes a list each time
    if at < 0:
        return float(MISSING_CODE if feature.categorical else feature.default)
    column = table.column(at)
    if not feature.categorical:
        return column
    kind = column.type.value_type if pa.types.is_dictionary(column.type) else column.type
    if pa.types.is_string_view(kind):
        column = column.cast(pa.string())
    elif not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):  # only nulls, or no texts
        return float(MISSING_CODE)
    return pc.index_in(column, value_set=pa.array(vocabulary, pa.string())).fill_null(MISSING_CODE)


def _set_neutral(matrix: NDArray[np.float32], spec: FeatureSpec) -> None:
    """Write the neutral values of the spec where a profile attribute is unknown."""
    if spec.neutral:
        neutral = np.array([np.nan if value is None else value for value in spec.neutral], dtype=np.float32)
        defaults = [MISSING_CODE if feature.categorical else feature.default for feature in spec.features]
        unknown = spec.missing(matrix) & (matrix == np.array(defaults, dtype=np.float32))
        np.copyto(matrix, neutral, where=unknown & np.isfinite(neutral))


def _neutral(values: Iterable[float | None]) -> tuple[float | None, ...]:
    """The neutral values of the columns of a spec; empty if no column has one."""
    found = tuple(values)
    return found if any(value is not None for value in found) else ()
