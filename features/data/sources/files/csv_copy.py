"""A copy of a CSV file in UTF-8 with clean line ends and without broken lines, for files that DuckDB cannot read.

The file is read in blocks, so memory does not depend on its size.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from features.data.sources.files.csv_blocks import is_utf8, line_blocks, read_block
from features.data.sources.files.csv_format import CsvFormat, UnreadableFile, open_binary
from features.data.sources.files.csv_quotes import irregular_lines, record_at
from features.data.sources.files.text_encodings import c1_controls, ends_lines_as_ascii, guess_encoding

MARK = "\ufdd0"  # a noncharacter; it stands where bytes could not be decoded
_MARK_BYTES = MARK.encode()
_SAMPLE_BYTES = 1 << 16
_MANY_LINES = 1000
MAX_SHOWN = 100_000  # characters of a refused line


@dataclass
class CsvCopy:
    """A clean copy of a CSV file, without its header, and what was found on the way.

    Attributes
    ----------
    file : str
        Name of the original.
    path : Path
        The copy.
    rejected_path : Path
        CSV (line, reason, text) of the lines that were left out.
    lines_path : Path
        CSV (copied, original): the first line of the copy from which on lines have the distance original - copied.
    lines, rows, refused : int
        Physical lines after the header that are not blank, the rows they became, and the rows left out.
    several_lines : int
        Rows with a quoted cell that contains line breaks.
    first_several : int
        Line of the first of them.
    undecodable, first_undecodable : int
        Rows left out because their bytes are not valid, and the line of the first one.
    guess : str or None
        Encoding in which those lines may be written.
    seems_utf8 : bool
        Another encoding is declared, but all bytes are valid UTF-8.
    """

    file: str
    path: Path
    rejected_path: Path
    lines_path: Path
    lines: int = 0
    rows: int = 0
    refused: int = 0
    several_lines: int = 0
    first_several: int = 0
    undecodable: int = 0
    first_undecodable: int = 0
    guess: str | None = None
    seems_utf8: bool = False


def copy_clean(file: Path, found: CsvFormat, target: Path, limit: int | None = None) -> CsvCopy:
    """Write a clean copy of `file` and the lines that are left out.

    Parameters
    ----------
    target : Path
        The copy; the other files have its name with another ending.
    limit : int, optional
        Only so many rows are needed; the copy may have a few more.

    Raises
    ------
    UnreadableFile
        Most lines are not valid in the encoding, or the file is in another encoding than the declared one.
    """
    copy = CsvCopy(str(file), target, target.with_suffix(".rejected"), target.with_suffix(".lines"))
    with (
        target.open("wb") as written,
        copy.rejected_path.open("w", encoding="utf-8", newline="") as rejected,
        copy.lines_path.open("w", encoding="ascii", newline="") as lines,
    ):
        _Copier(copy, found, written, _csv_writer(rejected), _csv_writer(lines)).run(file, limit)
    return copy


def _csv_writer(file: IO[str]) -> Any:
    return csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")


@dataclass
class _Copier:
    """State of one copy; `line` and `copied` are the numbers of the next line of the original and of the copy."""

    copy: CsvCopy
    found: CsvFormat
    written: IO[bytes]
    rejected: Any
    lines: Any
    line: int = 1
    copied: int = 1
    samples: list[bytes] = field(default_factory=list)
    high_bytes: int = 0
    valid_lines: int = 0  # decoded lines beyond ASCII of a file that has others; a whole block counts as many
    decoded: int = 0  # lines that were decoded; up to one block ahead of `line`

    def run(self, file: Path, limit: int | None) -> None:
        self.copy.seems_utf8 = self.found.encoding != "utf-8" and not self.found.bom
        to_drop = self.found.skipped + self.found.header_lines
        carry = b""
        if not to_drop:
            self._note_distance()
        for block, last in _with_last(self._text_blocks(file)):
            data = carry + block
            while to_drop and b"\n" in data:
                data = data[data.index(b"\n") + 1 :]
                to_drop -= 1
                self.line += 1
                if not to_drop:
                    self._note_distance()
            if to_drop:
                carry = data
                continue
            done = self._take(data, last)
            carry = data[done:]
            if limit is not None and self.copy.rows >= limit:
                break
        copy = self.copy
        copy.seems_utf8 = copy.seems_utf8 and self.high_bytes >= 10
        if copy.undecodable > self.valid_lines:  # otherwise single lines of a file in the right encoding are damaged
            copy.guess = guess_encoding(b"\n".join(self.samples))

    def _text_blocks(self, file: Path) -> Iterator[bytes]:
        """Blocks of complete lines in UTF-8 with line feeds; undecodable bytes are marked."""
        with open_binary(file) as handle:
            handle.read(len(self.found.bom))
            raw = line_blocks(handle, b"\r" if self.found.only_cr else b"\n")
            if not ends_lines_as_ascii(self.found.encoding):
                raw = self._decoded_blocks(handle)
            for block in raw:
                text = self._line_feeds(block)
                self.decoded += text.count(b"\n")
                yield text

    def _decoded_blocks(self, handle: IO[bytes]) -> Iterator[bytes]:
        decoder = codecs.getincrementaldecoder(self.found.encoding)("replace")
        rest, end = "", "\r" if self.found.only_cr else "\n"
        while True:
            data = read_block(handle)
            text = rest + decoder.decode(data, final=not data).replace("\ufffd", MARK)
            cut = text.rfind(end) + 1 if data else len(text)
            rest = text[cut:]
            if cut:
                yield text[:cut].encode("utf-8", "replace")
            if not data:
                return

    def _line_feeds(self, block: bytes) -> bytes:
        """The lines as UTF-8, each with one line feed."""
        if ends_lines_as_ascii(self.found.encoding):
            block = self._utf8(block)
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
            if self.found.only_cr:
                block = block.replace(b"\r", b"\n")
            elif b"\r" in block:
                block = b"\n".join(self._split_returns(line) for line in block.split(b"\n"))
        return block if block.endswith(b"\n") else block + b"\n"

    def _split_returns(self, line: bytes) -> bytes:
        """A line with lone carriage returns: they end lines if the parts are rows, else they are blanks in a cell."""
        if b"\r" not in line:
            return line
        parts, delimiter = line.rstrip(b"\r").split(b"\r"), self.found.delimiter.encode()
        rows = all(part.count(delimiter) == len(self.found.names) - 1 for part in parts)
        return (b"\n" if rows and len(self.found.names) > 1 else b" ").join(parts)

    def _utf8(self, block: bytes) -> bytes:
        if block.isascii():
            return block
        encoding = self.found.encoding
        if encoding == "iso8859-1" and c1_controls(block):
            number = self.decoded + next(n for n, line in enumerate(block.splitlines(), 1) if c1_controls(line))
            raise UnreadableFile(
                f"line {number} has control characters when it is read as latin-1: "
                f"set `encoding: {guess_encoding(block) or 'windows-1252'}` beside `path`"
            )
        if self.copy.seems_utf8:
            self.copy.seems_utf8 = is_utf8(block)
            self.high_bytes += len(block) - len(block.decode("ascii", "ignore"))
        try:
            text = block.decode(encoding)
        except UnicodeError:
            return b"\n".join(self._decoded_line(line) for line in block.split(b"\n"))
        self.valid_lines += _MANY_LINES
        return block if encoding == "utf-8" else text.encode("utf-8")

    def _decoded_line(self, line: bytes) -> bytes:
        try:
            text = line.decode(self.found.encoding)
            self.valid_lines += not line.isascii()
            return text.encode("utf-8")
        except UnicodeError:
            if sum(map(len, self.samples)) < _SAMPLE_BYTES:
                self.samples.append(line)
            text = line.rstrip(b"\r").decode(self.found.encoding, "replace") + MARK
            return text.encode("utf-8", "replace") + b"\r" * line.endswith(b"\r")

    def _take(self, data: bytes, last: bool) -> int:
        """Copy the complete rows of `data`; return the number of bytes done."""
        delimiter, quote = self.found.delimiter.encode(), self.found.quote.encode()
        suspects = irregular_lines(data, delimiter, quote).tolist()
        if _MARK_BYTES in data:
            marked = [number for number, line in enumerate(data.split(b"\n")) if _MARK_BYTES in line]
            suspects = sorted({*suspects, *marked})
        if not suspects:
            self._keep(data, 0, len(data))
            return len(data)
        starts = [0, *(np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1).tolist()]
        position = 0
        for number in suspects:
            start = int(starts[number])
            if start < position:
                continue  # inside a cell of several lines
            self._keep(data, position, start)
            position = start
            record = record_at(data, start, delimiter, quote, len(self.found.names), last)
            if record.verdict == "more":
                return position
            if _MARK_BYTES in data[start : record.end]:
                self._refuse_undecodable(data[start : record.end])
            elif record.verdict == "refused":
                self._refuse(data[start : record.end], record.reason)
            else:
                self._keep_record(data, start, record.end)
            position = record.end
        self._keep(data, position, len(data))
        return len(data)

    def _keep(self, data: bytes, start: int, end: int) -> None:
        """Copy lines that are one row each."""
        if start == end:
            return
        part = data[start:end] if start or end < len(data) else data
        count = part.count(b"\n")
        blank = part.count(b"\n\n") + part.startswith(b"\n")
        if b"\n\n\n" in part:
            blank = sum(not line for line in part.split(b"\n")[:-1])
        self.written.write(part)
        self.line += count
        self.copied += count
        self.copy.lines += count - blank
        self.copy.rows += count - blank

    def _keep_record(self, data: bytes, start: int, end: int) -> None:
        count = data.count(b"\n", start, end)
        if count > 1:
            self.copy.several_lines += 1
            self.copy.first_several = self.copy.first_several or self.line
        self.written.write(data[start:end])
        self.line += count
        self.copied += 1
        self.copy.lines += count
        self.copy.rows += 1
        if count > 1:
            self._note_distance()

    def _refuse(self, text: bytes, reason: str) -> None:
        shown = text.decode("utf-8", "replace").replace(MARK, "").rstrip("\n").replace("\0", "")[:MAX_SHOWN]
        self.rejected.writerow((self.line, reason, shown))
        count = text.count(b"\n")
        self.line += count
        self.copy.lines += count
        self.copy.refused += 1
        self._note_distance()

    def _refuse_undecodable(self, text: bytes) -> None:
        copy = self.copy
        copy.undecodable += 1
        copy.first_undecodable = copy.first_undecodable or self.line
        self._refuse(text, "")
        if copy.undecodable > _MANY_LINES and copy.undecodable > 0.9 * (copy.rows + copy.refused):
            guess = guess_encoding(b"\n".join(self.samples))
            raise UnreadableFile(
                f"line {copy.first_undecodable} and nearly all others are not valid {self.found.encoding}: "
                f"add `encoding: {guess or 'NAME'}` beside `path`"
            )

    def _note_distance(self) -> None:
        self.lines.writerow((self.copied, self.line))


def _with_last(blocks: Iterator[bytes]) -> Iterator[tuple[bytes, bool]]:
    """Each block, and whether it is the last one."""
    held: bytes | None = None
    for block in blocks:
        if held is not None:
            yield held, False
        held = block
    if held is not None:
        yield held, True
