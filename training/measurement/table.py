"""`measure ab --data`: an experiment from a file with one row a customer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.snapshot_table import read_snapshot_table, require_column
from models.classify.snapshot_model import decimal_of, numbers
from qianmian.errors import DataError, UsageError
from training.measurement.experiment import Experiment, MetricSeries, Series, choose_control, weights_of
from training.measurement.notes import Note

NO_VALUE = "(none)"
YES_AND_NO = {"yes": "no", "y": "n", "true": "false", "t": "f", "是": "否"}
MOST_EXAMPLES = 3


@dataclass(frozen=True)
class ExperimentColumns:
    """Which columns of a file are what.

    Attributes
    ----------
    variant : str
    metrics : sequence of str
    before : sequence of str
        The same metrics before the exposure; none, or one for each metric.
    denominators : sequence of str
        Of ratio metrics; none, or one for each metric.
    segments : sequence of str
    control : str or None
        The variant that the others are compared with.
    weights : mapping of str to float, or None
        How the variants were drawn; by default alike.
    propensity, customer : str or None
        The probability of the row's variant, and the customer, of whom there may be one row only.
    exposed_at, outcome_at : str or None
        Times of the exposure and of the outcome, to check that no outcome comes first.
    """

    variant: str
    metrics: Sequence[str]
    before: Sequence[str] = ()
    denominators: Sequence[str] = ()
    segments: Sequence[str] = ()
    control: str | None = None
    weights: Mapping[str, float] | None = None
    propensity: str | None = None
    customer: str | None = None
    exposed_at: str | None = None
    outcome_at: str | None = None


def read_experiment(path: Path, columns: ExperimentColumns) -> Experiment:
    """Read an experiment; rows without a variant are left out, and that is noted.

    Raises
    ------
    UsageError
        A column is missing, or options do not belong together.
    DataError
        A metric has cells that are no numbers, a customer is in two rows, or an outcome comes before its exposure.
    """
    table = read_snapshot_table(path)
    require_column(table, columns.variant, "--variant", path)
    for option, names in {
        "--metric": columns.metrics,
        "--pre": columns.before,
        "--denominator": columns.denominators,
        "--segment": columns.segments,
        "--propensity": [columns.propensity] if columns.propensity else [],
        "--customer": [columns.customer] if columns.customer else [],
        "--exposed-at": [columns.exposed_at] if columns.exposed_at else [],
        "--outcome-at": [columns.outcome_at] if columns.outcome_at else [],
    }.items():
        for name in names:
            require_column(table, name, option, path)
    rows = table.filter(pc.is_valid(table[columns.variant]))
    left_out = table.num_rows - rows.num_rows
    text = f"left out, without a variant: {left_out:,} rows"
    notes = [Note(text, f"已排除没有分组的 {left_out:,} 行")] if left_out else []
    if columns.customer:
        _require_one_row_a_customer(rows, columns.customer, columns.variant)
    if columns.exposed_at and columns.outcome_at:
        _require_exposure_first(rows, columns.exposed_at, columns.outcome_at)
    metrics = []
    for place, name in enumerate(columns.metrics):
        values = read_numbers(rows[name], "--metric", name)
        denominator = _optional(rows, columns.denominators, place, "--denominator")
        if denominator is not None and (denominator < 0).any():
            raise DataError("a denominator is negative", where=f"--denominator {columns.denominators[place]}")
        title = name if denominator is None else f"{name} / {columns.denominators[place]}"
        metrics.append(MetricSeries(title, values, denominator, _optional(rows, columns.before, place, "--pre")))
    variant = np.asarray(rows[columns.variant].to_pylist(), dtype=np.str_)
    control = choose_control(Counter(variant.tolist()), columns.control)
    propensity, weights = _propensity(rows, columns.propensity), require_weights(columns.weights, variant.tolist())
    if propensity is not None and (constant := weights_of(variant, propensity)) is not None:
        propensity, weights = None, weights or constant
    return Experiment(
        variant,
        control,
        tuple(metrics),
        weights,
        propensity,
        {name: np.asarray(rows[name].fill_null(NO_VALUE).to_pylist(), dtype=np.str_) for name in columns.segments},
        tuple(notes),
    )


def require_weights(weights: Mapping[str, float] | None, variants: Collection[str]) -> Mapping[str, float] | None:
    """Check that the weights are those of the variants.

    Raises
    ------
    UsageError
        A variant has none, or one is of no variant.
    """
    if weights is None:
        return None
    if set(weights) != set(variants):
        raise UsageError(
            "--expected names other variants than there are",
            got=", ".join(sorted(weights)),
            allowed=", ".join(sorted(set(variants))),
        )
    return weights


def _optional(rows: pa.Table, names: Sequence[str], place: int, option: str) -> Series | None:
    return read_numbers(rows[names[place]], option, names[place]) if names else None


def read_numbers(texts: pa.ChunkedArray, option: str, name: str) -> Series:
    """A column as numbers, a yes or no as 1 and 0.

    Raises
    ------
    DataError
        A cell is neither, or empty: an outcome that is not known is not the same as none.

    Examples
    --------
    >>> read_numbers(pa.chunked_array([["Yes", "no"]]), "--metric", "bought").tolist()
    [1.0, 0.0]
    """
    parsed = parse_numbers(texts)
    if parsed.null_count:
        example = next(
            value for value, number in zip(texts.to_pylist(), parsed.to_pylist(), strict=True) if number is None
        )
        raise DataError(
            f"{name} has cells that are no numbers",
            where=option,
            got=f"{parsed.null_count:,} of {len(texts):,} cells, such as {example or 'an empty one'}",
            allowed="a number, or yes and no, for every customer",
            hint="write 0, as for all that a new customer did before"
            if option == "--pre"
            else "write 0 where nothing came of it, and remove the customers whose outcome is not known",
        )
    return np.asarray(parsed.to_numpy(), dtype=np.float64)


def parse_numbers(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column as numbers, a yes or no as 1 and 0; null where a cell is neither.

    Examples
    --------
    >>> parse_numbers(pa.chunked_array([["1.5", "many", None]])).to_pylist()
    [1.5, None, None]
    """
    lower = {str(value).lower() for value in pc.unique(texts).to_pylist() if value is not None}
    if yes := next((one for one, other in YES_AND_NO.items() if lower <= {one, other} and lower), None):
        return pc.equal(pc.utf8_lower(texts), yes).cast(pa.float64())
    return numbers(texts, decimal_of(texts) or ".")


def _propensity(rows: pa.Table, name: str | None) -> Series | None:
    if name is None:
        return None
    values = read_numbers(rows[name], "--propensity", name)
    if not ((values > 0) & (values <= 1)).all():
        raise DataError(
            "a propensity is a probability of the variant that was drawn",
            where=f"--propensity {name}",
            got=f"{values.min():g} to {values.max():g}",
            allowed="above 0, at most 1",
        )
    return values


def _require_one_row_a_customer(rows: pa.Table, customer: str, variant: str) -> None:
    counts = Counter(rows[customer].to_pylist())
    repeated = {one for one, count in counts.items() if count > 1}
    if not repeated:
        return
    arms: dict[str, set[str]] = {}
    for one, arm in zip(rows[customer].to_pylist(), rows[variant].to_pylist(), strict=True):
        if one in repeated:
            arms.setdefault(one, set()).add(arm)
    overlapping = sum(len(own) > 1 for own in arms.values())
    examples = ", ".join(sorted(map(str, repeated))[:MOST_EXAMPLES])
    raise DataError(
        "the arms overlap: customers are in more than one" if overlapping else "a customer has several rows",
        where=f"--customer {customer}",
        got=f"{overlapping or len(repeated):,} customers, such as {examples}",
        allowed="one row a customer, in one variant",
        hint="leave out who saw both variants, and find out why" if overlapping else "sum the rows of a customer",
    )


def _require_exposure_first(rows: pa.Table, exposed_at: str, outcome_at: str) -> None:
    exposed, outcome = (_times(rows, name) for name in (exposed_at, outcome_at))
    before = pc.sum(pc.less(outcome, exposed)).as_py() or 0
    if before:
        raise DataError(
            "outcomes before the exposure are not caused by it",
            where=f"--exposed-at {exposed_at} --outcome-at {outcome_at}",
            got=f"{before:,} of {rows.num_rows:,} rows",
            allowed="outcomes at or after the exposure",
            hint="set these outcomes to 0, or use them as --pre",
        )


def _times(rows: pa.Table, name: str) -> pa.ChunkedArray:
    try:
        return pc.cast(rows[name], pa.timestamp("us"))
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{name} has cells that are no times",
            got=str(error).splitlines()[0],
            allowed="ISO times such as 2024-03-01 or 2024-03-01T08:30:00",
        ) from error
