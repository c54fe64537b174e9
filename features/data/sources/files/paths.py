"""The files that the `path` of a table names."""

from __future__ import annotations

import glob
import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from features.data.sources.files.csv_files import CSV_ENDINGS
from features.data.sources.files.csv_format import HEAD_BYTES
from features.data.sources.files.file_kinds import other_kind
from features.data.sources.files.parquet_files import PARQUET_ENDINGS, is_parquet
from features.data.sources.files.text_encodings import bom_of

_ENDINGS = (*PARQUET_ENDINGS, *CSV_ENDINGS)
_ALLOWED = ", ".join(_ENDINGS)


def natural_key(path: Path) -> tuple[list[list[tuple[int, int]]], str]:
    """Sort key by which numbers in names count as numbers, and `orders.csv` comes before `orders (1).csv`.

    Examples
    --------
    >>> names = ["orders (1).csv", "snap_10.csv", "snap_9.csv", "orders (10).csv", "orders.csv", "orders (2).csv"]
    >>> sorted(names, key=lambda name: natural_key(Path(name)))
    ['orders.csv', 'orders (1).csv', 'orders (2).csv', 'orders (10).csv', 'snap_9.csv', 'snap_10.csv']
    """
    parts = list(path.parts)
    ending = next((end for end in _ENDINGS if parts and parts[-1].lower().endswith(end)), "")
    if ending:
        parts[-1] = parts[-1][: -len(ending)]
    return [_characters(part.casefold()) for part in parts], str(path)


def _characters(text: str) -> list[tuple[int, int]]:
    """The characters of a text for sorting: a run of digits is one character with a value, at the place of `0`."""
    return [
        (ord("0"), int(part)) if part[0] in "0123456789" else (ord(part), -1)
        for part in re.findall(r"[0-9]+|[^0-9]", text)
    ]


def expand_paths(folder: Path, path: str | list[str]) -> tuple[list[Path], list[str]]:
    """The files that `path` names, in the order in which they are read, and the problems with it.

    Parameters
    ----------
    folder : Path
        Folder of the `sources.yaml`; relative paths are resolved against it.
    path : str or list of str
        Files and globs. The files of one glob are in the natural order of their names.
    """
    files: list[Path] = []
    problems = []
    for pattern in [path] if isinstance(path, str) else path:
        absolute = folder / Path(pattern).expanduser()
        searched = Path(glob.escape(str(folder))) / Path(pattern).expanduser()  # the folder is no pattern
        matches = [Path(match) for match in glob.glob(str(searched), recursive=True)]
        matches.sort(key=natural_key)
        if absolute.exists():  # a file name may contain brackets, which are no pattern then
            matches = [absolute]
        if not matches:
            problems.append(f"{pattern!r} matches no file (searched for {absolute})")
        folders = [match for match in matches if not match.is_file()]
        unknown = [
            match
            for match in matches
            if match.is_file() and not is_parquet(match) and not match.name.lower().endswith(CSV_ENDINGS)
        ]
        if folders:
            problems.append(f"{folders[0]} is a folder: use {pattern.rstrip('/')}/*.parquet or /*.csv")
        if unknown:
            with unknown[0].open("rb") as handle:
                kind = other_kind(handle.read(HEAD_BYTES))
            problems.append(f"{unknown[0].name}: {kind or f'unknown file type; allowed: {_ALLOWED}'}")
        files += [match for match in matches if match not in folders and match not in unknown and match not in files]
    if len({is_parquet(file) for file in files}) > 1:
        return [], [
            *problems,
            "CSV and Parquet files cannot be mixed in one table: use two YAML files, one per file type",
        ]
    return files, problems


def is_blank(file: Path) -> bool:
    """Whether a file has no bytes but blanks, line ends and a byte order mark: an export without rows or header."""
    if file.stat().st_size > HEAD_BYTES:
        return False
    data = file.read_bytes()
    return not data[len(bom_of(data)[0]) :].replace(b"\0", b"").strip()


def equal_files(files: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pairs of a file and an earlier one with the same bytes. Only files of one size are read."""
    sizes: dict[int, list[Path]] = {}
    for file in files:
        sizes.setdefault(file.stat().st_size, []).append(file)
    pairs = []
    for alike in sizes.values():
        seen: dict[str, Path] = {}
        for file in alike if len(alike) > 1 else ():
            with file.open("rb") as handle:
                digest = hashlib.file_digest(handle, "blake2b").hexdigest()
            if digest in seen:
                pairs.append((file, seen[digest]))
            seen.setdefault(digest, file)
    return sorted(pairs, key=lambda pair: natural_key(pair[0]))
