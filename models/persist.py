"""Read and write the state of models: npz for arrays, JSON for parameters, no pickle."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from qianmian.errors import ArtifactError

Arrays = dict[str, NDArray[Any]]
RETRAIN = "restore the file from a backup, `qianmian models rollback`, or train again"


class Savable(Protocol):
    """Protocol of the models that a bundle can hold."""

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Self: ...


def save_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write arrays to an npz file; object arrays raise `TypeError`, so that reading never unpickles."""
    for name, array in arrays.items():
        if np.asarray(array).dtype.hasobject:
            raise TypeError(f"{name} holds Python objects")
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> Arrays:
    """Read an npz file written by `save_arrays`.

    Raises
    ------
    ArtifactError
        The file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, zipfile.BadZipFile, KeyError, EOFError) as error:
        raise ArtifactError(
            "the arrays of a model cannot be read", where=str(path), got=str(error), hint=RETRAIN
        ) from error


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
