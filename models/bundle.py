"""`ModelBundle`: everything that a registered model needs for inference, as a folder of files with checksums."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from features.id_map import CustomerMap, IdMap
from models.day_histograms import DayHistograms
from models.kinds import MODELS, model_class
from models.persist import RETRAIN, Savable, checksum, load_arrays, load_json, save_arrays
from qianmian.errors import ArtifactError
from qianmian.workspace import write_json

FORMAT_VERSION = 2
EVALUATED = "evaluated"  # folder of the evaluated twin
REFERENCE_FILE = "reference.npz"  # not in bundles of earlier versions, and of models that no monitor knows
MANIFEST_KEYS = ("kind", "as_of", "config", "facts", "item_attributes", "spec_hash", "libraries", "files")
STATE_FOLDER, STATE_FILES = "model/", ("ids.npz", "items.npz", "spec.json")  # of a bundle: what was fitted
LIBRARIES = (
    "numpy",
    "scipy",
    "scikit-learn",
    "xgboost-cpu",
    "xgboost",
    "implicit",
    "rectools-lightfm",
    "pandas",
    "duckdb",
    "ibis-framework",
    "mlflow",
    "bentoml",
)


@dataclass(frozen=True)
class ModelBundle:
    """A fitted model and the metadata that its indices and feature columns refer to.

    Attributes
    ----------
    kind : str
        Key in `models.kinds.MODELS` of the class that loads the model.
    model : Savable
        The fitted model.
    as_of : datetime
        Naive UTC. Only data before this time were used for fitting.
    spec : FeatureSpec or None
        The feature columns that the model expects.
    user_ids, item_ids : ndarray of str
        Ids of the user and item indices; empty if the model has no such axis.
    item_attributes : dict of str to ndarray, each (n_items,)
        As in `TrainingSet`.
    config : dict
        Settings and parameters of the fit.
    facts : dict
        Data digest, seed, horizon and other descriptions of the fit, written into the manifest.
    evaluated : Savable or None
        The evaluated twin: the model of the same kind whose evaluation stands for that of `model`, fitted without the
        test period. A later model is compared with it where `model` has learnt from the days of the comparison
        (`load_evaluated`). It may hold nothing of single users. `load` leaves it in its file.
    reference : DayHistograms or None
        What a monitor compares later customers with (`training.monitoring`).
    """

    kind: str
    model: Any
    as_of: datetime
    spec: FeatureSpec | None = None
    user_ids: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))
    item_ids: NDArray[np.str_] = field(default_factory=lambda: np.empty(0, dtype=np.str_))
    item_attributes: dict[str, NDArray[Any]] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)
    evaluated: Savable | None = None
    reference: DayHistograms | None = None

    @cached_property
    def user_map(self) -> IdMap:
        """one_id → row of the model."""
        return CustomerMap(self.user_ids)

    @cached_property
    def item_map(self) -> IdMap:
        """item_id → column of the model."""
        return IdMap(self.item_ids)

    @property
    def model_hash(self) -> str:
        """Hash of the fitted state: equal models have equal hashes, whenever they were fitted and however evaluated.

        Boosters, arrays, parameters, ids and feature columns count; facts and library versions do not.
        """
        return self._hash_and_size[0]

    @property
    def state_bytes(self) -> int:
        """Size of the fitted state on the disk: what a server loads."""
        return self._hash_and_size[1]

    @cached_property
    def _hash_and_size(self) -> tuple[str, int]:
        """Hash and bytes of the fitted state, written to a temporary folder, because the files are what is compared."""
        with tempfile.TemporaryDirectory(prefix="qianmian-hash-") as scratch:
            folder = Path(scratch)
            self._save_state(folder)
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            return model_hash(self.kind, _checksums(folder)), size

    def save(self, folder: Path) -> None:
        """Write the bundle; `manifest.json` is written last and lists the checksum of every other file.

        Raises
        ------
        ValueError
            The evaluated twin declares arrays with users, whose axis an erasure would not know.
        """
        self._save_state(folder)
        if self.evaluated is not None:
            if self.evaluated.user_arrays:
                raise ValueError(f"the evaluated twin of {self.kind} holds arrays with users")
            self.evaluated.save(folder / EVALUATED)
        if self.reference is not None:
            self.reference.save(folder / REFERENCE_FILE)
        files = _checksums(folder)
        write_json(
            folder / "manifest.json",
            {
                "format": FORMAT_VERSION,
                "kind": self.kind,
                "as_of": self.as_of.isoformat(),
                "config": self.config,
                "facts": self.facts,
                "item_attributes": list(self.item_attributes),
                "spec_hash": self.spec.hash if self.spec is not None else None,
                "evaluated": self.evaluated is not None,
                "model_hash": model_hash(self.kind, files),
                "libraries": library_versions(),
                "files": files,
            },
        )

    def _save_state(self, folder: Path) -> None:
        """Write all files but the manifest."""
        folder.mkdir(parents=True, exist_ok=True)
        self.model.save(folder / "model")
        save_arrays(folder / "ids.npz", {"user_ids": self.user_ids, "item_ids": self.item_ids})
        # catalogue columns may have any name, so the archive numbers them and the manifest lists their names
        columns = {f"column_{i}": values for i, values in enumerate(self.item_attributes.values())}
        save_arrays(folder / "items.npz", columns)
        if self.spec is not None:
            write_json(folder / "spec.json", self.spec.as_dict())

    @classmethod
    def load(cls, folder: Path) -> ModelBundle:
        """Verify all checksums, then load the bundle.

        Raises
        ------
        ArtifactError
            A file is missing, was changed or has another format. The checks run before any file is loaded.
        """
        manifest = verify(folder)
        if manifest["kind"] not in MODELS:
            raise ArtifactError(
                "this version does not know the kind of the model",
                where=str(folder),
                got=manifest["kind"],
                allowed=", ".join(MODELS),
                hint="train again with this version",
            )
        arrays = load_arrays(folder / "ids.npz")
        spec = FeatureSpec.of(load_json(folder / "spec.json")) if manifest["spec_hash"] else None
        if spec is not None and spec.hash != manifest["spec_hash"]:
            raise ArtifactError(
                "the feature spec differs from the one that the model was trained on",
                where=str(folder / "spec.json"),
                hint=RETRAIN,
            )
        columns = load_arrays(folder / "items.npz")
        attributes = {name: columns[f"column_{i}"] for i, name in enumerate(manifest["item_attributes"])}
        return cls(
            manifest["kind"],
            model_class(manifest["kind"]).load(folder / "model"),
            datetime.fromisoformat(manifest["as_of"]),
            spec,
            arrays["user_ids"],
            arrays["item_ids"],
            attributes,
            manifest["config"],
            manifest["facts"],
            reference=DayHistograms.load(folder / REFERENCE_FILE) if REFERENCE_FILE in manifest["files"] else None,
        )


def load_evaluated(folder: Path) -> Savable | None:
    """Load the evaluated twin of a bundle; None if it has none, as those of earlier versions.

    Raises
    ------
    ArtifactError
        As `ModelBundle.load`.
    """
    manifest = verify(folder)
    return model_class(manifest["kind"]).load(folder / EVALUATED) if manifest.get("evaluated") else None


def verify(folder: Path) -> dict[str, Any]:
    """Check the manifest and the checksums of a bundle, and return the manifest.

    Raises
    ------
    ArtifactError
        The manifest is incomplete or has another format, or a file is missing, was changed or is not listed.
    """
    manifest = load_json(folder / "manifest.json")
    if manifest.get("format") != FORMAT_VERSION:
        raise ArtifactError(
            "the model has another format",
            where=str(folder),
            got=manifest.get("format"),
            allowed=FORMAT_VERSION,
            hint="train again with this version",
        )
    if missing := [key for key in MANIFEST_KEYS if key not in manifest]:
        raise ArtifactError(
            "the manifest of the model is incomplete",
            where=str(folder),
            got=f"missing: {', '.join(missing)}",
            hint=RETRAIN,
        )
    try:
        datetime.fromisoformat(manifest["as_of"])
    except (TypeError, ValueError) as error:
        raise ArtifactError(
            "the as_of of the model is not a valid time", where=str(folder), got=manifest["as_of"], hint=RETRAIN
        ) from error
    files: Mapping[str, str] = manifest["files"]
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    state = {name for name in present if name.endswith((".npz", ".json"))}
    if unlisted := sorted(state - set(files) - {"manifest.json"}):
        raise ArtifactError(
            "the model contains a file that its manifest does not list",
            where=str(folder),
            got=unlisted[0],
            hint=RETRAIN,
        )
    for name, expected in files.items():
        path = folder / name
        if name not in present:  # a name that leads out of the folder is none of its files
            raise ArtifactError("a file of a model is missing", where=str(path), hint=RETRAIN)
        if checksum(path) != expected:
            raise ArtifactError(
                "a file of a model was changed after it was written (its checksum differs)",
                where=str(path),
                hint=RETRAIN,
            )
    return manifest


def model_hash(kind: str, files: Mapping[str, str]) -> str:
    """Return the hash of a fitted state.

    Parameters
    ----------
    kind : str
    files : mapping of str to str
        Checksum of each file of the bundle; files that are no part of the fitted state are passed over.
    """
    return hashlib.sha256(json.dumps([kind, state_files(files)], sort_keys=True).encode()).hexdigest()[:16]


def state_files(files: Mapping[str, str]) -> dict[str, str]:
    """Return the files of a bundle that are its fitted state, with their checksums."""
    return {name: files[name] for name in files if name in STATE_FILES or name.startswith(STATE_FOLDER)}


def _checksums(folder: Path) -> dict[str, str]:
    """Checksum of every file in a folder by its path in it."""
    return {path.relative_to(folder).as_posix(): checksum(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def library_versions() -> dict[str, str]:
    """Return the installed versions of the libraries that models depend on."""
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
