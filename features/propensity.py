"""The rows of propensity targets in the lake, and who has bought or done one in a period."""

from __future__ import annotations

from datetime import datetime
from difflib import get_close_matches
from typing import Any

import ibis

from features.compute.builder import Builder
from features.compute.compile_ibis import row_filter
from features.compute.views import Views
from features.definitions.target_features import target_condition
from qianmian.errors import DataError
from qianmian.propensity_targets import PropensityTarget

SIMILAR = 3  # names that an error suggests


def target_rows(views: Views, target: PropensityTarget) -> Any:
    """The paid order lines or the events of a target; those of a category include the categories below it."""
    rows = views[target.view]
    return rows.filter(row_filter(rows, (target_condition(target),)))


def rows_between(builder: Builder, target: PropensityTarget, start: datetime, end: datetime) -> dict[str, int]:
    """Number of lines or events of the target in ``[start, end)``, by one_id."""
    rows = target_rows(builder.views(end), target)
    inside = rows.filter(rows.ts >= ibis.timestamp(start.isoformat(sep=" ")))
    counts = inside.group_by("one_id").aggregate(rows=inside.count()).to_pyarrow().to_pydict()
    return dict(zip(counts["one_id"], counts["rows"], strict=True))


def require_in_lake(builder: Builder, target: PropensityTarget) -> None:
    """Check that the lake has a row of the target.

    Raises
    ------
    DataError
        It has none; the error names similar items, categories, brands or types of events.
    """
    state = builder.states.get(target.table)
    if state is None or not state.rows or "ts" not in state.filled:
        raise DataError(
            f"the target {target} needs {target.table} with times",
            where="the lake",
            hint=f"map `ts` of {target.table} in sources.yaml",
        )
    views = builder.views(builder.lake.default_as_of)
    if target_rows(views, target).limit(1).count().execute():
        return
    column = views[target.view][target.column]
    names = sorted(name for name in column.as_table().distinct().to_pyarrow()[0].to_pylist() if name)
    if target.kind == "category":  # parents as well
        names = sorted({"/".join(name.split("/")[:n]) for name in names for n in range(1, name.count("/") + 2)})
    by_lower = {name.lower(): name for name in names}
    near = [by_lower[name] for name in get_close_matches(target.name.lower(), by_lower, SIMILAR)]
    near += [name for name in names if target.name.lower() in name.lower() and name not in near][:SIMILAR]
    raise DataError(
        f"no row of the lake is of this {target.kind}",
        where=str(target),
        got=target.name,
        hint=f"did you mean {', '.join(near)}?" if near else f"write it as the column `{target.column}` has it",
    )
