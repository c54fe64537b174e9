"""The tags of all customers, read and written by blocks for `qianmian score tags`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.profiles.snapshot import Snapshot, read_facts, unreadable
from features.profiles.tags.facts import TagFacts
from serving.scoring.blocks import BlockScores
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE

FILES = ("profiles", "tags")  # of the published profiles
AS_OF, MOMENT = PROVENANCE[0]


def score_tags(profiles: Snapshot | Path) -> BlockScores:
    """Prepare one row per customer with the value of every tag.

    Parameters
    ----------
    profiles : Snapshot or Path
        Profiles in memory, or the folder of published ones, of which one block at a time is read.

    Returns
    -------
    BlockScores
        user_id, user_source, one_id, one column per present tag (null if unknown), as_of, and `TAG_as_of` for each tag
        of a model, which may have computed its values at another moment.

    Raises
    ------
    ArtifactError
        If the folder is not a snapshot.
    """
    rows: _Rows
    if isinstance(profiles, Snapshot):
        as_of, facts = profiles.as_of, profiles.tag_facts
        digests = [profiles.data_digest, profiles.tags_digest]
        identity = profiles.table.select([name for name, _ in IDENTITY_COLUMNS])
        tags = pa.table({name: pa.array(values) for name, values in profiles.tags.items()})
        rows = _RowsInMemory(identity, tags)
        names_and_types, n = list(tags.schema), identity.num_rows
    else:
        stored = read_facts(profiles)
        as_of, digests = datetime.fromisoformat(stored["as_of"]), [stored["data_digest"], stored["tags_digest"]]
        facts = {name: TagFacts.of(value) for name, value in stored["tag_facts"].items()}
        try:
            rows = _RowsOfFiles(profiles, *(pq.ParquetFile(profiles / f"{name}.parquet") for name in FILES))
            names_and_types = [field for field in rows.tags.schema_arrow if field.name != "one_id"]
            n = rows.identity.metadata.num_rows
        except (OSError, pa.ArrowException) as error:
            raise unreadable(profiles, error) from error
    moments = {AS_OF: as_of}
    for field in names_and_types:
        if field.name in facts and facts[field.name].how == "model":
            moments[f"{field.name}_{AS_OF}"] = facts[field.name].as_of
    # a tag that is unknown for all customers has no type of its own
    tag_types = [(field.name, pa.string() if pa.types.is_null(field.type) else field.type) for field in names_and_types]
    schema = pa.schema([*IDENTITY_COLUMNS, *tag_types, *((name, MOMENT) for name in moments)])
    return BlockScores(schema, n, _TagBlock(rows, moments, schema), {"profiles": [as_of, *digests], "tags": moments})


@dataclass(frozen=True)
class _RowsInMemory:
    """Identity columns and tags of profiles in memory."""

    identity: pa.Table
    tags: pa.Table

    def read(self, start: int, stop: int) -> Mapping[str, Any]:
        """The columns of a range of customers."""
        parts = (self.identity.slice(start, stop - start), self.tags.slice(start, stop - start))
        return {name: part[name] for part in parts for name in part.column_names}


@dataclass(frozen=True)
class _RowsOfFiles:
    """Identity columns and tags of published profiles.

    The files stay open: they can be read to the end although profiles that are published meanwhile replace them.
    """

    folder: Path
    identity: pq.ParquetFile
    tags: pq.ParquetFile

    def read(self, start: int, stop: int) -> Mapping[str, Any]:
        """The columns of a range of customers, of which only the row groups that contain it are read."""
        try:
            tags = read_rows(self.tags, start, stop)
            identity = read_rows(self.identity, start, stop, [name for name, _ in IDENTITY_COLUMNS])
        except (OSError, pa.ArrowException) as error:
            raise unreadable(self.folder, error) from error
        return {name: part[name] for part in (tags, identity) for name in part.column_names}


_Rows = _RowsInMemory | _RowsOfFiles


@dataclass(frozen=True)
class _TagBlock:
    """Reads the tags of a block of customers."""

    rows: _Rows
    moments: Mapping[str, datetime]
    schema: pa.Schema

    def __call__(self, start: int, stop: int) -> pa.Table:
        found = dict(self.rows.read(start, stop))
        found |= {name: pa.repeat(pa.scalar(moment, MOMENT), stop - start) for name, moment in self.moments.items()}
        return pa.table([found[field.name].cast(field.type) for field in self.schema], schema=self.schema)


def read_rows(file: pq.ParquetFile, start: int, stop: int, columns: list[str] | None = None) -> pa.Table:
    """Read the rows from `start` up to `stop` of an open Parquet file."""
    groups: list[int] = []
    first, end = 0, 0
    for group in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        if begin < stop and end > start:
            first = first if groups else begin
            groups.append(group)
    return file.read_row_groups(groups, columns).slice(start - first, stop - start)
