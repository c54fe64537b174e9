"""Settings as frozen models: every key with its default and meaning. `qianmian.config` loads them."""

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
    half_life_days: tuple[int, ...] = Field(
        (30, 60, 90, 120, 180, 365), min_length=1, description="half-lives tried on validation"
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="parameters of models by name, where not their defaults"
    )
    tune_seconds: int = Field(600, ge=10, description="time budget of `train recommend --tune`")


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


class IdType(Section):
    """What one sort of identifier says of who somebody is.

    Examples
    --------
    >>> IdType(type="table_number", priority=95, max_customers=2).strong
    False
    """

    type: str = Field(pattern=r"^[a-z][a-z0-9_]{0,31}$", description="as `identities.id_type` has it")
    priority: int = Field(100, ge=1, description="smaller counts first, where two identifiers contradict each other")
    max_customers: int | None = Field(
        3, ge=2, description="held by more customers than this it is shared and links nobody; null: never"
    )
    expires_days: float | None = Field(
        None, gt=0, description="two sightings of one value further apart do not link; null: never"
    )
    strong: bool = Field(False, description="a person has one: customers with different values are never merged")
    pii: bool = Field(False, description="stored only as a salted keyed hash")
    counts_as: str | None = Field(None, description="its values are values of that other type too")


ID_TYPES: tuple[IdType, ...] = (
    IdType(type="login", priority=10, max_customers=None, strong=True, pii=True),
    IdType(type="unionid", priority=20, max_customers=None, strong=True),
    IdType(type="phone_verified", priority=30, max_customers=None, strong=True, pii=True, counts_as="phone"),
    IdType(type="card", priority=40, max_customers=3, pii=True),
    IdType(type="openid", priority=50, max_customers=3),
    IdType(type="email", priority=60, max_customers=3, expires_days=1095, pii=True),
    IdType(type="phone", priority=70, max_customers=3, expires_days=730, pii=True),
    IdType(type="device", priority=80, max_customers=3, expires_days=180),
    IdType(type="cookie", priority=90, max_customers=3, expires_days=90),
)


class IdentitySettings(Section):
    """`qianmian identity`: which identifiers there are, and what each may link."""

    id_types: tuple[IdType, ...] = Field(
        ID_TYPES, description="one entry a type; an entry of yours changes or adds one, the others stay"
    )

    @model_validator(mode="before")
    @classmethod
    def _merge_default_id_types(cls, raw: Any) -> Any:
        """An entry need only say what it changes."""
        entries = raw.get("id_types") if isinstance(raw, dict) else None
        if not isinstance(entries, list | tuple) or not all(isinstance(entry, dict) for entry in entries):
            return raw
        merged: dict[Any, dict[str, Any]] = {kind.type: kind.model_dump() for kind in ID_TYPES}
        for entry in entries:
            merged[entry.get("type")] = {**merged.get(entry.get("type"), {}), **entry}
        return {**raw, "id_types": list(merged.values())}

    @model_validator(mode="after")
    def _check_counts_as(self) -> Self:
        known = {kind.type: kind for kind in self.id_types}
        for kind in self.id_types:
            if kind.counts_as is None:
                continue
            other = known.get(kind.counts_as)
            if other is None or other.type == kind.type or other.counts_as or other.pii != kind.pii:
                raise ValueError(
                    f"{kind.type}: counts_as must name another declared type with the same pii, not {kind.counts_as!r}"
                )
        return self


class LinkingSettings(Section):
    """`qianmian identity link`: store records of people that share no identifier."""

    threshold: float = Field(0.9, gt=0, le=1, description="at least this probable: one person")
    review_low: float = Field(0.2, ge=0, lt=1, description="from here up to the threshold a person decides")
    max_block_records: int = Field(500, ge=2, description="a value shared by more records brings none of them together")
    max_pairs: int = Field(50_000_000, ge=1, description="more pairs to compare are refused")

    @model_validator(mode="after")
    def _band(self) -> Self:
        if self.review_low > self.threshold:
            raise ValueError("review_low must not be above threshold")
        return self


class ServingSettings(Section):
    """`qianmian serve`."""

    stale_after_days: float = Field(7.0, gt=0, description="answers older than this say stale: true")
    max_body_bytes: int = Field(1_000_000, ge=1_000)


class Settings(Section):
    """Everything that can be set, with its default. `qianmian.yaml` in the workspace may override any of it."""

    seed: int = 0
    pack: str | None = Field(None, description="industry pack: its name, or a path; its settings lie under these")
    recommend: RecommendSettings = Field(default_factory=RecommendSettings)
    churn: ChurnSettings = Field(default_factory=ChurnSettings)
    lifecycle: LifecycleSettings = Field(default_factory=LifecycleSettings)
    lookalike: LookalikeSettings = Field(default_factory=LookalikeSettings)
    identity: IdentitySettings = Field(default_factory=IdentitySettings)
    linking: LinkingSettings = Field(default_factory=LinkingSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)


def problems_of(error: ValidationError) -> list[str]:
    """Pydantic's findings as one plain line each, dotted path first."""
    return [
        f"{'.'.join(str(part) for part in found['loc']) or '(whole file)'}: {found['msg']}" for found in error.errors()
    ]


def read_yaml(path: Path) -> Any:
    """Parse a YAML file; a syntax error says the line."""
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError([" ".join(str(error).split())], where=str(path)) from error
