"""How the columns of a snapshot table are read, which of them say nothing, and what its label is."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.classify.column_encoding import MAX_LEVELS, MIN_LEVEL_ROWS
from models.classify.snapshot_model import MISSING, SnapshotColumn, dates, decimal_of, numbers, plain_values
from qianmian.errors import DataError, UsageError

MIN_ROWS, MIN_ROWS_PER_ANSWER = 100, 30
# answers that mean yes, in any case; another label needs --positive
YES = ("yes", "y", "true", "t", "1", "1.0", "churned", "churn", "left", "exited", "是", "流失")
ONE, ZERO = frozenset({"1", "1.0"}), frozenset({"0", "0.0", "-1", "-1.0"})
MOSTLY = 0.95  # share of the cells that have to be numbers or dates
IDENTIFIER_SHARE = 0.9  # of distinct values among the cells: a name or an id, and nothing to learn from
OTHER_DATES = r"^\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}([ T].*)?$"
INTEGER = r"^\d+$"
ID_NAME = re.compile(r"(^|[^a-z])(id|key|nr|number)$|Id$|ID$|编号$")


@dataclass(frozen=True)
class Label:
    """The label of the rows that have one.

    Attributes
    ----------
    rows : ndarray of int64, (n,)
        Rows of the table that have a label.
    y : ndarray of int64, (n,)
        1 where it is `positive`.
    positive : str
    """

    rows: NDArray[np.int64]
    y: NDArray[np.int64]
    positive: str


def read_label(texts: pa.ChunkedArray, name: str, positive: str | None) -> Label:
    """Return the label as 1 and 0.

    Parameters
    ----------
    positive : str or None
        The value whose probability is predicted, against all others; by default the one of two that means yes.

    Raises
    ------
    DataError
        The label has one value, several without `positive`, or too few rows of one answer.
    UsageError
        No row has the value `positive`, or neither of the two values means yes.
    """
    counts = Counter(value for value in texts.to_pylist() if value is not None)
    if len(counts) < 2:
        raise DataError(
            f"the label {name} has one value only" if counts else f"the label {name} is empty",
            where="--label",
            got=", ".join(counts) or None,
            allowed="two values, such as Yes and No",
            hint="add the customers with the other answer, or name another column",
        )
    if positive is None:
        positive = _yes_of(counts, name, numeric=_share(numbers(texts, "."), texts) >= MOSTLY)
    elif positive not in counts:
        raise UsageError(f"no row has this value of {name}", where="--positive", got=positive, allowed=_listed(counts))
    rows = np.flatnonzero(pc.is_valid(texts).to_numpy())
    y = pc.equal(texts, positive).take(pa.array(rows)).to_numpy(zero_copy_only=False).astype(np.int64)
    least = int(min(y.sum(), (1 - y).sum()))
    if len(y) < MIN_ROWS or least < MIN_ROWS_PER_ANSWER:
        raise DataError(
            "there are too few rows to train and evaluate a classifier",
            where="--label",
            got=f"{len(y)} rows with a label, {int(y.sum())} of them {positive}",
            allowed=f"at least {MIN_ROWS} rows, {MIN_ROWS_PER_ANSWER} of each answer",
            hint="add customers, or choose a label whose answers are both common",
        )
    return Label(rows, y, positive)


def _yes_of(counts: Counter[str], name: str, *, numeric: bool) -> str:
    if len(counts) > 2:
        what = f"{name} is a number with {len(counts)} values" if numeric else f"{name} has {len(counts)} values"
        raise DataError(
            f"the label has to be a yes or no; {what}",
            where="--label",
            got=_listed(counts),
            allowed="two values",
            hint="add --positive VALUE to predict one of them against all others"
            if not numeric
            else "add a column that says whether the number is above a threshold, and name that one",
        )
    yes = [value for value in counts if value.lower() in YES]
    no = [value for value in counts if value not in yes]
    is_code = bool(yes) and yes[0] in ONE and not ZERO.issuperset(no)  # 1 and 2 mean yes and no, or no and yes
    if len(yes) != 1 or is_code:
        raise UsageError(
            f"it is not clear which value of {name} is to be predicted",
            where="--label",
            allowed=_listed(counts),
            hint="add --positive VALUE",
        )
    return yes[0]


def _listed(counts: Counter[str]) -> str:
    named = [f"{value} ({count:,})" for value, count in counts.most_common(5)]
    return ", ".join([*named, *(["…"] if len(counts) > 5 else [])])


def choose_columns(table: pa.Table, excluded: set[str]) -> tuple[tuple[SnapshotColumn, ...], list[str]]:
    """Decide how each column is read; columns that say nothing are left out.

    Returns
    -------
    tuple of SnapshotColumn
    list of str
        Notes of what was left out or changed, a line each.

    Raises
    ------
    DataError
        No column is left.
    """
    found: list[SnapshotColumn] = []
    notes: list[str] = []
    for name in table.column_names:
        if name in excluded:
            continue
        column, note = _read(name, table[name])
        if column is not None:
            found.append(column)
        if note:
            notes.append(f"{name} {note}")
    if not found:
        raise DataError(
            "no column of the table says anything about the customers",
            got="; ".join(notes) or f"columns: {', '.join(table.column_names)}",
            allowed="at least one column with different values, beside the id and the label",
        )
    return tuple(found), notes


def _read(name: str, texts: pa.ChunkedArray) -> tuple[SnapshotColumn | None, str]:
    """How a column is read, None if it is left out; and why, or what happened to its values."""
    known = len(texts) - texts.null_count
    distinct = pc.count_distinct(texts).as_py() if known else 0
    if distinct < 2 and texts.null_count in (0, len(texts)):
        return None, "is left out: it is the same for all customers" if known else "is left out: it is empty"
    decimal = decimal_of(texts) or "."
    parsed = numbers(texts, decimal)
    is_number = _share(parsed, texts) >= MOSTLY
    if known > MIN_LEVEL_ROWS and _is_identifier(name, texts, parsed, distinct, is_number=is_number):
        return None, "is left out: almost every customer has another value, as an id or a name has"
    if is_number:
        if distinct == 2:  # 0 and 1 are a yes or no
            return _category(name, texts)
        lost = len(texts) - parsed.null_count
        note = f"is a number; {known - lost:,} other texts count as missing" if lost < known else ""
        return SnapshotColumn(name, "number", decimal=decimal), note
    if _share(dates(texts), texts) >= MOSTLY:
        return SnapshotColumn(name, "date"), "is a date, read as days: it ages, so train again from time to time"
    if pc.sum(pc.match_substring_regex(texts, OTHER_DATES)).as_py() >= MOSTLY * known:
        return None, "is left out: it looks like dates, which are read as YYYY-MM-DD only"
    return _category(name, texts)


def _is_identifier(
    name: str, texts: pa.ChunkedArray, parsed: pa.ChunkedArray, distinct: int, *, is_number: bool
) -> bool:
    """Texts that are almost all different, and whole numbers that are called an id or count the rows."""
    known = len(texts) - texts.null_count
    if not is_number:
        return bool(distinct >= IDENTIFIER_SHARE * known) and _share(dates(texts), texts) < MOSTLY
    if distinct < known or not pc.all(pc.match_substring_regex(texts, INTEGER)).as_py():
        return False
    bounds = pc.min_max(parsed).as_py()
    return bounds["max"] - bounds["min"] < 2 * known or bool(ID_NAME.search(name))


def _category(name: str, texts: pa.ChunkedArray) -> tuple[SnapshotColumn | None, str]:
    counts = Counter(MISSING if value is None else value for value in plain_values(texts).to_pylist())
    values = tuple(value for value, count in counts.most_common(MAX_LEVELS) if count >= MIN_LEVEL_ROWS)
    if not values:
        return None, f"is left out: none of its {len(counts):,} values is shared by {MIN_LEVEL_ROWS} customers"
    rare = len(counts) - len(values)
    note = f"has {rare:,} rare values, which are not told apart" if rare else ""
    return SnapshotColumn(name, "category", tuple(sorted(values))), note


def _share(parsed: pa.ChunkedArray, texts: pa.ChunkedArray) -> float:
    """Share of the cells with a value that could be read."""
    known = len(texts) - texts.null_count
    return (len(parsed) - parsed.null_count) / known if known else 0.0
