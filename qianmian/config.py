"""Loading the settings from one YAML file. Unknown keys are rejected and all mistakes are reported together."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from qianmian.errors import ConfigError
from qianmian.model_settings import PropensitySettings
from qianmian.packs import merge_pack_defaults
from qianmian.propensity_targets import TARGETS_FILE, read_targets
from qianmian.settings import Settings, problems_of
from qianmian.yaml_files import read_yaml


def load_settings(path: Path) -> Settings:
    """Load the settings of `path`; without that file, the defaults.

    Values of the file override those of the industry pack it names, which override the defaults. The targets of
    `targets.yaml` beside it are added to `propensity.targets`.

    Raises
    ------
    ConfigError
        The file or the pack is invalid; the error lists every mistake.

    Examples
    --------
    >>> load_settings(Path("nowhere.yaml")).churn.horizon_days
    28
    """
    targets = read_targets(path)
    if not path.exists() and not targets:
        return Settings()
    raw: Any = (read_yaml(path) or {}) if path.exists() else {}
    problems: list[str] = []
    if isinstance(raw, dict):
        try:
            raw = merge_pack_defaults(raw, path.parent)
        except ConfigError as error:
            problems = error.problems
    try:
        settings = Settings.model_validate(raw)
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error)], where=str(path)) from error
    if problems:
        raise ConfigError(problems, where=str(path))
    return _with_targets(settings, targets, path.with_name(TARGETS_FILE)) if targets else settings


def _with_targets(settings: Settings, targets: Sequence[str], file: Path) -> Settings:
    """Add the targets of `targets.yaml` to those of the settings."""
    propensity = {**settings.propensity.model_dump(), "targets": [*settings.propensity.targets, *targets]}
    try:
        return settings.model_copy(update={"propensity": PropensitySettings.model_validate(propensity)})
    except ValidationError as error:
        raise ConfigError(problems_of(error), where=str(file)) from error
