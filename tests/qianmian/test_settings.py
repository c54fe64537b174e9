"""Settings: the commented file says what the code does, and mistakes come all at once."""

from __future__ import annotations

import importlib.resources
import re

import pytest
import yaml
from pydantic import BaseModel

from qianmian.config import load_settings
from qianmian.errors import ConfigError
from qianmian.settings import Settings

DEFAULTS = importlib.resources.files("qianmian").joinpath("defaults.yaml").read_text(encoding="utf-8")


def every_field(model: type[BaseModel], before: str = "") -> list[str]:
    names = []
    for name, field in model.model_fields.items():
        nested = field.annotation
        if isinstance(nested, type) and issubclass(nested, BaseModel):
            names += every_field(nested, f"{before}{name}.")
        else:
            names.append(before + name)
    return names


def flat(value, before=""):
    for name, inner in value.items():
        if isinstance(inner, dict) and inner:
            yield from flat(inner, f"{before}{name}.")
        else:
            yield before + name


def test_the_commented_file_names_every_setting():
    assert sorted(flat(yaml.safe_load(DEFAULTS))) == sorted(every_field(Settings))


def test_the_commented_file_is_the_defaults():
    assert Settings.model_validate(yaml.safe_load(DEFAULTS)) == Settings()


def test_every_setting_has_a_comment():
    lines = [line for line in DEFAULTS.splitlines() if re.match(r"\s*\w+:", line)]
    assert [line for line in lines if "#" not in line] == []


def test_a_missing_file_means_the_defaults(tmp_path):
    assert load_settings(tmp_path / "qianmian.yaml") == Settings()


def test_an_empty_file_means_the_defaults(tmp_path):
    path = tmp_path / "qianmian.yaml"
    path.write_text("# nothing changed\n")
    assert load_settings(path) == Settings()


def test_some_settings_override_and_the_rest_stay(tmp_path):
    path = tmp_path / "qianmian.yaml"
    path.write_text("churn: {horizon_days: 14}\n")
    found = load_settings(path)
    assert found.churn.horizon_days == 14
    assert found.recommend == Settings().recommend


def test_all_mistakes_are_reported_together(tmp_path):
    path = tmp_path / "qianmian.yaml"
    path.write_text("churn: {horizon_days: 0, risk_bands: [0.9, 0.1]}\nrecomend: {}\nlookalike: {factors: many}\n")
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    text = str(caught.value)
    for name in ("churn.horizon_days", "recomend", "lookalike.factors"):
        assert name in text
    assert caught.value.exit_code == 2


def test_risk_bands_must_rise(tmp_path):
    path = tmp_path / "qianmian.yaml"
    path.write_text("churn: {risk_bands: [0.9, 0.1]}\n")
    with pytest.raises(ConfigError, match="risk_bands must be in increasing order"):
        load_settings(path)


@pytest.mark.parametrize("text", ["churn: [1\n", "- a list\n", "just text\n"])
def test_what_is_no_settings_file_is_refused(tmp_path, text):
    path = tmp_path / "qianmian.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_settings(path)
    assert str(path) in str(caught.value)
