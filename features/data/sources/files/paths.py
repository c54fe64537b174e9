"""The files that the `path` of a table names."""

from __future__ import annotations

import glob
from pathlib import Path

from features.data.sources.files.csv_files import CSV_ENDINGS
from features.data.sources.files.parquet_files import PARQUET_ENDINGS, is_parquet


def expand_paths(folder: Path, path: str | list[str]) -> tuple[list[Path], list[str]]:
    """The files that `path` names, in the order in which they are read, and the problems with it.

    Parameters
    ----------
    folder : Path
        Folder of the `sources.yaml`; relative paths are resolved against it.
    path : str or list of str
        Files and globs.
    """
    files: list[Path] = []
    problems = []
    for pattern in [path] if isinstance(path, str) else path:
        absolute = folder / Path(pattern).expanduser()
        searched = Path(glob.escape(str(folder))) / Path(pattern).expanduser()  # the folder is no pattern
        matches = [Path(match) for match in sorted(glob.glob(str(searched), recursive=True))]
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
            problems.append(
                f"{unknown[0].name}: unknown file type; allowed: {', '.join((*PARQUET_ENDINGS, *CSV_ENDINGS))}"
            )
        files += [match for match in matches if match not in folders and match not in unknown and match not in files]
    if len({is_parquet(file) for file in files}) > 1:
        return [], [
            *problems,
            "CSV and Parquet files cannot be mixed in one table: use two YAML files, one per file type",
        ]
    return files, problems
