"""The settings of the models, a section for each job. `qianmian.settings` puts them together with all others."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from qianmian.propensity_targets import PropensityTarget, parse_targets

UPLIFT_OUTCOMES = ("order", "orders", "amount")
Fraction = Annotated[float, Field(gt=0, lt=1)]


class Section(BaseModel):
    """Base class of all settings: immutable, unknown keys are rejected."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class RecommendSettings(Section):
    """Settings of `train recommend`."""

    horizon_days: int = Field(28, ge=1, le=365, description="length of the validation and test periods")
    target: Literal["auto", "any", "purchase", "view", "cart", "favourite", "search", "share", "message_click"] = Field(
        "auto",
        description="what is predicted: a type of interaction, any for all types, or auto for purchases where enough "
        "customers buy and all types elsewhere",
    )
    min_item_customers: int | None = Field(
        None,
        ge=1,
        description="items with fewer customers are not recommended; null or auto: the largest of 5, 3, 2 and 1 that "
        "leaves out at most a tenth of the interactions of the validation period",
    )
    max_items: int = Field(200_000, ge=1, description="only so many items, the most popular, are recommended")
    half_life_days: tuple[int, ...] = Field(
        (30, 60, 90, 120, 180, 365), min_length=1, description="half-lives compared on the validation period"
    )
    models: dict[str, dict[str, Any]] = Field(
        default_factory=dict, description="parameters of models, by model name, that differ from the defaults"
    )
    budget_cpu_seconds: float = Field(
        100.0,
        gt=0,
        description="the most expensive base models are no candidates, until fitting the others once is estimated to "
        "cost at most this",
    )
    tune_seconds: int = Field(600, ge=10, description="time budget of `train recommend --tune`")

    @field_validator("min_item_customers", mode="before")
    @classmethod
    def _auto_is_null(cls, value: Any) -> Any:
        return None if value == "auto" else value

    @property
    def usual_min_item_customers(self) -> int:
        """The minimum of customers of an item where no validation window chooses it."""
        return self.min_item_customers or 5


class ChurnSettings(Section):
    """Settings of `train churn`: an active customer churns by making no purchase for `horizon_days`."""

    horizon_days: int = Field(28, ge=1, le=365)
    gap_days: int = Field(
        0, ge=0, le=180, description="days after a horizon until its outcomes are known, such as late returns"
    )
    tune_seconds: int = Field(120, ge=10, description="time budget of `train churn --tune`")
    active_days: int | None = Field(
        None, ge=1, description="customers who bought in this many days are active; default: twice the horizon"
    )
    risk_bands: tuple[Fraction, Fraction] | None = Field(
        None,
        description="absolute bounds of the probability, low < first ≤ medium < second ≤ high; default: relative to "
        "the customers who are scored when the model is trained",
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.risk_bands is not None and self.risk_bands[0] >= self.risk_bands[1]:
            raise ValueError("risk_bands must be in increasing order")
        return self


class LeftSettings(Section):
    """Settings of `train left`: a customer has left by making no purchase in a time of their own."""

    multiple: float = Field(
        4.0, ge=1, le=50, description="the time, in mean gaps between the customer's orders, pooled with the shop's"
    )
    min_days: int = Field(84, ge=7, le=730, description="the time is at least this many days")


class LifecycleSettings(Section):
    """Lifecycle stages: thresholds of the probability that a customer orders again within the return time."""

    horizon_days: int = Field(28, ge=1, le=365)
    new_days: int = Field(30, ge=1, description="new: the first order is at most this many days ago")
    loyal_orders: int = Field(10, ge=2, description="loyal: active, with at least this many orders in the last year")
    at_risk_below: float = Field(0.6, gt=0, lt=1, description="at risk: an order is less likely than this")
    asleep_below: float = Field(0.4, gt=0, lt=1, description="asleep: an order is less likely than this")
    lost_below: float = Field(0.25, gt=0, lt=1, description="lost: an order is less likely than this")
    return_days: float | None = Field(
        None, gt=0, description="time in which an order counts as a return; default: four typical gaps of the shop"
    )
    min_gap_days: float = Field(
        7.0, gt=0, description="least typical gap of the shop, which is the median of the mean gaps"
    )
    max_gap_days: float = Field(60.0, gt=0, description="typical gap of a shop without repeat buyers")

    @model_validator(mode="before")
    @classmethod
    def _name_successors(cls, raw: Any) -> Any:
        """Say what replaces the thresholds in mean gaps, which earlier settings files may have."""
        found = [name for name in ("at_risk_gaps", "asleep_gaps", "lost_gaps") if isinstance(raw, dict) and name in raw]
        if found:
            successors = ", ".join(name.replace("_gaps", "_below") for name in found)
            raise ValueError(
                f"{', '.join(found)}: the stages are no longer thresholds in mean gaps between orders, but of the "
                f"probability of an order; remove the line, or set {successors} to a probability"
            )
        return raw

    @model_validator(mode="after")
    def _descending(self) -> LifecycleSettings:
        if not self.at_risk_below > self.asleep_below > self.lost_below:
            raise ValueError(
                "at_risk_below, asleep_below and lost_below must descend; "
                f"got {self.at_risk_below}, {self.asleep_below}, {self.lost_below}"
            )
        return self


class ValueSettings(Section):
    """Settings of `train value`."""

    horizon_days: int = Field(90, ge=1, le=365, description="orders and money are predicted for this many days")
    tune_seconds: int = Field(120, ge=10, description="time budget of `train value --tune`")


class PropensitySettings(Section):
    """Settings of `train propensity`: targets that customers buy or do within `horizon_days`, or not."""

    horizon_days: int = Field(28, ge=1, le=365)
    gap_days: int = Field(
        0, ge=0, le=180, description="days after a horizon until its outcomes are known, such as late returns"
    )
    tune_seconds: int = Field(120, ge=10, description="time budget of `train propensity --tune`")
    targets: tuple[str, ...] = Field(
        (), description="item=ID, category=NAME, brand=NAME or event=TYPE; those of targets.yaml are added"
    )

    @model_validator(mode="after")
    def _valid(self) -> Self:
        parse_targets(self.targets)
        return self

    @property
    def declared(self) -> tuple[PropensityTarget, ...]:
        """The targets, each once."""
        return parse_targets(self.targets)


class UpliftSettings(Section):
    """Settings of `train uplift`: what contacts of campaigns change."""

    campaigns: tuple[str, ...] = Field(
        (), description="ids of campaigns, or kind=KIND for all of a kind; several are learnt from together"
    )
    outcome: str = Field(
        "order", description="order, orders, amount, or a target such as category=NAME (`propensity.targets`)"
    )
    horizon_days: int | None = Field(
        None,
        ge=1,
        le=365,
        description="outcomes count for so many days; null: as long as the shortest of the campaigns",
    )

    @field_validator("outcome")
    @classmethod
    def _known_outcome(cls, text: str) -> str:
        return text if text in UPLIFT_OUTCOMES else str(PropensityTarget.of(text))


class LookalikeSettings(Section):
    """Settings of `train lookalike` and `/v1/lookalike`."""

    minimum_seed: int = Field(20, ge=5, description="requests with fewer known seed customers are rejected")
    factors: int = Field(32, ge=2, le=512, description="dimensions of the customer embedding")


class ContactSettings(Section):
    """Settings of `train contact`."""

    horizon_days: int = Field(
        56,
        ge=7,
        le=365,
        description="length of each of the two held-out periods of responses; at most a quarter of the history",
    )


class DemandSettings(Section):
    """Settings of `train demand`."""

    horizon_days: int = Field(
        56, ge=7, le=365, description="what newcomers buy and read in these days shows their demand type"
    )
    gap_days: int = Field(
        0, ge=0, le=180, description="days after a horizon until its outcomes are known, such as late returns"
    )


class ClustersSettings(Section):
    """Settings of `train clusters`."""

    max_clusters: int = Field(10, ge=2, le=30, description="at most so many behaviour clusters")
    min_share: float = Field(
        0.05, gt=0, le=0.5, description="share of the customers in the smallest cluster, and at least 20 customers"
    )
    min_evidence: int = Field(
        3, ge=1, description="customers with fewer orders (without orders: days with an event) have no cluster"
    )


class GateSettings(Section):
    """Bounds of the gate, beside the baselines and the champion."""

    max_calibration_error: float = Field(
        0.1, gt=0, le=1, description="a model whose calibration error (ece) is beyond noise above this is refused"
    )
    max_size_mb: float = Field(4_000.0, gt=0, description="a larger model is refused")
    max_answer_seconds: float = Field(
        5.0, gt=0, description="a model that takes more CPU seconds to predict a few customers is refused"
    )


class ListsSettings(Section):
    """Settings of the lists and reports for people (`qianmian score … --lang`)."""

    contact_pause_days: int = Field(
        7,
        ge=0,
        description="a customer who was contacted in the last so many days is not contacted again; 0 for no pause",
    )
    unlikely_to_return: float = Field(
        0.9, gt=0, le=1, description="a customer who has left with at least this probability is not contacted"
    )


class MonitoringSettings(Section):
    """Settings of `qianmian monitor`: from where on a change is an alarm."""

    alpha: float = Field(
        0.05, gt=0, le=0.5, description="share of false alarms: of all features and the score together, and of outcomes"
    )
    min_shift: float = Field(0.1, ge=0, description="smaller changes of a mean, in standard deviations, are no drift")
    min_psi: float = Field(0.1, ge=0, description="smaller changes of a distribution (PSI) are no drift")
    calibration_ratio: float = Field(
        1.25,
        gt=1,
        description="observed over predicted outcomes between one divided by this and this are no alarm",
    )
    auc_drop: float = Field(0.03, ge=0, lt=0.5, description="a smaller loss of AUC since the training is no alarm")
    max_model_days: int = Field(182, ge=1, description="an older model is to be trained again")
    max_data_days: int = Field(7, ge=1, description="older data and profiles are stale")
