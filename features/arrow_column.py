"""Columns of a million customers as sequences, without a Python object for each of their values."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeVar, overload

import numpy as np
import pyarrow as pa

from features.encoded_rows import text_codes

Value = TypeVar("Value", covariant=True)


class ArrowColumn(Sequence[Value]):
    """An Arrow column as a sequence: a value becomes a Python object when it is read. Equal to a list of its values.

    Examples
    --------
    >>> column = ArrowColumn(pa.chunked_array([[1.5, None], [2.5]]))
    >>> column[0], column[-2:], column == [1.5, None, 2.5], pa.array(column).null_count
    (1.5, [None, 2.5], True, 1)
    """

    def __init__(self, values: pa.ChunkedArray | pa.Array) -> None:
        # one chunk, because a row of several is first searched for
        self._values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, row: int) -> Value: ...

    @overload
    def __getitem__(self, row: slice) -> list[Value]: ...

    def __getitem__(self, row: int | slice) -> Value | list[Value]:
        found: Any = self._values[row]
        value: Value | list[Value] = found.to_pylist() if isinstance(row, slice) else found.as_py()
        return value

    def __iter__(self) -> Iterator[Value]:
        return iter(self.__arrow_array__().to_pylist())

    def __eq__(self, other: object) -> bool:
        return list(self) == (list(other) if isinstance(other, ArrowColumn) else other)

    __hash__ = None  # type: ignore[assignment]

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        """The column, for `pa.array` and `pa.table`."""
        return self._values if type is None else self._values.cast(type)


class TextColumn(ArrowColumn[str]):
    """A column of texts without nulls, of which one is read from its bytes, in half the time of an Arrow scalar.

    Examples
    --------
    >>> column = TextColumn(pa.array(["b", "张", ""]).slice(1))
    >>> column[0], column[1], column[-1], column[:1]
    ('张', '', '', ['张'])
    """

    def __init__(self, values: pa.ChunkedArray | pa.Array) -> None:
        super().__init__(values.cast(pa.string()))
        _, ends, texts = self._values.buffers()
        first = self._values.offset
        # of a text and its neighbours: where it begins is where the one before it ends
        self._ends = memoryview(ends or b"").cast("i")[first : first + len(self._values) + 1]
        self._bytes = memoryview(texts or b"")

    def __reduce__(self) -> tuple[Any, ...]:
        return TextColumn, (self._values,)  # views of memory cannot be sent to another process

    @overload
    def __getitem__(self, row: int) -> str: ...

    @overload
    def __getitem__(self, row: slice) -> list[str]: ...

    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice) or row < 0:
            return super().__getitem__(row)
        ends = self._ends
        return str(self._bytes[ends[row] : ends[row + 1]], "utf-8")


class EncodedColumn(ArrowColumn[str | None]):
    """A dictionary-encoded column: each different text once, and 4 bytes at each row, from which one is read at once.

    Examples
    --------
    >>> column = EncodedColumn(pa.chunked_array([["b", None], ["a", "b"]]).dictionary_encode())
    >>> column[0], column[1], column[2:], column == ["b", None, "a", "b"], pa.array(column).type
    ('b', None, ['a', 'b'], True, DataType(string))
    """

    def __init__(self, values: pa.ChunkedArray | pa.Array) -> None:
        texts, self._codes = text_codes(values)
        self._texts = [*texts.to_pylist(), None]  # the last one is at the code −1 of null

    def __len__(self) -> int:
        return len(self._codes)

    @overload
    def __getitem__(self, row: int) -> str | None: ...

    @overload
    def __getitem__(self, row: slice) -> list[str | None]: ...

    def __getitem__(self, row: int | slice) -> str | list[str | None] | None:
        found = self._codes[row]
        return [self._texts[code] for code in found] if isinstance(row, slice) else self._texts[found]

    def __arrow_array__(self, type: pa.DataType | None = None) -> pa.Array:
        codes = np.where(self._codes < 0, len(self._texts) - 1, self._codes)
        return pa.array(self._texts, type or pa.string()).take(pa.array(codes))
