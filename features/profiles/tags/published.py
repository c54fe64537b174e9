"""Model tags: one Parquet file per tag under ``online/model_tags/``, written by training and read by profile builds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.profiles.tags.declare import TagValue, clean_value
from qianmian.errors import ArtifactError, DataError
from qianmian.workspace import Workspace, atomic_path

FOLDER = "model_tags"
COLUMNS = ("one_id", "value", "as_of", "model_name", "model_version")


@dataclass(frozen=True)
class PublishedTag:
    """The values that one model version computed for one tag.

    Attributes
    ----------
    values : dict of str to TagValue
        one_id → value, for the scored customers.
    as_of : datetime
        Cutoff of the scored data, naive UTC.
    model_name, model_version : str
        Registered model and its version.
    """

    values: dict[str, TagValue]
    as_of: datetime
    model_name: str
    model_version: str


def tag_path(workspace: Workspace, name: str) -> Path:
    """Path of the published values of a tag."""
    return workspace.online / FOLDER / f"{name}.parquet"


def publish(
    workspace: Workspace,
    name: str,
    one_ids: Sequence[str],
    values: Sequence[TagValue],
    *,
    as_of: datetime,
    model_name: str,
    model_version: str,
) -> Path:
    """Replace all values of a model tag; later profile builds include them.

    Parameters
    ----------
    workspace : Workspace
        Workspace in which the values are stored.
    name : str
        Name of the tag.
    one_ids, values : sequence
        Distinct customer ids and their values, of equal length.
    as_of : datetime
        Cutoff of the scored data, naive UTC.
    model_name, model_version : str
        Registered model and its version.

    Returns
    -------
    Path
        File with the published values.

    Raises
    ------
    DataError
        The numbers of ids and values differ, or an id occurs twice.
    """
    if len(one_ids) != len(values) or len(set(one_ids)) != len(one_ids):
        raise DataError(
            "a tag requires exactly one value per customer",
            where=name,
            got=f"{len(one_ids)} ids ({len(set(one_ids))} distinct), {len(values)} values",
        )
    size = len(values)
    table = pa.table(
        {
            "one_id": pa.array(list(one_ids), pa.string()),
            "value": pa.array([clean_value(value) for value in values]),
            "as_of": pa.array([as_of] * size, pa.timestamp("us")),
            "model_name": pa.array([model_name] * size, pa.string()),
            "model_version": pa.array([str(model_version)] * size, pa.string()),
        }
    )
    target = tag_path(workspace, name)
    with atomic_path(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return target


def read(workspace: Workspace, name: str) -> PublishedTag | None:
    """The published values of a tag; None if no model has published any.

    Raises
    ------
    ArtifactError
        The file cannot be read, or contains values of more than one model version.
    """
    path = tag_path(workspace, name)
    if not path.exists():
        return None
    try:
        table = pq.read_table(path).select(COLUMNS)
    except (OSError, KeyError, pa.ArrowException) as error:
        raise _broken(path, str(error).splitlines()[0]) from error
    if not table.num_rows:
        return None
    about = table.select(COLUMNS[2:]).group_by(COLUMNS[2:]).aggregate([]).to_pylist()
    if len(about) > 1:
        raise _broken(path, f"{len(about)} model versions in one file")
    values = dict(zip(table["one_id"].to_pylist(), table["value"].to_pylist(), strict=True))
    return PublishedTag(values, about[0]["as_of"], about[0]["model_name"], about[0]["model_version"])


def published_digests(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Digests of the published files of these tags; they change when a tag is published with other values."""
    paths = [(name, tag_path(workspace, name)) for name in names]
    return [f"{name}:{hashlib.sha256(path.read_bytes()).hexdigest()[:16]}" for name, path in paths if path.exists()]


def _broken(path: Path, got: str) -> ArtifactError:
    return ArtifactError(
        "the published values of a tag cannot be read",
        where=str(path),
        got=got,
        hint="train the model that publishes it again, or remove the file",
    )
