"""Loading settings: one commented YAML, unknown keys refused, all mistakes reported together."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from qianmian.errors import ConfigError
from qianmian.packs import under
from qianmian.settings import Settings, problems_of, read_yaml


def load_settings(path: Path) -> Settings:
    """Settings from `path`, over those of the pack it chooses, over the defaults; the defaults where the file does not exist.

    Raises
    ------
    ConfigError
        With every mistake in the file, and in the pack.

    Examples
    --------
    >>> load_settings(Path("nowhere.yaml")).churn.horizon_days
    28
    """
    if not path.exists():
        return Settings()
    given, problems = read_yaml(path) or {}, []
    if isinstance(given, dict):
        try:
            given = under(given, path.parent)
        except ConfigError as error:
            problems = error.problems
    try:
        settings = Settings.model_validate(given)
    except ValidationError as error:
        raise ConfigError([*problems, *problems_of(error)], where=str(path)) from error
    if problems:
        raise ConfigError(problems, where=str(path))
    return settings
