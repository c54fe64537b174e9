"""`SnapshotModel`: a calibrated classifier over the columns of a snapshot table (one row a customer, no history)."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from features.snapshot_table import AS_NUMBERS
from models.classify.calibrated import CalibratedClassifier
from models.persist import UserArrays, load_json
from qianmian.errors import DataError
from qianmian.workspace import write_json

NUMBER_PATTERN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DATE_PATTERN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?$"
DECORATION = r"[\s€$£¥￥%]"  # of numbers
LARGEST = float(np.finfo(np.float32).max)  # a number beyond is a mistake, and counts as missing
MISSING = ""  # the value of a category that stands for a missing cell


@dataclass(frozen=True)
class SnapshotColumn:
    """How the texts of one column are read.

    Attributes
    ----------
    name : str
    kind : {"number", "category", "date"}
        A date is the number of days since 1970.
    values : tuple of str
        Of a category: the values with the codes 0, 1, …, each shared by many customers (`plain_values`); an empty one
        is a missing cell.
    decimal : str
        Of a number: its decimal separator in the table of the training, which holds for texts that do not tell theirs.
    """

    name: str
    kind: Literal["number", "category", "date"]
    values: tuple[str, ...] = ()
    decimal: str = "."

    @classmethod
    def from_dict(cls, column: dict[str, Any]) -> Self:
        """Read what `dataclasses.asdict` gave, after JSON."""
        return cls(**{**column, "values": tuple(column["values"])})

    def encode(self, texts: pa.ChunkedArray) -> NDArray[np.float32]:
        """Return numbers (NaN if it is none) or codes (−1 for any other value), float32, (n,)."""
        if self.kind == "category":
            values = pc.fill_null(plain_values(texts), MISSING)
            codes = pc.index_in(values, value_set=pa.array(self.values, pa.string()))
            return np.asarray(pc.fill_null(codes, -1).to_numpy(), dtype=np.float32)
        found = dates(texts) if self.kind == "date" else numbers(texts, decimal_of(texts) or self.decimal)
        read = found.cast(pa.float64()).to_numpy(zero_copy_only=False)
        return np.where(np.abs(read) <= LARGEST, read, np.nan).astype(np.float32)


def plain_values(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return categories as all files have them: programs write a flag as 1, 1.0, True or TRUE.

    Examples
    --------
    >>> plain_values(pa.chunked_array([["1.0", "1", "TRUE", "two", None]])).to_pylist()
    ['1', '1', 'true', 'two', None]
    """
    plain = pc.replace_substring_regex(texts, r"^([+-]?\d+)\.0+$", r"\1")
    return pc.if_else(pc.match_substring_regex(plain, r"(?i)^(true|false)$"), pc.utf8_lower(plain), plain)


def decimal_of(texts: pa.ChunkedArray) -> str | None:
    """Return the decimal separator that most of the telling cells have, None if no cell tells.

    A separator before one, two or more than three digits is one of decimals, as is the second of two kinds; one before
    three digits may be one of thousands.

    Examples
    --------
    >>> [decimal_of(pa.chunked_array([[text]])) for text in ("3,25", "1.250,5", "3.25", "1,250.5", "1,250", "1.250")]
    [',', ',', '.', '.', None, None]
    """
    found = []
    for decimal, other in ((".", ","), (",", ".")):
        d, o = re.escape(decimal), re.escape(other)
        telling = rf"^[^{o}{d}]*{d}(\d{{1,2}}|\d{{4,}})\D*$|{o}.*{d}"
        found.append(pc.sum(pc.match_substring_regex(texts, telling)).as_py() or 0)
    return None if found[0] == found[1] == 0 else "." if found[0] >= found[1] else ","


def numbers(texts: pa.ChunkedArray, decimal: str) -> pa.ChunkedArray:
    """Return the texts as numbers, null for those that are none.

    Examples
    --------
    >>> numbers(pa.chunked_array([["1,250.5", "€ 3", "many", None]]), ".").to_pylist()
    [1250.5, 3.0, None, None]
    >>> numbers(pa.chunked_array([["1.250,5"]]), ",").to_pylist()
    [1250.5]
    """
    plain = pc.replace_substring_regex(texts, DECORATION, "")
    plain = pc.replace_substring(plain, "," if decimal == "." else ".", "")
    plain = pc.replace_substring(plain, ",", ".")
    return pc.if_else(pc.match_substring_regex(plain, NUMBER_PATTERN), plain, None).cast(pa.float64())


def dates(texts: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return ISO dates as days since 1970, null for any other text.

    Examples
    --------
    >>> dates(pa.chunked_array([["1970-01-03", "1970-01-03T12:00", "3.1.1970"]])).to_pylist()
    [2.0, 2.0, None]
    """
    days = pc.utf8_slice_codeunits(pc.if_else(pc.match_substring_regex(texts, DATE_PATTERN), texts, None), 0, 10)
    valid = [value is not None and _is_date(value) for value in days.to_pylist()]
    return pc.if_else(pa.array(valid), days, None).cast(pa.date32()).cast(pa.int32()).cast(pa.float64())


def _is_date(text: str) -> bool:
    try:
        np.datetime64(text)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class SnapshotModel:
    """The probability of one answer to the label of a snapshot table. It keeps no row of the table.

    Attributes
    ----------
    columns : tuple of SnapshotColumn
    classifier : CalibratedClassifier
    label, positive : str
        The label, and the value whose probability is predicted.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]] = ()

    columns: tuple[SnapshotColumn, ...] = ()
    classifier: CalibratedClassifier = field(default_factory=CalibratedClassifier)
    label: str = ""
    positive: str = ""

    def encode(self, table: pa.Table) -> NDArray[np.float32]:
        """Return the columns of the model, float32, (n, f).

        Raises
        ------
        DataError
            Columns are missing.
        """
        return encoded(table, self.columns)

    def predict_proba(self, X: NDArray[np.float32]) -> NDArray[np.float64]:
        """Return the probabilities of the other answer and of `positive`, (n, 2)."""
        return self.classifier.predict_proba(X)

    def explain(self, X: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the contribution of each column to the log-odds of `positive`, (n, f)."""
        return self.classifier.explain(X)

    def save(self, folder: Path) -> None:
        """Write the classifier and the columns as JSON."""
        self.classifier.save(folder / "classifier")
        columns = [asdict(column) for column in self.columns]
        write_json(folder / "table.json", {"columns": columns, "label": self.label, "positive": self.positive})

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a model that `save` wrote."""
        found = load_json(folder / "table.json")
        columns = tuple(map(SnapshotColumn.from_dict, found["columns"]))
        return cls(columns, CalibratedClassifier.load(folder / "classifier"), found["label"], found["positive"])


def encoded(table: pa.Table, columns: tuple[SnapshotColumn, ...]) -> NDArray[np.float32]:
    """Return the columns of a table of texts (`features.snapshot_table`) as numbers and codes, float32, (n, f).

    Raises
    ------
    DataError
        Columns are missing.
    """
    if missing := [column.name for column in columns if column.name not in table.column_names]:
        raise DataError(
            "the table lacks columns that the model reads",
            got=", ".join(missing),
            hint="name the columns as in the table that the model was trained on",
        )
    parts = []
    for column in columns:
        were_numbers = table.schema.field(column.name).metadata == AS_NUMBERS
        read = replace(column, decimal=".") if were_numbers else column
        parts.append(read.encode(table[column.name]))
    return np.column_stack(parts).astype(np.float32)
