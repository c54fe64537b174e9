"""Erasing a customer from the published profiles, their online state, and the tags that models have published."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from features.erasure.customer import ErasedCustomer
from features.erasure.matching import REPLACEMENT, pattern, words
from features.profiles.snapshot import ONLINE_STATE_FOLDER, ROWS_PER_GROUP, current_snapshot_name
from features.profiles.tags.published import FOLDER as MODEL_TAGS
from qianmian.errors import ArtifactError
from qianmian.workspace import Workspace, atomic_path, write_json

Mask = NDArray[np.bool_]
STATE_ROWS = 1_048_576  # rows that are read at a time; a state has wide columns and few of them


def erase_profiles(workspace: Workspace, customer: ErasedCustomer) -> int:
    """Publish the current profiles without the customer, under a new name, and remove all others that have them.

    The other customers keep their values, ranks and percentiles included; the next build computes them again. A server
    follows ``online/current.json``.
    """
    removed = 0
    try:
        current = current_snapshot_name(workspace)
    except ArtifactError:
        current = None  # it names no folder, so every snapshot with the customer is removed
    for folder in sorted(path.parent for path in workspace.online.glob("*/snapshot.json")):
        gone = _one_ids_in(folder, customer)
        if not gone:
            continue
        if folder.name == current:
            # a new name, because servers have loaded, and may still be reading, the former folder
            name = f"{folder.name.rpartition('-')[0]}-{uuid.uuid4().hex[:8]}"
            with atomic_path(workspace.online / name) as temporary:
                temporary.mkdir()
                _copy_without(folder, temporary, customer, gone)
            write_json(workspace.online / "current.json", {"snapshot": name})
        removed += len(gone)
        shutil.rmtree(folder)
    return removed


def erase_model_tags(workspace: Workspace, customer: ErasedCustomer) -> int:
    """Remove the values of the customer from the tags that models have published."""
    removed, gone = 0, pa.array(customer.one_ids, pa.string())
    for file in sorted((workspace.online / MODEL_TAGS).glob("*.parquet")):
        found = pc.sum(pc.is_in(pq.read_table(file, columns=["one_id"])["one_id"], value_set=gone)).as_py()
        if found:
            with atomic_path(file) as temporary:
                _filter(file, temporary, lambda batch: _other_customers(batch["one_id"], gone))
            removed += int(found)
    return removed


def _one_ids_in(folder: Path, customer: ErasedCustomer) -> list[str]:
    """The customers of a snapshot that are the erased one: by their one_id, or because a user id belongs to them."""
    users, known = set(customer.users), set(customer.one_ids)
    gone: set[str] = set()
    for batch in pq.ParquetFile(folder / "customers.parquet").iter_batches(
        columns=["one_id", "source", "source_user_id"]
    ):
        ids = pc.is_in(batch["source_user_id"], value_set=pa.array({user for _, user in users}, pa.string()))
        found = batch.filter(pc.or_(ids, pc.is_in(batch["one_id"], value_set=pa.array(known, pa.string()))))
        for one_id, source, user_id in zip(*(column.to_pylist() for column in found.columns), strict=True):
            if one_id in known or (source, user_id) in users:
                gone.add(one_id)
    return sorted(gone)


def _copy_without(folder: Path, target: Path, customer: ErasedCustomer, one_ids: list[str]) -> None:
    gone = pa.array(one_ids, pa.string())
    for name in ("profiles", "tags", "customers"):
        file = f"{name}.parquet"
        _filter(folder / file, target / file, lambda batch: _other_customers(batch["one_id"], gone))
    shutil.copyfile(folder / "snapshot.json", target / "snapshot.json")
    if (folder / ONLINE_STATE_FOLDER).exists():
        _copy_state(folder / ONLINE_STATE_FOLDER, target / ONLINE_STATE_FOLDER, customer, gone)


def _copy_state(folder: Path, target: Path, customer: ErasedCustomer, gone: pa.Array) -> None:
    """Copy an online state (`features.compute.online.state`) without the rows of some customers."""
    target.mkdir()
    kept = _other_customers(pq.read_table(folder / "customers.parquet", columns=["one_id"])["one_id"], gone)
    for part in folder.iterdir():
        if part.is_dir():
            (target / part.name).mkdir()
            sizes = np.diff(np.load(part / "offsets.npy", allow_pickle=False))
            offsets = np.concatenate([[0], np.cumsum(sizes[kept])]).astype(np.int64)
            np.save(target / part.name / "offsets.npy", offsets, allow_pickle=False)
            rows = np.repeat(kept, sizes)
            for file in part.glob("*.parquet"):
                _filter(file, target / part.name / file.name, _in_order(rows), STATE_ROWS)
        elif part.name == "customers.parquet":
            _filter(part, target / part.name, _in_order(kept), STATE_ROWS)
        elif part.name.startswith("vocabulary_"):
            _copy_vocabulary(part, target / part.name, customer)
        else:
            shutil.copyfile(part, target / part.name)


def _copy_vocabulary(file: Path, target: Path, customer: ErasedCustomer) -> None:
    """The texts keep their codes; one that names the customer is no longer legible."""
    table, found = pq.read_table(file), pattern(words(customer))
    if found is not None and table.num_rows:
        texts = pc.replace_substring_regex(table["text"], pattern=found, replacement=REPLACEMENT)
        table = table.set_column(0, "text", texts)
    pq.write_table(table, target, compression="zstd")


def _filter(file: Path, target: Path, kept: Callable[[pa.RecordBatch], Mask], rows: int = ROWS_PER_GROUP) -> None:
    """Copy a Parquet file without some rows, a batch at a time; its schema stays as it is."""
    with pq.ParquetFile(file) as source, pq.ParquetWriter(target, source.schema_arrow, compression="zstd") as writer:
        for batch in source.iter_batches(batch_size=rows):
            writer.write_batch(batch.filter(pa.array(kept(batch))))


def _other_customers(one_ids: pa.Array | pa.ChunkedArray, gone: pa.Array) -> Mask:
    return np.asarray(pc.invert(pc.is_in(one_ids, value_set=gone)))


def _in_order(kept: Mask) -> Callable[[pa.RecordBatch], Mask]:
    """The part of a mask over all rows of a file that each of its batches has, one after the other."""
    start = 0

    def part(batch: pa.RecordBatch) -> Mask:
        nonlocal start
        start += batch.num_rows
        return kept[start - batch.num_rows : start]

    return part
