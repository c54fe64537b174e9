"""When two tables of profiles are the same: texts exactly, numbers to the last digits a sum in another order moves."""

from __future__ import annotations

import numpy as np
import pyarrow as pa


def assert_tables_equal(one: pa.Table, other: pa.Table, tolerance: float = 1e-9) -> float:
    """Same columns, types, rows and order; gives the greatest difference of a number, relative where it is above 1."""
    assert one.column_names == other.column_names
    assert [field.type for field in one.schema] == [field.type for field in other.schema]
    assert one.num_rows == other.num_rows
    greatest = 0.0
    for name in one.column_names:
        if pa.types.is_string(one.schema.field(name).type):
            assert one[name].to_pylist() == other[name].to_pylist(), name
            continue
        left, right = one[name].to_numpy(), other[name].to_numpy()
        assert not np.isnan(right).any(), name
        difference = float(np.max(np.abs(left - right) / np.maximum(np.abs(left), 1.0), initial=0.0))
        assert difference <= tolerance, (name, difference)
        greatest = max(greatest, difference)
    return greatest
