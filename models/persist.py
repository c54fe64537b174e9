"""Read and write the state of models: npz for arrays, JSON for parameters, no pickle."""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from qianmian.errors import ArtifactError
from qianmian.workspace import atomic_path

Arrays = dict[str, NDArray[Any]]
ALIGNMENT = 64  # bytes
EXTRA, EXTRA_ID = (
    struct.Struct("<HH"),
    0xD935,
)  # an extra field of a zip entry for alignment, as Android's zipalign has it
RETRAIN = "restore the file from a backup, `qianmian models rollback`, or train again"


class UserArrays(Protocol):
    """Saved arrays that have something of every user, so that a user can be taken out (`models.user_arrays`)."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the arrays."""

    def of(self, arrays: Arrays, kept: NDArray[np.bool_]) -> Arrays:
        """Return those arrays for the users `kept`, bool, (n_users,), who close up; the other users are gone.

        An array that the model has not saved is passed over, because some parameters make a model save fewer.
        """


class Savable(Protocol):
    """Protocol of the models that a bundle can hold.

    Attributes
    ----------
    user_arrays : tuple of UserArrays
        The saved arrays that have something of every user.
    """

    user_arrays: ClassVar[tuple[UserArrays, ...]]

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self: ...


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to an npz file in which each begins at a multiple of 64 bytes, so that `load_arrays` can map it.

    The file takes the place of an existing one, which stays readable for those who have mapped it. Object arrays raise
    `TypeError`, so that reading never unpickles. Equal arrays make equal files.
    """
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name} holds Python objects")
    with atomic_path(path) as written, zipfile.ZipFile(written, "w") as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy")
            # the local header of an entry: 30 bytes, its name, the extra fields with 20 bytes for its size
            begin = archive.start_dir + 30 + len(entry.filename.encode()) + EXTRA.size + 20
            entry.extra = EXTRA.pack(EXTRA_ID, -begin % ALIGNMENT).ljust(EXTRA.size + -begin % ALIGNMENT, b"\0")
            with archive.open(entry, "w", force_zip64=True) as handle:
                np.lib.format.write_array(handle, np.asanyarray(array), allow_pickle=False)


def load_arrays(path: Path) -> Arrays:
    """Read an npz file. What `save_arrays` wrote is mapped: all processes of a machine that read it share the memory.

    Changes to a mapped array are not written to the file. The file may be replaced or removed, but not overwritten.

    Raises
    ------
    ArtifactError
        The file is missing or damaged.
    """
    try:
        with path.open("rb") as handle, zipfile.ZipFile(handle) as archive:
            content = mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_COPY)
            entries = archive.infolist()
            mapped = {entry.filename.removesuffix(".npy"): _mapped(content, entry) for entry in entries}
            if all(array is not None for array in mapped.values()):
                return cast(Arrays, mapped)
        with np.load(path, allow_pickle=False) as other:  # of an earlier version, or compressed
            return {name: other[name] for name in other.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError, struct.error) as error:
        raise ArtifactError(
            "the arrays of a model cannot be read", where=str(path), got=str(error), hint=RETRAIN
        ) from error


def _mapped(content: mmap.mmap, entry: zipfile.ZipInfo) -> NDArray[Any] | None:
    """The array of an entry as a view of the file; None if it is compressed or not aligned."""
    if entry.compress_type != zipfile.ZIP_STORED:
        return None
    lengths = struct.unpack_from("<HH", content, entry.header_offset + 26)  # of the name and of the extra fields
    content.seek(entry.header_offset + 30 + sum(lengths))
    if content.tell() % ALIGNMENT:
        return None
    version = np.lib.format.read_magic(content)
    if version != (1, 0):
        return None
    shape, in_columns, dtype = np.lib.format.read_array_header_1_0(content)
    if dtype.hasobject:
        raise ValueError(f"{entry.filename} holds Python objects")
    flat = np.frombuffer(content, dtype, count=math.prod(shape), offset=content.tell())
    return flat.reshape(shape, order="F" if in_columns else "C")


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array that `load_arrays` returned is a view of the file, and no copy."""
    owner: Any = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    return owner is not None


def load_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file.

    Raises
    ------
    ArtifactError
        The file is missing or damaged, or holds no object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ArtifactError(
            "a file of a model cannot be read", where=str(path), got=str(error), hint=RETRAIN
        ) from error
    if not isinstance(value, dict):
        raise ArtifactError("a file of a model does not hold a JSON object", where=str(path), hint=RETRAIN)
    return value


def pack_csr(name: str, matrix: sparse.csr_matrix) -> Arrays:
    """Return a CSR matrix as plain arrays, named with the prefix `name`."""
    return {
        f"{name}_data": matrix.data,
        f"{name}_indices": matrix.indices,
        f"{name}_indptr": matrix.indptr,
        f"{name}_shape": np.asarray(matrix.shape),
    }


def unpack_csr(name: str, arrays: Mapping[str, NDArray[Any]]) -> sparse.csr_matrix:
    """Return the CSR matrix that `pack_csr` stored under `name`."""
    parts = (arrays[f"{name}_data"], arrays[f"{name}_indices"], arrays[f"{name}_indptr"])
    return sparse.csr_matrix(parts, shape=tuple(int(n) for n in arrays[f"{name}_shape"]))


def checksum(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as handle:
        while block := handle.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
