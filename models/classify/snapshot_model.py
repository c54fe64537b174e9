"""`SnapshotModel`: a calibrated classifier over the columns of a snapshot table (one row a customer, no history)."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import ClassVar, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from models.classify.calibrated import CalibratedClassifier
from models.persist import UserArrays, load_json
from qianmian.errors import DataError
from qianmian.workspace import write_json

NUMBER_PATTERN = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
DATE_PATTERN = r"^\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d+)?)?Z?)?$"
DECORATION = r"[\s€$£¥￥%]"  # of numbers
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
        Of a category: the values with the codes 0, 1, …, each shared by many customers; an empty one is a missing cell.
    decimal : str
        Of a number: its decimal separator.
    """

    name: str
    kind: Literal["number", "category", "date"]
    values: tuple[str, ...] = ()
    decimal: str = "."

    def encode(self, texts: pa.ChunkedArray) -> NDArray[np.float32]:
        """Return numbers (NaN if it is none) or codes (−1 for any other value), float32, (n,)."""
        if self.kind == "category":
            codes = pc.index_in(pc.fill_null(texts, MISSING), value_set=pa.array(self.values, pa.string()))
            return np.asarray(pc.fill_null(codes, -1).to_numpy(), dtype=np.float32)
        found = dates(texts) if self.kind == "date" else numbers(texts, self.decimal)
        return np.asarray(found.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float32)


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
        if missing := [column.name for column in self.columns if column.name not in table.column_names]:
            raise DataError(
                "the table lacks columns that the model reads",
                got=", ".join(missing),
                hint="name the columns as in the table that the model was trained on",
            )
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
        columns = tuple(SnapshotColumn(**{**column, "values": tuple(column["values"])}) for column in found["columns"])
        return cls(columns, CalibratedClassifier.load(folder / "classifier"), found["label"], found["positive"])


def encoded(table: pa.Table, columns: tuple[SnapshotColumn, ...]) -> NDArray[np.float32]:
    """Return the columns of a table of texts as numbers and codes, float32, (n, f)."""
    return np.column_stack([column.encode(table[column.name]) for column in columns]).astype(np.float32)
