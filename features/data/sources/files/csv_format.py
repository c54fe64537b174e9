"""The format of a CSV file, found by looking at its first bytes."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from features.data.personal_values import EMAIL_PATTERN, PHONE_PATTERN
from features.data.sources.files.file_kinds import other_kind
from features.data.sources.files.settings import TableSettings
from features.data.sources.files.text_encodings import bom_of, codec_name, guess_encoding, likely_encodings

HEAD_BYTES = 1 << 16
DELIMITERS = (",", ";", "\t", "|")
MAX_HEADER_LINES = 10
_CONTACT = re.compile(f"{EMAIL_PATTERN}|{PHONE_PATTERN}")
_SEP_LINE = re.compile(r'"?sep=(\\t|.)"?[\s,;]*', re.IGNORECASE)
# encodings in which a header is tried again when its names are not those of the mapping
_OTHER_ENCODINGS = ("utf-8", "gb18030", "big5", "windows-1252", "shift_jis", "cp949", "windows-1251")


# right sides of the mapping: the text, and the column names in it if it is an expression
Wanted = Sequence[tuple[str, Sequence[str]]]


class UnreadableFile(Exception):
    """A file cannot be read as it is described; the text is one line for the user."""


@dataclass(frozen=True)
class CsvFormat:
    """Format of one CSV file.

    Attributes
    ----------
    names : tuple of str
        Column names.
    delimiter, quote : str
        Separator of the cells, and the character around cells that contain it; an empty quote: there is none.
    encoding : str
        Python name of the encoding.
    bom : bytes
        Byte order mark at the beginning.
    skipped : int
        Lines before the header: a `sep=` line, preface lines and blank lines.
    header_lines : int
        Lines of the header; 0 if the names are given in the YAML file.
    only_cr : bool
        Whether lines end with a carriage return alone, as on old Macs.
    """

    names: tuple[str, ...]
    delimiter: str
    quote: str
    encoding: str
    bom: bytes = b""
    skipped: int = 0
    header_lines: int = 1
    only_cr: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether DuckDB reads a file of this format as it is, if its lines are clean."""
        return (
            self.encoding == "utf-8"
            and self.skipped == 0
            and not self.only_cr
            and self.bom in (b"", codecs.BOM_UTF8)
            and (self.header_lines == 1 or (self.header_lines == 0 and not self.bom))
        )


@dataclass(frozen=True)
class CsvHead:
    """The first lines of a CSV file, decoded.

    Attributes
    ----------
    lines : list of str
        Complete lines without their ends; characters that cannot be decoded are U+FFFD.
    raw : bytes
        The bytes after the byte order mark.
    """

    lines: list[str]
    raw: bytes
    bom: bytes
    encoding: str
    only_cr: bool


def open_binary(file: Path) -> IO[bytes]:
    """Open a file, decompressed if its name ends with .gz."""
    return cast(IO[bytes], gzip.open(file, "rb")) if file.name.lower().endswith(".gz") else file.open("rb")


def read_head(file: Path, declared: str | None, size: int = HEAD_BYTES) -> CsvHead:
    """Read the first lines of a file.

    Parameters
    ----------
    declared : str or None
        Encoding that the YAML file declares.
    size : int
        Number of bytes that are read.

    Raises
    ------
    UnreadableFile
        The file is no text, or UTF-16 without a byte order mark while no encoding is declared.
    """
    try:
        with open_binary(file) as handle:
            raw = handle.read(size)
    except (OSError, EOFError) as error:
        raise UnreadableFile(f"the first line cannot be read: {error}") from error
    complete = len(raw) < size
    bom, named = bom_of(raw)
    raw = raw[len(bom) :]
    kind = other_kind(raw)
    if kind:
        raise UnreadableFile(kind)
    if named is None and declared is None and raw.count(b"\0") > len(raw) // 4:
        raise UnreadableFile(f"the text is not UTF-8 but UTF-16: add `encoding: {guess_encoding(raw)}` beside `path`")
    encoding = named or (codec_name(declared) if declared else "utf-8")
    text = codecs.getincrementaldecoder(encoding)("replace").decode(raw, final=complete)
    only_cr = "\n" not in text and "\r" in text.rstrip("\r")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not complete and len(lines) > 1:
        lines.pop()  # the last line may be cut
    return CsvHead(lines, raw, bom, encoding, only_cr)


def lines_before_header(lines: Sequence[str], skip: int = 0) -> tuple[int, str | None]:
    """Number of lines before the header that reading passes over, and the delimiter that a `sep=` line declares.

    Parameters
    ----------
    skip : int
        Number of lines that the YAML file tells to skip.

    Examples
    --------
    >>> lines_before_header(["sep=;", "", "order;item"]), lines_before_header(["order,item"])
    ((2, ';'), (0, None))
    """
    separator = _SEP_LINE.fullmatch(lines[0]) if lines else None
    skipped = max(skip, 1) if separator else skip
    while skipped < len(lines) and not lines[skipped].strip():
        skipped += 1
    if separator is None:
        return skipped, None
    return skipped, "\t" if separator[1] == "\\t" else separator[1]


def describe_csv(file: Path, settings: TableSettings, wanted: Wanted) -> CsvFormat:
    """Find the format of a CSV file.

    Parameters
    ----------
    wanted : sequence of (str, sequence of str)
        Right sides of the mapping and the columns they name; where several delimiters are possible, they decide.

    Raises
    ------
    UnreadableFile
        The header cannot be decoded, is missing, or consists of personal data.
    """
    head = read_head(file, settings.encoding)
    skipped, declared = lines_before_header(head.lines, settings.skip)
    delimiter = settings.delimiter or declared
    if skipped >= len(head.lines):
        raise UnreadableFile(f"there is no header line after {skipped} lines" if skipped else "there is no header line")
    lines = head.lines[skipped:]
    header_lines = 0
    if settings.header is not None:
        names = tuple(settings.header)
        delimiter = delimiter or max(DELIMITERS, key=lines[0].count)
    else:
        chosen = delimiter or _delimiter(lines, settings.quote, wanted)
        delimiter = chosen
        cells, header_lines = split_record(lines, delimiter, settings.quote)
        names = tuple(cell.strip(" \t\n\ufeff\xa0") or f"column{position}" for position, cell in enumerate(cells))
        _check_header(names, head, skipped, settings)
    return CsvFormat(names, delimiter, settings.quote, head.encoding, head.bom, skipped, header_lines, head.only_cr)


def _check_header(names: Sequence[str], head: CsvHead, skipped: int, settings: TableSettings) -> None:
    if any("\ufffd" in name for name in names):
        likely = likely_encodings(head.raw)
        reading = "".join(
            f"; as {name} it is {shortened(head.raw.decode(codec_name(name), errors='replace').splitlines()[skipped])}"
            for name in likely
        )
        raise UnreadableFile(
            f"the header (line {skipped + 1}) is not valid {head.encoding}{reading}: "
            f"add `encoding: {' or '.join(likely) or 'NAME'}` beside `path`"
            + ("" if likely else ", for example windows-1252, windows-1251, gb18030 or shift_jis")
        )
    # checked here, so that no message about missing columns quotes personal data
    if any(_CONTACT.search(name) for name in names):
        raise UnreadableFile(
            "the first line contains an e-mail address or a telephone number: name the columns with `header: [...]`"
        )


def split_record(lines: Sequence[str], delimiter: str, quote: str) -> tuple[list[str], int]:
    """Cells of the first record of `lines`, and the number of lines that it spans."""
    if len(delimiter) > 1:
        return lines[0].split(delimiter), 1
    text = io.StringIO("\n".join(lines[: MAX_HEADER_LINES + 1]) + "\n", newline="")
    if quote:
        reader = csv.reader(text, delimiter=delimiter, quotechar=quote)
    else:
        reader = csv.reader(text, delimiter=delimiter, quoting=csv.QUOTE_NONE)
    try:
        cells = next(reader, [])
    except csv.Error as error:
        raise UnreadableFile(f"the header cannot be split into columns: {error}") from error
    if reader.line_num > MAX_HEADER_LINES:
        raise UnreadableFile(f"a quote in the header is never closed: {shortened(lines[0])}")
    return cells, max(reader.line_num, 1)


def name_key(name: str) -> str:
    """A column name as names are compared: white space counts as one blank, and case is ignored."""
    return " ".join(name.split()).lower()


def matches(cells: Collection[str], wanted: Wanted) -> int:
    """Number of right sides whose columns are all among the cells; case and kind of white space are ignored."""
    present = set(map(name_key, cells))

    def has(name: str) -> bool:
        return name_key(name) in present

    return sum(has(text) or (bool(names) and all(map(has, names))) for text, names in wanted)


def _delimiter(lines: Sequence[str], quote: str, wanted: Wanted) -> str:
    """The delimiter that gives most of the wanted names; if several do, the most frequent one of the first line."""

    def rank(delimiter: str) -> tuple[int, int]:
        try:
            cells, _ = split_record(lines, delimiter, quote)
        except UnreadableFile:
            cells = []
        return matches(cells, wanted), lines[0].count(delimiter)

    return max(DELIMITERS, key=rank)


def header_hint(file: Path, settings: TableSettings, found: CsvFormat, wanted: Wanted) -> str:
    """What to add to the YAML file if the first line does not look like the header; empty if nothing helps."""
    head = read_head(file, settings.encoding)
    if settings.header is not None:
        return ""
    have = matches(found.names, wanted)
    for number in range(found.skipped + 1, min(len(head.lines), found.skipped + 200)):
        if not head.lines[number].strip():
            continue
        rest = head.lines[number:]
        cells, _ = split_record(rest, settings.delimiter or _delimiter(rest, settings.quote, wanted), settings.quote)
        better = matches(cells, wanted)
        if better > have and better * 2 >= len(wanted):
            return (
                f"line {number + 1} has the columns of {better} of {len(wanted)} right sides: "
                f"add `skip: {number}` beside `path`"
            )
    for name in _OTHER_ENCODINGS:
        if head.bom or codec_name(name) == head.encoding:
            continue
        try:
            other = describe_csv(file, settings.model_copy(update={"encoding": name}), wanted)
        except UnreadableFile:
            continue
        if matches(other.names, wanted) > have:
            return f"the file is not {settings.encoding or 'utf-8'}: set `encoding: {name}` beside `path`"
    return ""


def shortened(text: str, length: int = 80) -> str:
    """The text in quotes, cut to `length` characters."""
    return repr(text if len(text) <= length else text[: length - 1] + "…")
