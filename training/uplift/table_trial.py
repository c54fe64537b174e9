"""The trial of a table with one row a customer: who was contacted, what came of it, and whether it was randomised."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from scipy.stats import norm, rankdata

from models.classify.column_encoding import ColumnEncoding
from models.classify.snapshot_model import SnapshotColumn, decimal_of, encoded, numbers
from qianmian.errors import DataError, UsageError
from training.classify.columns import MOSTLY, choose_columns, read_label
from training.uplift.trial import Trial, check

NO = ("no", "n", "none", "false", "f", "0", "0.0", "control", "holdout", "否", "对照组")
CHANCE = 1e-3  # probability that a randomised test with columns known before the contact is refused
MIN_GROUP = 30  # customers who all have, or all lack, the outcome


@dataclass(frozen=True)
class TableTrial:
    """A table as a trial.

    Attributes
    ----------
    trial : Trial
    columns : tuple of SnapshotColumn
    control : str
        The value of the treatment that means no contact.
    notes : list of str
        What was left out or changed, a line each.
    """

    trial: Trial
    columns: tuple[SnapshotColumn, ...]
    control: str
    notes: list[str]


def read_trial(table: pa.Table, treatment: str, outcome: str, control: str | None, excluded: set[str]) -> TableTrial:
    """Read a randomised test from a table of texts.

    Parameters
    ----------
    table : pyarrow.Table
        Of `read_snapshot_table`.
    treatment, outcome : str
        Columns. Every value of the treatment but `control` is a contact; rows without a treatment or an outcome are
        left out. The outcome is a yes or no, or an amount.
    control : str or None
        By default the one of two values that means no.
    excluded : set of str
        Columns that are not learnt from, beside these two.

    Raises
    ------
    DataError
        The outcome is neither a number nor a yes or no, no column tells customers apart, or a column was filled after
        the contact (`require_balance`); or the trial cannot be learnt from (`check`).
    UsageError
        `control` is no value of the treatment, or is needed and not given.
    """
    arms, results = table[treatment], table[outcome]
    kept = pc.and_(pc.is_valid(arms), pc.is_valid(results))
    rows = table.filter(kept)
    lost = table.num_rows - rows.num_rows
    control = _control(Counter(rows[treatment].to_pylist()), treatment, control)
    treated = pc.not_equal(rows[treatment], control).to_numpy(zero_copy_only=False)
    values, notes = _outcome(rows[outcome], outcome)
    columns, column_notes = choose_columns(rows, {treatment, outcome, *excluded})
    X = encoded(rows, columns)
    names, categorical = [column.name for column in columns], tuple(column.kind == "category" for column in columns)
    trial = Trial(X, treated, values, None, names, categorical=categorical)
    check(trial)
    require_balance(trial)
    notes += [f"{lost:,} rows without a treatment or an outcome are left out"] if lost else []
    return TableTrial(trial, columns, control, [*notes, *column_notes])


def require_balance(trial: Trial) -> None:
    """Check that every column was known before the contact, and that the contact was drawn at random.

    Raises
    ------
    DataError
        A column differs between the arms by more than chance, or tells the outcome of many customers for certain.
    """
    most = float(norm.isf(CHANCE / 2.0 / len(trial.names)))
    distances = dict(zip(trial.names, imbalance(trial), strict=True))
    after = {
        name: f"{distance:.1f} standard errors between the arms"
        for name, distance in distances.items()
        if distance > most
    }
    after |= dict.fromkeys(consequences(trial), "tells the outcome for certain")
    if after:
        raise DataError(
            "columns look as if they were filled after the contact, or the contact was not drawn at random",
            where="--treatment",
            got=", ".join(f"{name} ({what})" for name, what in after.items()),
            allowed=f"columns known before the contact, at most {most:.1f} standard errors apart between the arms",
            hint=f"leave them out: {' '.join(f'--exclude {name}' for name in after)}; contacts that were not drawn "
            "at random are learnt from a lake, as campaigns",
        )


def consequences(trial: Trial) -> list[str]:
    """Columns in which many customers above the least value, or of a category, have all the same yes or no.

    A purchase implies a visit: such a column is a consequence of the outcome, not known before it. By chance, so many
    equal outcomes have a probability below `CHANCE`.
    """
    if not trial.is_binary:
        return []
    encoding = ColumnEncoding.of(trial.X, trial.is_category)
    rate = float(trial.outcome.mean())
    found = set()
    for values, source in zip(encoding.tree_columns(trial.X).T, encoding.tree_sources(), strict=True):
        group = trial.outcome[values > np.nanmin(values)] if np.isfinite(values).any() else trial.outcome[:0]
        if len(group) >= MIN_GROUP and (group == group[0]).all():
            chance = len(group) * np.log(rate if group[0] else 1.0 - rate)
            if chance < np.log(CHANCE / len(trial.names)):
                found.add(int(source))
    return [trial.names[place] for place in sorted(found)]


def imbalance(trial: Trial) -> NDArray[np.float64]:
    """Largest distance between the arms by column, in standard errors, (f,): of ranks, or of a category's shares."""
    encoding = ColumnEncoding.of(trial.X, trial.is_category)
    found = np.zeros(len(trial.names))
    ours, theirs = int(trial.treated.sum()), int((~trial.treated).sum())
    for values, source in zip(encoding.tree_columns(trial.X).T, encoding.tree_sources(), strict=True):
        for series in (rankdata(np.where(np.isfinite(values), values, np.inf)), np.isfinite(values).astype(np.float64)):
            error = series.std() * np.sqrt(1.0 / ours + 1.0 / theirs) if ours and theirs else 0.0
            if error > 0:
                distance = abs(series[trial.treated].mean() - series[~trial.treated].mean()) / error
                found[source] = max(found[source], float(distance))
    return found


def _control(counts: Counter[str], treatment: str, control: str | None) -> str:
    listed = ", ".join(f"{value} ({count:,})" for value, count in counts.most_common(5))
    if control is not None:
        if control not in counts:
            raise UsageError(f"no row has this value of {treatment}", where="--control", got=control, allowed=listed)
        return control
    means_no = [value for value in counts if value.strip().lower() in NO]
    if len(counts) > 2 or len(means_no) != 1:
        raise UsageError(
            f"it is not clear which value of {treatment} means that a customer was not contacted",
            where="--treatment",
            allowed=listed,
            hint="add --control VALUE",
        )
    return means_no[0]


def _outcome(texts: pa.ChunkedArray, name: str) -> tuple[NDArray[np.float64], list[str]]:
    """The outcome of each row: the number, or 1 for yes and 0 for no; and notes."""
    parsed = numbers(texts, decimal_of(texts) or ".")
    if (len(parsed) - parsed.null_count) >= MOSTLY * len(texts):
        if parsed.null_count:
            raise DataError(
                f"the outcome {name} has cells that are no numbers",
                where="--outcome",
                got=f"{parsed.null_count:,} of {len(texts):,} cells",
                hint="correct or remove these rows",
            )
        return parsed.to_numpy().astype(np.float64), []
    label = read_label(texts, name, None)
    return label.y.astype(np.float64), [f"the outcome is {name} = {label.positive}"]
