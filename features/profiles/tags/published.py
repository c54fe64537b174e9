"""Model tags: one Parquet file per tag under ``online/model_tags/``, written by training and read by profile builds.

Below it, ``versions/`` keeps the tags of the versions that may become the champion, so that a promotion or a rollback
publishes those of its version (`keep_version`, `publish_version`).
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from features.profiles.tags.declare import TagValue, clean_value
from qianmian.errors import ArtifactError, DataError
from qianmian.workspace import Workspace, atomic_path

FOLDER, VERSIONS = "model_tags", "versions"
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
    table = _table(name, one_ids, values, as_of, model_name, model_version)
    target = tag_path(workspace, name)
    with atomic_path(target) as temporary:
        pq.write_table(table, temporary, compression="zstd")
    return target


def keep_version(
    workspace: Workspace,
    tags: Mapping[str, tuple[Sequence[str], Sequence[TagValue]]],
    *,
    as_of: datetime,
    model_name: str,
    model_version: str,
) -> None:
    """Keep the tags of a version, all or none, for the moment when it becomes the champion.

    Those of a version of the same number are replaced: a registry that was begun anew counts from 1 again.

    Parameters
    ----------
    workspace : Workspace
    tags : mapping of str to (sequence, sequence)
        Tag → one_ids and their values; empty for a model without tags.
    as_of : datetime
        Cutoff of the scored data, naive UTC.
    model_name, model_version : str
        Registered model and its version.

    Raises
    ------
    DataError
        As in `publish`.
    """
    target = _version_folder(workspace, model_name, model_version)
    with atomic_path(target) as folder:
        folder.mkdir()
        for name, (one_ids, values) in tags.items():
            table = _table(name, one_ids, values, as_of, model_name, model_version)
            pq.write_table(table, folder / f"{name}.parquet", compression="zstd")
        if target.exists():
            shutil.rmtree(target)


def keep_published(workspace: Workspace, model_name: str, model_version: str) -> None:
    """Keep the published tags of a version, unless they are kept already."""
    folder = _version_folder(workspace, model_name, model_version)
    files = [] if folder.exists() else published_files(workspace, model_name, model_version)
    if files:
        with atomic_path(folder) as temporary:
            temporary.mkdir()
            for file in files:
                shutil.copyfile(file, temporary / file.name)


def publish_version(workspace: Workspace, model_name: str, model_version: str) -> bool:
    """Publish the kept tags of a version, and remove those of other versions of the model; it can be repeated.

    Returns
    -------
    bool
        False if no tags of the version are kept; nothing changes then.
    """
    folder = _version_folder(workspace, model_name, model_version)
    if not folder.is_dir():
        return False
    for file in sorted(folder.glob("*.parquet")):
        with atomic_path(tag_path(workspace, file.stem)) as temporary:
            shutil.copyfile(file, temporary)
    for file in published_files(workspace, model_name):
        if not (folder / file.name).exists():
            file.unlink()
    return True


def published_files(workspace: Workspace, model_name: str, model_version: str | None = None) -> list[Path]:
    """The published tags that a version of a model computed; by default any version.

    Raises
    ------
    ArtifactError
        A file cannot be read.
    """
    found = []
    for file in sorted((workspace.online / FOLDER).glob("*.parquet")):
        try:
            first = next(pq.ParquetFile(file).iter_batches(1, columns=["model_name", "model_version"]), None)
        except (OSError, pa.ArrowException) as error:
            raise _broken(file, str(error).splitlines()[0]) from error
        if first is None or not first.num_rows:
            continue
        name, version = (column[0].as_py() for column in first.columns)
        if name == model_name and model_version in (None, version):
            found.append(file)
    return found


def forget_versions(workspace: Workspace, model_name: str, kept: Collection[str]) -> None:
    """Remove the kept tags of all versions of a model but some."""
    names = {_version_folder(workspace, model_name, version).name for version in kept}
    for folder in (workspace.online / FOLDER / VERSIONS).glob(f"{model_name}@*"):
        if folder.name not in names:
            shutil.rmtree(folder, ignore_errors=True)


def _version_folder(workspace: Workspace, model_name: str, model_version: str) -> Path:
    return workspace.online / FOLDER / VERSIONS / f"{model_name}@{model_version}"


def _table(
    name: str,
    one_ids: Sequence[str],
    values: Sequence[TagValue],
    as_of: datetime,
    model_name: str,
    model_version: str,
) -> pa.Table:
    if len(one_ids) != len(values) or len(set(one_ids)) != len(one_ids):
        raise DataError(
            "a tag requires exactly one value per customer",
            where=name,
            got=f"{len(one_ids)} ids ({len(set(one_ids))} distinct), {len(values)} values",
        )
    size = len(values)
    return pa.table(
        {
            "one_id": pa.array(list(one_ids), pa.string()),
            "value": pa.array([clean_value(value) for value in values]),
            "as_of": pa.array([as_of] * size, pa.timestamp("us")),
            "model_name": pa.array([model_name] * size, pa.string()),
            "model_version": pa.array([str(model_version)] * size, pa.string()),
        }
    )


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
