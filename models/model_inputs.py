"""A caller's table as the columns of a feature spec: integers become numbers, codes texts, and gaps get the default.

A profile has every column and no gap. A table that a person or a program sends to a registered model comes from a CSV
file, JSON or Spark, where the same numbers are integers and an unknown value is empty.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from features.compute.spec import FeatureSpec
from qianmian.errors import DataError

SHOWN = 5  # names in an error


def as_spec_columns(table: pa.Table, spec: FeatureSpec) -> pa.Table:
    """Return the columns of a table that are those of a spec, in its types; a gap in a number is the default.

    Columns that the spec does not have are left out. Columns that the table does not have stay absent, and get their
    default where the table is encoded (`features.compute.spec.UserFeatures.from_table`).

    Raises
    ------
    DataError
        The table has none of the columns, or a number is a text.

    Examples
    --------
    >>> from features.compute.algebra import Feature
    >>> spec = FeatureSpec((Feature("orders_28d", "orders", "count", window_days=28),), ((),))
    >>> as_spec_columns(pa.table({"orders_28d": [3, None], "more": ["a", "b"]}), spec).to_pydict()
    {'orders_28d': [3.0, 0.0]}
    """
    found = {
        feature.name: _as_text(table[feature.name])
        if feature.categorical
        else pc.fill_null(_as_number(table[feature.name], feature.name), float(feature.default))
        for feature in spec.features
        if feature.name in table.column_names
    }
    if not found:
        raise DataError(
            "the table has none of the columns that the model reads",
            got=", ".join(table.column_names[:SHOWN]) or "no columns",
            allowed=", ".join(spec.names[:SHOWN]) + (", …" if len(spec.names) > SHOWN else ""),
            hint="name the columns as `qianmian features --out FILE` does",
        )
    return pa.table(found)


def _as_number(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    kind = column.type
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise DataError(
            "a column of numbers has other values",
            where=name,
            got=str(kind),
            allowed="numbers; an empty cell or null is unknown",
            hint="convert the column, for example with pandas.to_numeric",
        )
    return column.cast(pa.float64(), safe=False)


def _as_text(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Categories as text; pandas reads the codes of a column with gaps as 1.0, and they are written 1."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_floating(column.type):
        return pc.replace_substring_regex(column.cast(pa.string()), r"\.0$", "")
    return column.cast(pa.string())
