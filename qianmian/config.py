"""Loading the settings from one YAML file. Unknown keys are rejected and all mistakes are reported together."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from qianmian.errors import ConfigError
from qianmian.packs import merge_pack_defaults
from qianmian.settings import Settings, problems_of
from qianmian.yaml_files import read_yaml


def load_settings(path: Path) -> Settings:
    """Load the settings of `path`; without that file, the defaults.

    Values of the file override those of the industry pack it names, which override the defaults.

    Raises
    ------
    ConfigError
        The file or the pack is invalid; the error lists every mistake.

    Examples
    --------
    >>> load_settings(Path("nowhere.yaml")).churn.horizon_days
    28
    """
    if not path.exists():
        return Settings()
    raw, problems = read_yaml(path) or {}, []
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
    return settings
