"""Blocks of complete lines of a file, and whether DuckDB can read a CSV file as it is.

A file is read in blocks, so memory does not depend on its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from features.data.sources.files.csv_format import CsvFormat, UnreadableFile, open_binary
from features.data.sources.files.csv_quotes import irregular_lines

BLOCK_BYTES = 1 << 22
MAX_LINE_BYTES = 1 << 26


def is_clean(file: Path, found: CsvFormat) -> bool:
    """Whether DuckDB reads every line of the file right: valid UTF-8, one kind of line ends, no cell over two lines."""
    if not found.is_plain:
        return False
    delimiter, quote = found.delimiter.encode(), found.quote.encode()
    line_feeds = returns = pairs = 0
    with open_binary(file) as handle:
        handle.read(len(found.bom))
        for block in line_blocks(handle, b"\n"):
            if not is_utf8(block):
                return False
            line_feeds += block.count(b"\n")
            if b"\r" in block:
                returns += block.count(b"\r")
                pairs += block.count(b"\r\n")
            if returns and not returns == pairs == line_feeds:
                return False
            complete = block if block.endswith(b"\n") else block + b"\n"
            if irregular_lines(complete, delimiter, quote).size:
                return False
    return True


def is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def read_block(handle: IO[bytes]) -> bytes:
    """The next bytes of a file; empty at its end."""
    return handle.read(BLOCK_BYTES)


def line_blocks(handle: IO[bytes], end: bytes) -> Iterator[bytes]:
    """The bytes of a file in blocks that end with `end`; the last one may end without it."""
    rest: list[bytes] = []
    while data := read_block(handle):
        cut = data.rfind(end) + 1
        if cut:
            yield b"".join([*rest, data[:cut]])
            rest = []
        rest.append(data[cut:])
        if sum(map(len, rest)) > MAX_LINE_BYTES:
            raise UnreadableFile(f"a line has more than {MAX_LINE_BYTES >> 20} MiB: it is no text file with rows")
    final = b"".join(rest)
    if final:
        yield final
