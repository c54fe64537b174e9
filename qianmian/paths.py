"""Local paths as URLs and as patterns, and the paths that neither can hold."""

from __future__ import annotations

import glob
import os
import re
import unicodedata
from pathlib import Path
from urllib.parse import unquote, urlparse

SQLITE_URL = re.compile(r"sqlite(?:\+\w+)?:///(?P<path>[^?]*)(?:\?(?P<query>.*))?", re.DOTALL)


def sqlite_url(file: Path) -> str:
    """Return the SQLAlchemy URL of a SQLite file; ``?`` would begin its query and ``%`` an escape, so both are escaped.

    Examples
    --------
    >>> sqlite_url(Path("/shops/a b/mlflow.db")), sqlite_url(Path("/shops/100%?/mlflow.db"))
    ('sqlite:////shops/a b/mlflow.db', 'sqlite+pysqlite:////shops/100%25%3F/mlflow.db')
    """
    path = file.as_posix()
    escaped = path.replace("%", "%25").replace("?", "%3F")
    # MLflow makes the folder of a `sqlite:///` URL, and it makes a second one under the escaped name
    return f"sqlite:///{path}" if escaped == path else f"sqlite+pysqlite:///{escaped}"


def sqlite_file(url: str) -> Path | None:
    """Return the absolute path of the file that a SQLAlchemy URL names, None if it names no SQLite file.

    Examples
    --------
    >>> str(sqlite_file("sqlite:////shops/100%25%3F/mlflow.db?timeout=5")), sqlite_file("http://localhost:5000")
    ('/shops/100%?/mlflow.db', None)
    >>> str(sqlite_file("sqlite:///file:/a%253Fb/mlflow.db?uri=true"))
    '/a?b/mlflow.db'
    """
    match = SQLITE_URL.fullmatch(url)
    path = unquote(match["path"]) if match else ""
    if path.startswith("file:"):
        path = unquote(urlparse(path).path)
    return Path(path).absolute() if path and path != ":memory:" else None


def local_path(uri: str) -> Path | None:
    """Return the local path of a file URI or a plain path, None for a remote URI.

    Examples
    --------
    >>> str(local_path("file:///with%20space/a")), local_path("s3://bucket/a")
    ('/with space/a', None)
    """
    parsed = urlparse(uri)
    if parsed.scheme == "file":
        return Path(unquote(parsed.path))
    return Path(uri) if not parsed.scheme else None


def exact_pattern(path: str | Path) -> str:
    """Return the pattern that only this path matches: DuckDB's readers take ``*``, ``?`` and brackets for wildcards.

    Examples
    --------
    >>> exact_pattern("/shops/a [1]/links.parquet")
    '/shops/a [[]1]/links.parquet'
    """
    return glob.escape(str(path))


def unusable_characters(path: Path) -> str:
    r"""Return the characters of a path that DuckDB's patterns or URLs cannot hold, in the order in which they appear.

    These are control characters, a backslash that does not separate folders, and bytes that are no valid text.

    Examples
    --------
    >>> unusable_characters(Path("/shops/a b [1] #2 100% ?* 店")), unusable_characters(Path("/shops/a\nb\\c"))
    ('', '\n\\')
    """
    return "".join(
        letter
        for letter in str(path)
        if unicodedata.category(letter) in ("Cc", "Cs") or (letter == "\\" and os.sep != "\\")
    )
