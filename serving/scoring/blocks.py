"""Scores of all customers, computed and written block by block; an interrupted run continues where it ended.

Memory holds one block, and each finished block is a file of its own until all are there. The blocks lie beside the
result, in a folder that is named by what the scores depend on, so that a run with another model, moment or option never
takes them over.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.data.locking import try_lock
from qianmian import __version__
from qianmian.errors import WorkspaceError
from qianmian.workspace import explain_os_errors
from serving.champions import Champion, Champions
from serving.scoring.tables import BLOCK, PROVENANCE, write_tables
from serving.scoring.workers import SHARED_PREFIX, BlockTask, write_block, write_in_workers


@dataclass(frozen=True)
class BlockScores:
    """Scores of customers that are computed by blocks.

    Attributes
    ----------
    schema : pyarrow.Schema
        Columns of every block.
    customers : int
        Number of customers.
    block : callable
        Computes the scores of the customers from one number up to another, as a table. Worker processes receive a
        pickled copy, so it must not be a function within a function.
    depends_on : mapping
        What the scores depend on, as plain data: runs in which it is equal give equal blocks.
    size : int
        Number of customers of a block.
    counts : mapping of str to int
        What was read of the candidates of each customer (`KnownCandidates.counts`); empty without such.
    """

    schema: pa.Schema
    customers: int
    block: Callable[[int, int], pa.Table]
    depends_on: Mapping[str, Any]
    size: int = BLOCK
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First customer of each block and the one after its last; no block without customers."""
        return [(start, min(start + self.size, self.customers)) for start in range(0, self.customers, self.size)]

    @property
    def digest(self) -> str:
        """Digest of all that the blocks depend on."""
        known = {"version": __version__, "size": self.size, "customers": self.customers, **self.depends_on}
        text = json.dumps([known, str(self.schema)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def table(self) -> pa.Table:
        """All scores as one table in memory."""
        return pa.concat_tables([self.schema.empty_table(), *(self.block(*block) for block in self.ranges)])


@dataclass(frozen=True)
class WrittenScores:
    """What a file of scores contains.

    Attributes
    ----------
    rows, customers : int
        Number of rows, and of the customers in them.
    columns : tuple of str
        Names of the columns.
    as_of : datetime or None
        Moment of the scores; None without rows.
    resumed : int
        Number of customers whose scores an interrupted run had left.
    """

    rows: int
    customers: int
    columns: tuple[str, ...]
    as_of: datetime | None
    resumed: int = 0

    @classmethod
    def of(cls, table: pa.Table) -> WrittenScores:
        """The facts of a table."""
        as_of = table[PROVENANCE[0][0]][0].as_py() if table.num_rows else None
        return cls(table.num_rows, len(table["one_id"].unique()), tuple(table.column_names), as_of)


def provenance(champions: Champions, *models: Champion) -> dict[str, Any]:
    """What the scores of models depend on whatever the options: the models and the profiles."""
    profiles = champions.customers
    return {
        "models": [[model.job, model.version, model.bundle.as_of, model.bundle.facts] for model in models],
        "profiles": [profiles.as_of, profiles.data_digest, profiles.tags_digest],
        "settings": champions.settings.model_dump(mode="json"),
    }


def only_needed(champions: Champions, models: Sequence[Champion], tags: Collection[str] = ()) -> Champions:
    """Return the champions with these models only, and of the profiles only the features and these tags.

    Blocks refer to them, and worker processes receive what blocks refer to.
    """
    profiles = champions.customers
    kept = {name: values for name, values in profiles.tags.items() if name in tags}
    reduced = replace(profiles, tags=kept, customers=profiles.customers.slice(0, 0))
    reduced.features  # noqa: B018 - computed here once instead of in every process
    return Champions({model.job: model for model in models}, reduced, champions.settings)


def write_blocks(
    scores: BlockScores, path: Path, progress: Callable[[int, int], None] = lambda done, of: None, workers: int = 1
) -> WrittenScores:
    """Write scores to a Parquet or CSV file; the file appears when it is complete.

    Parameters
    ----------
    scores : BlockScores
    path : Path
        ``.parquet`` or ``.csv``.
    progress : callable, optional
        Called with the number of customers done and their total after every block.
    workers : int
        Number of processes that compute blocks (`serving.scoring.workers`). With one, or if at most one block is left,
        this process computes them. The file is the same for any number.

    Returns
    -------
    WrittenScores

    Raises
    ------
    WorkspaceError
        If another process is writing the same scores to this file.

    Notes
    -----
    The finished blocks lie in the hidden folder ``.NAME.DIGEST.blocks`` beside the file. When the file is complete,
    they are removed with those of other runs for the same file that have ended.
    """
    folder = path.with_name(f".{path.name}.{scores.digest}.blocks")
    with _locked(folder) as free:
        if not free:
            raise WorkspaceError(
                "another process is writing these scores",
                where=str(path),
                hint="wait until it has finished, or name another --out",
            )
        _remove_leftovers(path, folder, f"{SHARED_PREFIX}*")  # of processes that were killed; they hold customer data
        written = _write_blocks(scores, path, folder, progress, workers)
        _remove_leftovers(path, folder)
        return written


def _write_blocks(
    scores: BlockScores, path: Path, folder: Path, progress: Callable[[int, int], None], workers: int
) -> WrittenScores:
    """Write the blocks that a folder does not contain yet, then the file."""
    files = [folder / f"{number:06d}.parquet" for number in range(len(scores.ranges))]
    blocks = [BlockTask(start, stop, file) for (start, stop), file in zip(scores.ranges, files, strict=True)]
    left = [task for task in blocks if not task.file.exists()]
    done = resumed = scores.customers - sum(task.stop - task.start for task in left)
    if resumed:
        progress(done, scores.customers)
    for task in _written(scores.block, left, workers):
        done += task.stop - task.start
        progress(done, scores.customers)
    rows, customers, as_of = 0, 0, None

    def tables() -> Iterator[pa.Table]:
        nonlocal rows, customers, as_of
        for file in files:
            found = WrittenScores.of(table := pq.read_table(file, schema=scores.schema))
            # a customer is in one block only
            rows, customers, as_of = rows + found.rows, customers + found.customers, as_of or found.as_of
            yield table

    write_tables(tables(), scores.schema, path)
    return WrittenScores(rows, customers, tuple(scores.schema.names), as_of, resumed)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder of blocks, which is made if it is missing; yield whether no other process has locked it."""
    file = folder / "lock"
    while True:
        with explain_os_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                handle = file.open("a")
            except FileNotFoundError:
                continue  # the process that held it has just removed the folder
        with handle:
            free = try_lock(handle)
            if free and not (file.exists() and os.path.samestat(os.fstat(handle.fileno()), file.stat())):
                continue  # likewise
            yield free
            return


def _remove_leftovers(path: Path, own: Path, pattern: str | None = None) -> None:
    """Remove the folders of blocks for a file, or what is in them, except those that another process has locked.

    Parameters
    ----------
    path : Path
        The file of scores.
    own : Path
        The folder that this process has locked.
    pattern : str, optional
        Remove only the folders of this name within.
    """
    for folder in path.parent.glob(f".{glob.escape(path.name)}.{'[0-9a-f]' * 16}.blocks"):
        with suppress(WorkspaceError), nullcontext(True) if folder == own else _locked(folder) as free:
            # a folder that may not be changed, such as that of another user, stays
            for found in (folder.glob(pattern) if pattern else [folder]) if free else ():
                shutil.rmtree(found, ignore_errors=True)


def _written(block: Callable[[int, int], pa.Table], tasks: Sequence[BlockTask], workers: int) -> Iterator[BlockTask]:
    """Compute and write blocks; yield each when its file is complete."""
    if workers > 1 and len(tasks) > 1:
        yield from write_in_workers(block, tasks, workers)
        return
    for task in tasks:
        write_block(block, task)
        yield task
