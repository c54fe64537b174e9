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

from features.data.locking import champions_lock
from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.matching import CODES, Mention, mention_of
from features.profiles.snapshot import ONLINE_STATE_FOLDER, ROWS_PER_GROUP, UNFINISHED, current_snapshot_name
from features.profiles.tags.published import FOLDER as MODEL_TAGS
from qianmian.errors import ArtifactError
from qianmian.folder_swap import finish_replacement, replaced_folder
from qianmian.workspace import Workspace, atomic_path, write_json

Mask = NDArray[np.bool_]
STATE_ROWS = 1_048_576  # rows that are read at a time; a state has wide columns and few of them


def erase_profiles(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Publish the current profiles without the customer, under a new name, and remove all others that have them.

    The other customers keep their values, ranks and percentiles included; the next build computes them again. A text of
    theirs that mentions the customer is edited. A server follows ``online/current.json``.
    """
    removed, found = 0, mention_of(customer)
    try:
        current = current_snapshot_name(workspace)
    except ArtifactError:
        current = None  # it names no folder, so every snapshot with the customer is removed
    folders = sorted(path.parent for path in workspace.online.glob("*/snapshot.json"))
    for folder in (path for path in folders if path.suffix != UNFINISHED):
        erased_ids = _one_ids_in(folder, customer)
        if not erased_ids and not _is_mentioned(folder, found):
            continue
        if folder.name == current:
            # a new name, because servers have loaded, and may still be reading, the former folder
            name = f"{folder.name.rpartition('-')[0]}-{uuid.uuid4().hex[:8]}"
            with atomic_path(workspace.online / name) as temporary:
                _copy(folder, temporary, pa.array(erased_ids, pa.string()), found)
            write_json(workspace.online / "current.json", {"snapshot": name})
        removed += max(len(erased_ids), 1)
        shutil.rmtree(folder)
    return Erased(removed)


def erase_snapshot(folder: Path, customer: ErasedCustomer) -> int:
    """Rewrite an exported snapshot without the customer, at its place; returns how many customers it had of them."""
    finish_replacement(folder)
    if not folder.exists():
        return 0
    erased_ids, found = _one_ids_in(folder, customer), mention_of(customer)
    if not erased_ids and not _is_mentioned(folder, found):
        return 0
    with replaced_folder(folder) as new:
        _copy(folder, new, pa.array(erased_ids, pa.string()), found)
    return max(len(erased_ids), 1)


def erase_model_tags(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Remove the values of the customer from the tags that models have published, and from those kept of versions."""
    removed, erased_ids = 0, pa.array(customer.one_ids, pa.string())
    with champions_lock(workspace):  # a promotion would copy what is not yet erased to where it was erased
        for file in sorted((workspace.online / MODEL_TAGS).rglob("*.parquet")):
            found = pc.sum(pc.is_in(pq.read_table(file, columns=["one_id"])["one_id"], value_set=erased_ids)).as_py()
            if found:
                with atomic_path(file) as temporary:
                    _filter(file, temporary, lambda batch: _other_customers(batch["one_id"], erased_ids), None)
                removed += int(found)
    return Erased(removed)


def _one_ids_in(folder: Path, customer: ErasedCustomer) -> list[str]:
    """The customers of a snapshot that are the erased one: by their one_id, or because a user id belongs to them."""
    users, known = set(customer.users), set(customer.one_ids)
    erased_ids: set[str] = set()
    for batch in pq.ParquetFile(folder / "customers.parquet").iter_batches(
        columns=["one_id", "source", "source_user_id"]
    ):
        ids = pc.is_in(batch["source_user_id"], value_set=pa.array({user for _, user in users}, pa.string()))
        found = batch.filter(pc.or_(ids, pc.is_in(batch["one_id"], value_set=pa.array(known, pa.string()))))
        for one_id, source, user_id in zip(*(column.to_pylist() for column in found.columns), strict=True):
            if one_id in known or (source, user_id) in users:
                erased_ids.add(one_id)
    return sorted(erased_ids)


def _is_mentioned(folder: Path, found: Mention | None) -> bool:
    """Whether a text of a snapshot mentions the customer: a category of a feature is in its description too."""
    if found is None:
        return False
    texts = (file.read_text(encoding="utf-8") for file in folder.rglob("*.json"))
    if any(found.edited(text) != text for text in texts):
        return True
    return any(
        pc.any(found.in_arrow(texts)).as_py()
        for file in folder.rglob("*.parquet")
        for batch in pq.ParquetFile(file).iter_batches(columns=_text_columns(pq.read_schema(file)))
        for texts in batch.columns
    )


def _copy(folder: Path, target: Path, erased_ids: pa.Array, found: Mention | None) -> None:
    """Copy a snapshot without some customers and mentions of them."""
    target.mkdir()
    state = folder / ONLINE_STATE_FOLDER
    for part in (path for path in folder.iterdir() if path != state):
        if part.suffix == ".parquet":
            _filter(part, target / part.name, lambda batch: _other_customers(batch["one_id"], erased_ids), found)
        else:
            _copy_text(part, target / part.name, found)
    if state.exists():
        _copy_state(state, target / ONLINE_STATE_FOLDER, erased_ids, found)


def _copy_state(folder: Path, target: Path, erased_ids: pa.Array, found: Mention | None) -> None:
    """The same of an online state (`features.compute.online.state`)."""
    target.mkdir()
    kept = _other_customers(pq.read_table(folder / "customers.parquet", columns=["one_id"])["one_id"], erased_ids)
    for part in folder.iterdir():
        if part.is_dir():
            (target / part.name).mkdir()
            sizes = np.diff(np.load(part / "offsets.npy", allow_pickle=False))
            offsets = np.concatenate([[0], np.cumsum(sizes[kept])]).astype(np.int64)
            np.save(target / part.name / "offsets.npy", offsets, allow_pickle=False)
            rows = np.repeat(kept, sizes)
            for file in part.glob("*.parquet"):
                _filter(file, target / part.name / file.name, _in_order(rows), found, STATE_ROWS)
        elif part.suffix == ".parquet":
            # all texts of a vocabulary stay, so that they keep their codes
            mask = _in_order(kept) if part.name == "customers.parquet" else _everything
            _filter(part, target / part.name, mask, found, STATE_ROWS)
        else:
            _copy_text(part, target / part.name, found)


def _copy_text(file: Path, target: Path, found: Mention | None) -> None:
    text = file.read_text(encoding="utf-8")
    target.write_text(found.edited(text) if found is not None else text, encoding="utf-8")


def _filter(
    file: Path, target: Path, kept: Callable[[pa.RecordBatch], Mask], found: Mention | None, rows: int = ROWS_PER_GROUP
) -> None:
    """Copy a Parquet file without some rows and without mentions, a batch at a time; its schema stays as it is."""
    with pq.ParquetFile(file) as source, pq.ParquetWriter(target, source.schema_arrow, compression="zstd") as writer:
        texts = _text_columns(source.schema_arrow)
        for batch in source.iter_batches(batch_size=rows):
            left = batch.filter(pa.array(kept(batch)))
            if found is not None:
                for name in texts:
                    place, edited = left.schema.get_field_index(name), found.edited_in_arrow(left[name])
                    left = left.set_column(place, left.schema.field(name), edited)
            writer.write_batch(left)


def _text_columns(schema: pa.Schema) -> list[str]:
    columns = zip(schema.names, schema.types, strict=True)
    return [name for name, kind in columns if pa.types.is_string(kind) and name not in CODES]


def _everything(batch: pa.RecordBatch) -> Mask:
    return np.ones(batch.num_rows, dtype=np.bool_)


def _other_customers(one_ids: pa.Array | pa.ChunkedArray, erased_ids: pa.Array) -> Mask:
    return np.asarray(pc.invert(pc.is_in(one_ids, value_set=erased_ids)))


def _in_order(kept: Mask) -> Callable[[pa.RecordBatch], Mask]:
    """The part of a mask over all rows of a file that each of its batches has, one after the other."""
    start = 0

    def part(batch: pa.RecordBatch) -> Mask:
        nonlocal start
        start += batch.num_rows
        return kept[start - batch.num_rows : start]

    return part
