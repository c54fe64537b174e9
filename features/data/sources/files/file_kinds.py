"""Files that are no CSV although their name says so, recognised by their first bytes."""

from __future__ import annotations

import re

_ZIP = b"PK\x03\x04"
_SPREADSHEET = "open it in a spreadsheet program and save the sheet as `CSV UTF-8`"
_UNPACK = "unpack it and name the CSV file in it"
# first bytes → (what the file is, what to do)
_KINDS: tuple[tuple[bytes, str, str], ...] = (
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel workbook (.xls)", _SPREADSHEET),
    (b"\x1f\x8b", "compressed with gzip", "give its name the ending .csv.gz"),
    (b"BZh", "compressed with bzip2", _UNPACK),
    (b"\xfd7zXZ\0", "compressed with xz", _UNPACK),
    (b"\x28\xb5\x2f\xfd", "compressed with Zstandard", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"%PDF-", "a PDF document", "export the table as CSV; a printed report cannot be read"),
    (b"PAR1", "a Parquet file", "give its name the ending .parquet"),
    (b"SQLite format 3\0", "an SQLite database", "name it with `url: sqlite:///FILE` and `table`"),
)
_MARKUP = re.compile(rb"\s*<(!doctype|\?xml|html|head|body|table|meta|script)\b", re.IGNORECASE)
_JSON = re.compile(rb'\s*(\{\s*"[^"]*"\s*:|\[\s*[\[{])')


def other_kind(head: bytes) -> str | None:
    """What a file is that is no text with rows, and what to do; None if its first bytes tell of no other kind.

    Parameters
    ----------
    head : bytes
        First bytes without a byte order mark.

    Examples
    --------
    >>> other_kind(b"%PDF-1.4")
    'the file is a PDF document: export the table as CSV; a printed report cannot be read'
    >>> other_kind(b"order,item"), other_kind(b"[1],[2]")
    (None, None)
    """
    found = _kind_of(head)
    return f"the file is {found[0]}: {found[1]}" if found else None


def _kind_of(head: bytes) -> tuple[str, str] | None:
    if head.startswith(_ZIP):
        is_workbook = b"[Content_Types].xml" in head or b"xl/" in head
        return (
            ("an Excel workbook (.xlsx)", _SPREADSHEET)
            if is_workbook
            else ("a zip archive or an office document", f"{_UNPACK}, or {_SPREADSHEET}")
        )
    for first, what, fix in _KINDS:
        if head.startswith(first):
            return what, fix
    if _MARKUP.match(head):
        return (
            "a web page or XML and no CSV",
            "export the table as CSV; if it came from a download, the page may be that of a login or an error",
        )
    if _JSON.match(head):
        return "JSON", "write its records as CSV or Parquet, for example with DuckDB or pandas"
    return None
