"""Putting the champions into a Bento: BentoML's model store on one side, the folder inside a Bento on the other."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import yaml

from qianmian.errors import ArtifactError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import INDEX_FILE, export

BENTO_MODEL_NAME = "qianmian-champions"


def store_champions(workspace: Workspace, settings: Settings) -> str:
    """Copy champions and profiles into BentoML's model store (``BENTOML_HOME``); `bentoml build` takes the latest.

    Returns
    -------
    str
        The tag, ``qianmian-champions:<version>``.
    """
    import bentoml

    with tempfile.TemporaryDirectory(prefix="qianmian-champions-") as temporary:
        folder = export(workspace, settings, Path(temporary) / "champions")
        with bentoml.models.create(BENTO_MODEL_NAME) as model:
            shutil.copytree(folder, model.path, dirs_exist_ok=True)
    return str(model.tag)


def bento_champions(bento_file: Path) -> Path:
    """The folder of champions a Bento carries.

    Parameters
    ----------
    bento_file : Path
        The `bento.yaml` of the Bento this code runs in.

    Raises
    ------
    ArtifactError
        It carries none.
    """
    import bentoml
    from bentoml.exceptions import BentoMLException

    manifest = yaml.safe_load(bento_file.read_text(encoding="utf-8"))
    tags: list[str] = [
        entry["tag"] for entry in manifest.get("models") or [] if str(entry["tag"]).split(":")[0] == BENTO_MODEL_NAME
    ]
    carried: list[Path] = [
        bento_file.parent / "models" / tag.replace(":", "/") for tag in tags
    ]  # a container or an exported Bento has its own store
    for folder in carried:
        if (folder / INDEX_FILE).exists():
            return folder
    try:
        return Path(bentoml.models.get(tags[0]).path)
    except (BentoMLException, IndexError) as error:
        raise ArtifactError(
            "the Bento carries no champions",
            where=str(bento_file),
            got=str(error).splitlines()[0],
            hint="build it again: `qianmian models export`, then `bentoml build`",
        ) from error
