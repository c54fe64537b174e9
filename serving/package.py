"""Champions in a Bento: storing them in BentoML's model store, and finding them inside a Bento."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import yaml

from qianmian.errors import ArtifactError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import export
from serving.export_index import INDEX_FILE

BENTO_MODEL_NAME = "qianmian-champions"


def store_champions(workspace: Workspace, settings: Settings) -> str:
    """Copy champions and profiles into BentoML's model store (``BENTOML_HOME``); `bentoml build` uses the latest.

    Returns
    -------
    str
        Tag of the stored model, ``qianmian-champions:<version>``.
    """
    import bentoml

    with tempfile.TemporaryDirectory(prefix="qianmian-champions-") as temporary:
        folder = export(workspace, settings, Path(temporary) / "champions")
        with bentoml.models.create(BENTO_MODEL_NAME) as model:
            shutil.copytree(folder, model.path, dirs_exist_ok=True)
    return str(model.tag)


def stored_folder(tag: str) -> Path:
    """The folder of champions in BentoML's model store."""
    import bentoml

    return Path(bentoml.models.get(tag).path)


def bento_champions(bento_file: Path) -> Path:
    """Return the folder of champions in a Bento.

    Parameters
    ----------
    bento_file : Path
        The `bento.yaml` of the Bento that this code runs in.

    Raises
    ------
    ArtifactError
        If the Bento contains no champions.
    """
    import bentoml
    from bentoml.exceptions import BentoMLException

    manifest = yaml.safe_load(bento_file.read_text(encoding="utf-8"))
    tags: list[str] = [
        entry["tag"] for entry in manifest.get("models") or [] if str(entry["tag"]).split(":")[0] == BENTO_MODEL_NAME
    ]
    # a container or an exported Bento contains the model itself
    included: list[Path] = [bento_file.parent / "models" / tag.replace(":", "/") for tag in tags]
    for folder in included:
        if (folder / INDEX_FILE).exists():
            return folder
    try:
        return Path(bentoml.models.get(tags[0]).path)
    except (BentoMLException, IndexError) as error:
        raise ArtifactError(
            "the Bento contains no champions",
            where=str(bento_file),
            got=str(error).splitlines()[0],
            hint="build it again: `qianmian models export`, then `bentoml build`",
        ) from error
