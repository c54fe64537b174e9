"""The index of an export: which models and profiles it has, and the settings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qianmian.errors import ArtifactError
from qianmian.settings import Settings

INDEX_FILE = "index.json"
FORMAT = 1


def read_index(folder: Path) -> dict[str, Any]:
    """Read the index of an export.

    Raises
    ------
    ArtifactError
        If the folder contains no export, or one of another format.
    """
    path = folder / INDEX_FILE
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        if index["format"] != FORMAT:
            raise ArtifactError(
                "the export has an unsupported format",
                where=str(path),
                got=index["format"],
                allowed=FORMAT,
                hint="export again",
            )
        return {**index, "settings": Settings.model_validate(index["settings"])}
    except (OSError, ValueError, KeyError, TypeError, ValidationError) as error:
        raise ArtifactError(
            "the export cannot be read", where=str(path), got=str(error).splitlines()[0], hint="export again"
        ) from error
