"""Tag usage: which segment rules of a workspace refer to a tag."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from qianmian.errors import ConfigError
from qianmian.workspace import Workspace
from qianmian.yaml_files import read_yaml

RULE_FOLDERS = ("segments", "rules")
FILE_SUFFIXES = (".json", ".yaml", ".yml")


def tag_usage(workspace: Workspace) -> dict[str, list[str]]:
    """Map each tag to the files of the workspace whose rules refer to it.

    The files are ``qianmian.yaml`` and every JSON or YAML file under ``segments/`` and ``rules/``. A reference is a
    mapping ``{"tag": NAME, …}``, as in a segment rule, anywhere in a file.

    Raises
    ------
    ConfigError
        A file cannot be read, so its references are unknown.
    """
    files = [workspace.config_file] if workspace.config_file.exists() else []
    for folder in RULE_FOLDERS:
        files += sorted(path for path in (workspace.root / folder).rglob("*") if path.suffix in FILE_SUFFIXES)
    found: dict[str, list[str]] = {}
    for path in files:
        for name in dict.fromkeys(_references(_content(path))):
            found.setdefault(name, []).append(str(path.relative_to(workspace.root)))
    return found


def _content(path: Path) -> Any:
    if path.suffix != ".json":
        return read_yaml(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError([str(error)], where=str(path)) from error


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        name = value.get("tag")
        if isinstance(name, str):
            yield name
        for part in value.values():
            yield from _references(part)
    elif isinstance(value, list):
        for part in value:
            yield from _references(part)
