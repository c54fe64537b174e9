"""Quotes of CSV lines: which lines are not complete rows by themselves, and which quote would swallow its neighbours.

A cell begins with a quote or it does not; a quote inside a cell that does not begin with one is text. In a quoted cell
quotes are doubled (RFC 4180), which is how DuckDB reads them too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

_NEWLINE, _BLANK = 10, 32
MAX_CELL_BYTES = 1 << 20  # a quote that is not closed within so many bytes is a stray quote

STRAY = "a quote is opened and not closed, and the lines after it are rows of their own: double the quote or remove it"
UNDOUBLED = "text follows a closing quote: a quote inside a quoted cell must be doubled"
BACKSLASH = "a backslash stands before a quote, as MySQL writes it: export with doubled quotes (ESCAPED BY '\"')"


def irregular_lines(block: bytes, delimiter: bytes, quote: bytes) -> NDArray[np.intp]:
    """Numbers (from 0) of the lines whose quotes are not opened and closed as those of complete cells.

    Parameters
    ----------
    block : bytes
        Complete lines, each with a line feed.

    Examples
    --------
    >>> irregular_lines(b'1,"a ""b"" c"\\n2,27" wide\\n3,"open\\n4,x\\n', b",", b'"').tolist()
    [1, 2]
    """
    if not quote or quote not in block:
        return np.empty(0, np.intp)
    data = np.frombuffer(block, np.uint8)
    quotes = np.flatnonzero(data == quote[0])
    through = np.searchsorted(quotes, np.flatnonzero(data == _NEWLINE))  # quotes up to the end of each line
    counts = np.diff(through, prepend=0)
    rank = np.arange(quotes.size) - np.repeat(through - counts, counts)
    opening = rank % 2 == 0
    allowed_before, allowed_after = np.zeros(256, bool), np.zeros(256, bool)
    allowed_before[[_NEWLINE, quote[0], delimiter[-1]]] = True
    allowed_after[[_NEWLINE, 13, quote[0], delimiter[0]]] = True
    before = np.where(quotes > 0, data[quotes - 1], _NEWLINE)
    # `a, "b"`: the blank before the quote is no part of the cell
    blank = (before == _BLANK) & (quotes > 1)
    if blank.any():
        before = np.where(blank & (data[quotes - 2] == delimiter[-1]), delimiter[-1], before)
    after = data[np.minimum(quotes + 1, data.size - 1)]
    wrong = np.where(opening, ~allowed_before[before], ~allowed_after[after])
    irregular = counts % 2 == 1
    irregular[np.repeat(np.arange(counts.size), counts)[wrong]] = True
    return np.flatnonzero(irregular)


@dataclass(frozen=True)
class Record:
    """What begins at one line.

    Attributes
    ----------
    verdict : str
        "row": complete; "refused": only the first line is wrong; "more": the end is not in these bytes.
    end : int
        Offset after the record, or after the refused line.
    reason : str
        Why the line is refused.
    """

    verdict: Literal["row", "refused", "more"]
    end: int
    reason: str = ""


def record_at(block: bytes, start: int, delimiter: bytes, quote: bytes, columns: int, complete: bool) -> Record:
    """Read the record that begins at offset `start` of `block`.

    Parameters
    ----------
    columns : int
        Number of columns of the file.
    complete : bool
        Whether the file ends with this block.
    """
    line_end = block.index(b"\n", start) + 1
    end, cells, fault = _cells_at(block, start, delimiter, quote)
    if end > 0:
        if end > line_end and (
            cells != columns or _are_rows(block[start:end].split(b"\n")[:-1], delimiter, quote, columns)
        ):
            return Record("refused", line_end, STRAY)
        return Record("row", end)
    if fault < 0:  # no quote closes the cell
        if complete or len(block) - start > MAX_CELL_BYTES:
            return Record("refused", line_end, STRAY)
        return Record("more", start)
    if fault >= line_end:
        return Record("refused", line_end, STRAY)
    return Record("refused", line_end, BACKSLASH if block[fault - 1 : fault] == b"\\" else UNDOUBLED)


def _cells_at(block: bytes, start: int, delimiter: bytes, quote: bytes) -> tuple[int, int, int]:
    """Split the record at `start`: the offset after it, and its number of cells.

    The offset is 0 if a cell cannot be read. The third number is then the offset of the closing quote that text
    follows, or -1 if no quote closes the cell.
    """
    position, cells, newline = start, 0, block.index(b"\n", start)
    while True:
        begin = position
        while block[begin : begin + 1] == b" ":
            begin += 1
        cells += 1
        if block[begin : begin + 1] == quote:
            close = _closing_quote(block, begin + 1, quote)
            if close < 0:
                return 0, cells, -1
            position = close + 1
            while block[position : position + 1] == b" ":
                position += 1
            if not block.startswith((delimiter, b"\n"), position):
                return 0, cells, close
            newline = block.index(b"\n", position)
        else:
            position = block.find(delimiter, position, newline)
            position = newline if position < 0 else position
        if position == newline:
            return newline + 1, cells, -1
        position += len(delimiter)


def _closing_quote(block: bytes, position: int, quote: bytes) -> int:
    """Offset of the quote that closes a cell; -1 if there is none."""
    while True:
        position = block.find(quote, position)
        if position < 0 or block[position + 1 : position + 2] != quote:
            return position
        position += 2


def _are_rows(lines: list[bytes], delimiter: bytes, quote: bytes, columns: int) -> bool:
    """Whether the lines of a record look like rows of their own, the first one if its last quote is taken as text.

    The first line may have another delimiter after its quote; three rows after it are enough then. There are four
    delimiters at least, because two short lines of text may agree by chance.
    """
    head, _, tail = lines[0].rpartition(quote)
    begins = _cells_of(head + tail, delimiter, quote) == columns
    alike = sum(_cells_of(line, delimiter, quote) == columns for line in lines[1:])
    if alike * 5 < 4 * (len(lines) - 1) or alike * (columns - 1) < 4:
        return False
    return begins or alike >= 3


def _cells_of(line: bytes, delimiter: bytes, quote: bytes) -> int:
    """Number of cells of a line that is a row; 0 if it is none."""
    if quote not in line:
        return line.count(delimiter) + 1
    end, cells, _ = _cells_at(line + b"\n", 0, delimiter, quote)
    return cells if end > 0 else 0
