"""The verdicts of `qianmian tags validate` in a workspace: ``online/tag_checks.json``, one entry per tag.

An entry belongs to the declaration of the tag at the time of the check. When the declaration, its settings, the
industry pack or the version of this package changes, the verdict is no longer shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from features.profiles.tags.declare import Tag
from qianmian import __version__
from qianmian.errors import ArtifactError
from qianmian.packs import pack_digest
from qianmian.settings import Settings
from qianmian.workspace import Workspace, write_json

FILE = "tag_checks.json"
FORMAT = 1


def checks_path(workspace: Workspace) -> Path:
    """Path of the stored verdicts."""
    return workspace.online / FILE


def declaration_digest(tag: Tag, settings: Settings) -> str:
    """Digest of what the values of a tag and their claim depend on besides the data."""
    declared = [tag.name, tag.category, tag.description, tag.how, tag.inputs, tag.values, repr(tag.claim)]
    contents = [__version__, declared, settings.lifecycle.model_dump(), pack_digest(settings.pack)]
    return hashlib.sha256(json.dumps(contents, sort_keys=True).encode()).hexdigest()[:16]


def write_checks(
    workspace: Workspace,
    tags: Sequence[Tag],
    settings: Settings,
    entries: Mapping[str, Mapping[str, Any]],
    now: datetime,
) -> Path:
    """Store verdicts; those of tags that are not in `entries` are kept.

    Parameters
    ----------
    tags : sequence of Tag
        All declared tags.
    entries : mapping of str to mapping
        Tag → JSON-compatible data with ``verdict``.
    now : datetime
        Current time, naive UTC.
    """
    try:
        kept = _read(workspace)
    except ArtifactError:
        kept = {}  # a file that cannot be read is replaced
    by_name = {tag.name: tag for tag in tags}
    for name, entry in entries.items():
        digest = declaration_digest(by_name[name], settings)
        kept[name] = {**entry, "declaration": digest, "checked_at": now.isoformat(timespec="seconds")}
    path = checks_path(workspace)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"format": FORMAT, "tags": {name: kept[name] for name in kept if name in by_name}})
    return path


def read_verdicts(workspace: Workspace, tags: Sequence[Tag], settings: Settings) -> dict[str, str]:
    """Tag → verdict, for the tags whose declaration has not changed since the check; empty without a check.

    Raises
    ------
    ArtifactError
        The file cannot be read.
    """
    entries = _read(workspace)
    return {
        tag.name: entries[tag.name]["verdict"]
        for tag in tags
        if tag.name in entries and entries[tag.name]["declaration"] == declaration_digest(tag, settings)
    }


def _read(workspace: Workspace) -> dict[str, dict[str, Any]]:
    path = checks_path(workspace)
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']}")
        entries = {
            name: {**entry, "verdict": str(entry["verdict"]), "declaration": str(entry["declaration"])}
            for name, entry in content["tags"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            "the verdicts on the tags cannot be read",
            where=str(path),
            got=f"{type(error).__name__}: {error}",
            hint="run `qianmian tags validate` again, or remove the file",
        ) from error
    return entries
