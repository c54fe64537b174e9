"""Taking users out of a saved bundle: as if their rows had never been there, and nothing else changes.

The rows of a user leave every array that the classes of the models declare (`models.user_arrays`), so no request and no
list can meet what is left of them. The parameters that were learnt from all users together stay as they are.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from features.compute.spec import FeatureSpec
from models.bundle import model_hash, verify
from models.kinds import model_class
from models.persist import Arrays, UserArrays, checksum, load_arrays, load_json, save_arrays
from models.recommend import RECOMMENDERS
from models.user_arrays import without_users
from qianmian.errors import ArtifactError
from qianmian.folder_swap import finish_replacement, original, replaced_folder
from qianmian.workspace import explain_os_errors, write_json

ERASURES = "erasures"  # in the facts of the manifest: how many customers were taken out after the training
STATE, SPEC = "state.npz", "spec.json"
Edit: TypeAlias = Callable[[str], str]


def _unchanged(text: str) -> str:
    return text


def erase_users(folder: Path, one_ids: Collection[str], edit: Edit = _unchanged) -> int:
    """Take customers out of the bundle in `folder`; returns how many it named. A second run finds none.

    A customer may also be named by a text, such as a category of a feature that says who referred somebody; the text
    is edited, in the arrays of the models too, so that it stays the same category.

    The bundle is written anew beside the old one, whose other files it shares, and replaces it
    (`qianmian.folder_swap`). A run that was killed is finished by the next one.

    Parameters
    ----------
    folder : Path
    one_ids : collection of str
        The customers; the bundle may know none of them.
    edit : callable
        Returns a text without mentions of these customers.

    Raises
    ------
    ArtifactError
        The bundle is damaged, or of a format that this version does not read.
    """
    with explain_os_errors(folder):
        finish_replacement(folder)
        manifest = verify(folder)
        erased = set(one_ids)
        ids = load_arrays(folder / "ids.npz")
        kept = ~np.isin(ids["user_ids"], list(erased))
        described = {name: _without(manifest[name], erased) for name in ("facts", "config")}
        named = erased & {*ids["user_ids"][~kept].tolist(), *_texts([manifest["facts"], manifest["config"]])}
        edited = {name: _edited(described[name], edit) for name in described}
        texts, arrays = _edited_files(folder, edit)
        if not named and not texts and not arrays and edited == described:
            return 0
        described, count = edited, max(len(named), 1)
        described["facts"][ERASURES] = int(described["facts"].get(ERASURES, 0)) + count
        if SPEC in texts:
            described["spec_hash"] = FeatureSpec.of(texts[SPEC]).hash
        with replaced_folder(folder) as new:
            # the other files are never written to again, so both bundles can share them
            shutil.copytree(folder, new, copy_function=_link)
            if not kept.all():
                save_arrays(new / "ids.npz", {**ids, "user_ids": ids["user_ids"][kept]})
                for state in sorted((new / "model").rglob(STATE)):
                    _rewrite(state, _declared(state.parent, manifest["kind"]), kept)
            for name, value in texts.items():
                write_json(new / name, value)
            for name in arrays:
                save_arrays(new / name, _edited_arrays(load_arrays(new / name), edit))
            files = {name: checksum(new / name) for name in manifest["files"]}
            rewritten = {"files": files, "model_hash": model_hash(manifest["kind"], files)}
            write_json(new / "manifest.json", {**manifest, **described, **rewritten})
    return count


def bundles_in(root: Path) -> list[Path]:
    """The folders of all bundles below a folder, those whose replacement was interrupted included."""
    found = set()
    for path in root.rglob("ids.npz"):
        found.add(original(path) or path.parent)
    return sorted(found)


def _declared(folder: Path, kind: str) -> tuple[UserArrays, ...]:
    """The declaration of the class that the arrays of a model's folder belong to."""
    name = load_json(folder / "params.json").get("name")
    model: Any = model_class(kind) if name is None else RECOMMENDERS.get(name)
    if model is None:
        raise ArtifactError(
            "this version does not know the model",
            where=str(folder),
            got=name,
            hint="delete the version, or train again",
        )
    declared: tuple[UserArrays, ...] = model.user_arrays
    return declared


def _rewrite(state: Path, declared: tuple[UserArrays, ...], kept: NDArray[np.bool_]) -> None:
    save_arrays(state, without_users(declared, load_arrays(state), kept))
    parameters = load_json(state.with_name("params.json"))
    if "n_users" in parameters:
        write_json(state.with_name("params.json"), {**parameters, "n_users": int(kept.sum())})


def _without(value: Any, erased: set[str]) -> Any:
    """A plain value without the entries that are an erased id, or are named by one."""
    if isinstance(value, dict):
        return {
            key: _without(part, erased)
            for key, part in value.items()
            if key not in erased and not (isinstance(part, str) and part in erased)
        }
    if isinstance(value, list):
        return [_without(part, erased) for part in value if not (isinstance(part, str) and part in erased)]
    return value


def _edited_files(folder: Path, edit: Edit) -> tuple[dict[str, Any], list[str]]:
    """The JSON files of a bundle whose texts change, with their new values; and the files of arrays that change."""
    values = {}
    for file in (path for path in folder.rglob("*.json") if path != folder / "manifest.json"):
        value = load_json(file)
        if (edited := _edited(value, edit)) != value:
            values[file.relative_to(folder).as_posix()] = edited
    changed = []
    for file in folder.rglob("*.npz"):
        arrays = load_arrays(file) if file != folder / "ids.npz" else {}
        if any(arrays[name] is not array for name, array in _edited_arrays(arrays, edit).items()):
            changed.append(file.relative_to(folder).as_posix())
    return values, changed


def _edited(value: Any, edit: Edit) -> Any:
    """A plain value whose texts are edited, keys included."""
    if isinstance(value, dict):
        return {edit(key): _edited(part, edit) for key, part in value.items()}
    if isinstance(value, list):
        return [_edited(part, edit) for part in value]
    return edit(value) if isinstance(value, str) else value


def _edited_arrays(arrays: Arrays, edit: Edit) -> Arrays:
    """The arrays, those of texts edited; one that does not change is the same object."""
    found = {}
    for name, array in arrays.items():
        if array.dtype.kind == "U":
            texts = array.ravel().tolist()
            if edit is not _unchanged and (edited := [edit(text) for text in texts]) != texts:
                array = np.array(edited, dtype=np.str_).reshape(array.shape)
        found[name] = array
    return found


def _texts(value: Any) -> set[str]:
    """All texts in a plain value, keys included."""
    if isinstance(value, dict):
        return set(value) | _texts(list(value.values()))
    if isinstance(value, list):
        return set().union(*map(_texts, value))
    return {value} if isinstance(value, str) else set()


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)
