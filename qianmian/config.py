"""Settings: one commented YAML, unknown keys refused, all mistakes reported together."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from qianmian.errors import ConfigError

Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Base of all settings: frozen, and a key nobody declared is a mistake."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecommendSettings(Section):
    """`train recommend`."""

    horizon_days: int = Field(28, ge=1, le=365, description="length of the validation and test windows")
    min_item_customers: int = Field(5, ge=1, description="an item bought by fewer customers is not recommended")
    half_life_days: tuple[int, ...] = Field((30, 60, 90, 120, 180, 365), min_length=1, description="half-lives tried on validation")
    factors: int = Field(64, ge=2, le=1024, description="iALS dimensions")
    iterations: int = Field(15, ge=1, le=500, description="iALS sweeps")
    hybrid_factors: int = Field(32, ge=2, le=1024, description="LightFM dimensions")
    hybrid_epochs: int = Field(5, ge=1, le=500, description="LightFM epochs")
    popular_window_days: int = Field(28, ge=1, description="the last resort counts the customers of this many days")


class ChurnSettings(Section):
    """`train churn`: a customer active in the last `active_days` churns by buying nothing for `horizon_days`."""

    horizon_days: int = Field(28, ge=1, le=365)
    active_days: int | None = Field(None, ge=1, description="default: twice the horizon")
    risk_bands: tuple[Fraction, Fraction] = Field((0.33, 0.66), description="low < first ≤ medium < second ≤ high")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.risk_bands[0] >= self.risk_bands[1]:
            raise ValueError("risk_bands must rise")
        return self


class LifecycleSettings(Section):
    """Lifecycle stages, in units of each customer's own mean gap between orders."""

    horizon_days: int = Field(28, ge=1, le=365)
    new_days: int = Field(30, ge=1, description="first order at most this long ago: new")
    loyal_orders: int = Field(10, ge=2, description="orders in the last year that make an active customer loyal")
    at_risk_gaps: float = Field(2.0, gt=0, description="silent for this many own gaps: at risk")
    asleep_gaps: float = Field(4.0, gt=0, description="… asleep")
    lost_gaps: float = Field(8.0, gt=0, description="… lost")
    min_gap_days: float = Field(7.0, gt=0, description="a shorter own gap counts as this long")
    max_gap_days: float = Field(60.0, gt=0, description="a longer own gap, or an unknown one, counts as this long")


class LookalikeSettings(Section):
    """`train lookalike` and `/v1/lookalike`."""

    minimum_seed: int = Field(20, ge=5, description="fewer known seeds are refused")
    factors: int = Field(32, ge=2, le=512, description="dimensions of the taste embedding")


class ServingSettings(Section):
    """`qianmian serve`."""

    stale_after_days: float = Field(7.0, gt=0, description="answers older than this say stale: true")
    max_body_bytes: int = Field(1_000_000, ge=1_000)


class Settings(Section):
    """Everything that can be set, with its default. `qianmian.yaml` in the workspace may override any of it."""

    seed: int = 0
    recommend: RecommendSettings = Field(default_factory=RecommendSettings)
    churn: ChurnSettings = Field(default_factory=ChurnSettings)
    lifecycle: LifecycleSettings = Field(default_factory=LifecycleSettings)
    lookalike: LookalikeSettings = Field(default_factory=LookalikeSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)


def problems_of(error: ValidationError) -> list[str]:
    """Pydantic's findings as one plain line each, dotted path first."""
    return [f"{'.'.join(str(part) for part in found['loc']) or '(whole file)'}: {found['msg']}" for found in error.errors()]


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; a syntax error says the line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([" ".join(str(error).split())], where=str(path)) from error


def load_settings(path: Path) -> Settings:
    """Settings from `path`, or the defaults where the file does not exist.

    Raises
    ------
    ConfigError
        With every mistake in the file.

    Examples
    --------
    >>> load_settings(Path("nowhere.yaml")).churn.horizon_days
    28
    """
    if not path.exists():
        return Settings()
    try:
        return Settings.model_validate(read_yaml(path) or {})
    except ValidationError as error:
        raise ConfigError(problems_of(error), where=str(path)) from error
