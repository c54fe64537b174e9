"""Erasing a customer from what commands have written for people: files of scores and profiles, exported champions."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

from features.erasure.customer import Erased, ErasedCustomer
from features.erasure.exports import (
    CHAMPIONS,
    UNFINISHED,
    Export,
    blocks_of,
    digest_of,
    read_exports,
    replace_digests,
)
from features.erasure.files import FAILURES, SUFFIXES, erase_rows
from features.erasure.profiles import erase_snapshot
from models.erasing import bundles_in
from qianmian.workspace import Workspace
from training.erased_models import erase_from_bundle


def erase_exports(workspace: Workspace, customer: ErasedCustomer) -> Erased:
    """Take a customer out of every file in the index of written files (`features.erasure.exports`).

    A file or folder of rows loses the customer's rows and otherwise stays as it is; so do the bundles of exported
    champions, in a folder and in BentoML's model store. Blocks of scores whose writing was interrupted are
    removed. A file that was changed, moved or deleted since it was written
    is not touched. It is named in `not_reached`, and so is a built Bento with champions of this workspace, which has a
    copy of its own.
    """
    removed = 0
    not_reached: list[str] = []
    digests: dict[str, str] = {}
    for export in read_exports(workspace):
        path = Path(export.path)
        try:
            for blocks in blocks_of(path):
                shutil.rmtree(blocks)
                removed += 1
            if export.digest == UNFINISHED and not path.exists():
                continue
            if (problem := _problem(export, path)) is not None:
                not_reached.append(f"{path}: {problem}")
                continue
            if export.kind == CHAMPIONS:
                removed += _erase_champions(path, customer)
            else:
                removed += sum(erase_rows(file, customer) for file in _files(path))
                digests[export.path] = digest_of(path)
        except FAILURES as error:
            not_reached.append(
                f"{path}: cannot be read or written ({type(error).__name__}); remove the customer by hand"
            )
        if export.kind == CHAMPIONS:
            not_reached += _bentos(path)
    replace_digests(workspace, digests)
    return Erased(removed, tuple(not_reached))


def _problem(export: Export, path: Path) -> str | None:
    if not path.exists():
        return f"moved or deleted since it was written ({export.written_at}); remove the customer from any copy"
    if export.digest != UNFINISHED and digest_of(path) != export.digest:
        return f"changed since it was written ({export.written_at}); remove the customer by hand, or write it again"
    return None


def _files(path: Path) -> Iterator[Path]:
    if path.is_file():
        yield path
    else:  # of Spark: a folder of parts
        yield from (file for file in sorted(path.rglob("*")) if file.suffix in SUFFIXES)


def _erase_champions(folder: Path, customer: ErasedCustomer) -> int:
    bundles = sum(erase_from_bundle(bundle, customer) for bundle in bundles_in(folder))
    return bundles + erase_snapshot(folder / "snapshot", customer)


def _bentos(model: Path) -> Iterator[str]:
    """The built Bentos with champions of a version in BentoML's model store, ``models/NAME/VERSION`` of its home."""
    tag = f"{model.parent.name}:{model.name}"
    for file in sorted(model.parents[2].glob("bentos/*/*/bento.yaml")) if len(model.parents) > 2 else ():
        described = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
        if tag in [str(entry.get("tag")) for entry in described.get("models") or []]:
            bento = f"{file.parent.parent.name}:{file.parent.name}"
            yield (
                f"Bento {bento} and images made of it: build it again (`qianmian models export`, then `bentoml build`) "
                f"and delete it (`bentoml delete {bento}`)"
            )
