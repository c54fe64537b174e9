"""The churn of all customers with what a marketer needs beside it: value at risk, reasons, whom to contact."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qianmian.schema import CONSENT_CHANNELS
from serving.champions import Champion, Champions
from serving.predictions import PREDICTIONS
from serving.predictions.base import PredictedCustomers
from serving.recommending.explain import TOP_REASONS
from serving.scoring.churn import JOB, score_churn
from serving.scoring.lists.columns import TagWords, choose, column_of
from serving.scoring.lists.contact import CONTACT, Contacts, contacts_of
from serving.scoring.lists.files import PeopleList
from serving.scoring.lists.reasons import sentences
from serving.scoring.lists.sentences import LAST_ORDER, MEAN_GAP, ORDERS, Values
from serving.scoring.lists.subjects import split_window, subject_of
from serving.scoring.lists.words import Lang, consent_words, day, number, pick, yes_no
from serving.scoring.tables import at_moment

if TYPE_CHECKING:
    from features.compute.builder import Builder

Sort: TypeAlias = Literal["value_at_risk", "risk"]
REASONS = tuple(f"reason_{place}" for place in range(1, TOP_REASONS + 1))
DEFAULT_COLUMNS = (
    *("user_id", "user_source", "churn_probability", "risk_band", "expected_value", "value_at_risk", "value_basis"),
    *("prediction", *REASONS, "lifecycle_stage", "next_order_date", "consent", "contact", "contact_reason"),
    *("as_of", "model_version"),
)
RECENT_AMOUNT, RECENT_DAYS = "amount_91d", 91
PREDICTED_VALUE, LEFT = "predicted_clv", "left_probability"  # fields of `serving.predictions`


def jobs() -> list[str]:
    """The jobs whose models a churn list reads: churn, and where there are such, value and who has left."""
    made = (one.job for one in PREDICTIONS.values() if {PREDICTED_VALUE, LEFT} & set(one.response.model_fields))
    return list(dict.fromkeys([JOB, *made]))


@dataclass(frozen=True)
class ChurnScores:
    """The churn of n customers.

    Attributes
    ----------
    champions : Champions
        Models, and the profiles of the moment.
    table : pyarrow.Table
        As `score_churn` gives it, without reasons.
    probabilities : ndarray of float64, shape (n,)
        NaN without a score.
    values : ndarray of float64, shape (n,)
        What each customer is expected to spend within the horizon; NaN where it is unknown.
    value_basis : (str, str)
        What the values are, in English and Chinese; empty without amounts.
    contacts : Contacts
        Whom to contact.
    consents : mapping of str to sequence
        Channel → consent of each customer; channels that no profile tells are missing.
    tag_words : mapping
        Tag → its Chinese words.
    """

    champions: Champions
    table: pa.Table
    probabilities: NDArray[np.float64]
    values: NDArray[np.float64]
    value_basis: tuple[str, str]
    contacts: Contacts
    consents: Mapping[str, Sequence[bool | None]]
    tag_words: TagWords

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def champion(self) -> Champion:
        """The churn model."""
        return self.champions.require(JOB)

    @property
    def as_of(self) -> datetime:
        """Moment of the profiles."""
        return self.champions.customers.as_of

    @property
    def horizon_days(self) -> float:
        """Days in which a customer who churns orders nothing."""
        return float(self.champion.bundle.facts.get("horizon_days", self.champions.settings.churn.horizon_days))

    @property
    def base_rate(self) -> float:
        """The share of customers that churned in training; of models that do not say it, the mean probability."""
        found = self.champion.bundle.facts.get("base_rate")
        return float(np.nanmean(self.probabilities)) if found is None else float(found)

    @cached_property
    def scored(self) -> NDArray[np.bool_]:
        """Who has a score, shape (n,)."""
        return ~np.isnan(self.probabilities)

    @property
    def value_at_risk(self) -> NDArray[np.float64]:
        """Churn probability × expected value, shape (n,)."""
        return self.probabilities * self.values

    @property
    def last_day(self) -> datetime:
        """The last moment of the horizon, which is on the day before its end if that is a midnight."""
        return self.as_of + timedelta(days=self.horizon_days) - timedelta(microseconds=1)

    def prediction(self, lang: Lang) -> str:
        """What is predicted, in words."""
        until = day(self.last_day, lang)
        return pick(lang, f"no order until {until}", f"截至{until}不下单")

    def order(self, sort: Sort) -> NDArray[np.int64]:
        """Rows of all customers, the highest first and those without a score last."""
        main = self.probabilities if sort == "risk" else self.value_at_risk
        keys = (np.arange(len(self)), *(-np.nan_to_num(one, nan=-1.0) for one in (self.probabilities, main)))
        return np.lexsort(keys)

    @property
    def default_sort(self) -> Sort:
        """By value at risk; by probability where there are no amounts."""
        return "value_at_risk" if self.value_basis[0] else "risk"

    def reasons(self, rows: NDArray[np.int64], lang: Lang) -> list[list[str]]:
        """Sentences why each probability is high or low, strongest first; none for customers without a score."""
        found: list[list[str]] = [[] for _ in rows]
        places = np.flatnonzero(self.scored[rows])
        if not len(places):
            return found
        encoded = self.champions.encoded(JOB)
        chosen = rows[places]
        spec, values = encoded.spec, encoded.values[chosen]
        contributions = self.champion.bundle.model.explain(values, self.as_of)
        raises = (self.probabilities[chosen] >= self.base_rate).tolist()
        profiles = self.champions.customers.table
        names = [name for name in self._told_features if name in profiles.column_names]
        columns = [profiles[name].take(pa.array(chosen)).to_pylist() for name in names]
        own: list[Values] = [dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)]
        made = sentences(spec, values, contributions, raises, own, self._typical, lang)
        for place, texts in zip(places.tolist(), made, strict=True):
            found[place] = texts
        return found

    @cached_property
    def _told_features(self) -> list[str]:
        """The features of the model, and those that their statements compare them with."""
        names = [LAST_ORDER, MEAN_GAP, ORDERS]
        for feature in self.champions.encoded(JOB).spec.features:
            name = subject_of(feature).told_by or feature.name
            stem, days = split_window(name)
            names += [feature.name, name]
            if days is not None:
                names += [f"{stem}_{2 * days}d", f"{stem}_slope_{days}d"]
        return list(dict.fromkeys(names))

    @cached_property
    def _typical(self) -> Values:
        """Median of the customers with a score, of each feature that is a number."""
        profiles = self.champions.customers.table
        found: dict[str, float | str | None] = {}
        for name in self._told_features:
            if name in profiles.column_names and pa.types.is_floating(profiles.schema.field(name).type):
                column = profiles[name].to_numpy()[self.scored]
                found[name] = float(np.nanmedian(column)) if not np.isnan(column).all() else None
        return found

    def people_list(
        self,
        lang: Lang,
        columns: Sequence[str] | None = None,
        rows: NDArray[np.int64] | None = None,
    ) -> PeopleList:
        """The customers of `rows`, by default all in the order of `default_sort`, with the named columns."""
        snapshot = self.champions.customers
        several_sources = len(self.table["user_source"].unique()) > 1
        present = [name for name in DEFAULT_COLUMNS if self._has(name) and (name != "user_source" or several_sources)]
        keys = choose(columns, present, [*(name for name in DEFAULT_COLUMNS if self._has(name)), *snapshot.tags])
        rows = self.order(self.default_sort) if rows is None else rows
        reasons = self.reasons(rows, lang) if set(REASONS) & set(keys) else []
        values = {key: self._values(key, rows, reasons, lang) for key in keys}
        return PeopleList([column_of(key, self.tag_words) for key in keys], values, lang)

    def _has(self, key: str) -> bool:
        if key in ("expected_value", "value_at_risk", "value_basis"):
            return bool(self.value_basis[0])
        if key in ("lifecycle_stage", "next_order_date"):
            return key in self.champions.customers.tags
        return key != "consent" or bool(self.consents)

    def _values(self, key: str, rows: NDArray[np.int64], reasons: Sequence[Sequence[str]], lang: Lang) -> Sequence[Any]:
        listed, scored = rows.tolist(), self.scored[rows].tolist()
        if key in REASONS:
            place = REASONS.index(key)
            return [texts[place] if place < len(texts) else None for texts in reasons]
        if key == "expected_value":
            return list(self.values[rows].tolist())
        if key == "value_at_risk":
            return list(self.value_at_risk[rows].tolist())
        if key in ("prediction", "value_basis"):
            text = self.prediction(lang) if key == "prediction" else pick(lang, *self.value_basis)
            return [text if one else None for one in scored]
        if key == "consent":
            return [
                consent_words({channel: values[row] for channel, values in self.consents.items()}, lang)
                for row in listed
            ]
        if key == "contact":
            return [yes_no(code == CONTACT, lang) for code in self.contacts.codes[rows].tolist()]
        if key == "contact_reason":
            return [self.contacts.words(row, lang) for row in listed]
        if key in self.table.column_names:
            return list(self.table[key].take(pa.array(rows)).to_pylist())
        tag = self.champions.customers.tags[key]
        return [tag[row] for row in listed]


def churn_scores(
    champions: Champions, tag_words: TagWords, *, as_of: datetime | None = None, builder: Builder | None = None
) -> ChurnScores:
    """Score all customers of the profiles; errors are those of `score_churn`.

    Parameters
    ----------
    champions : Champions
        The churn model, and those of `jobs` that there are.
    tag_words : mapping
        Tag → its Chinese words.
    """
    at = at_moment(champions, champions.require(JOB), as_of, builder)
    table = score_churn(at, explain=False).table()
    snapshot, n = at.customers, table.num_rows
    probabilities = table["churn_probability"].to_numpy().astype(np.float64)
    horizon = float(at.require(JOB).bundle.facts.get("horizon_days", at.settings.churn.horizon_days))
    values, basis = _expected_values(at, n, horizon)
    consents = {
        channel: [None if value is None else bool(value) for value in snapshot.tags[f"consent_{channel}"]]
        for channel in CONSENT_CHANNELS
        if f"consent_{channel}" in snapshot.tags
    }
    profiles = snapshot.features
    contacted = "days_since_last_touch"
    contacts = contacts_of(
        table["no_score_reason"].to_pylist(),
        table["risk_band"].to_pylist(),
        consents,
        profiles.column(contacted) if contacted in profiles.spec.names else None,
        _predicted(at, LEFT, n),
        at.settings.lists,
    )
    return ChurnScores(at, table, probabilities, values, basis, contacts, consents, tag_words)


def _expected_values(champions: Champions, n: int, horizon: float) -> tuple[NDArray[np.float64], tuple[str, str]]:
    """What each customer is expected to spend within the horizon, shape (n,); what that is, in English and Chinese."""
    predicted = _predicted(champions, PREDICTED_VALUE, n)
    if predicted is not None and not np.isnan(predicted).all():  # a model knows no money where the data have none
        job = next(one.job for one in PREDICTIONS.values() if PREDICTED_VALUE in one.response.model_fields)
        days = float(champions.require(job).bundle.facts["horizon_days"])
        basis = f"predicted value of the next {number(days)} days", f"未来 {number(days)} 天的预测价值"
        if days == horizon:
            return predicted, basis
        # at risk is the money of the days without an order: most who churn come back after them
        both = f"{basis[0]}, scaled to {number(horizon)} days", f"{basis[1]}，折算为 {number(horizon)} 天"
        return predicted * (horizon / days), both
    profiles = champions.customers.features
    if RECENT_AMOUNT not in profiles.spec.names or not profiles.column(RECENT_AMOUNT).any():
        return np.full(n, np.nan), ("", "")
    spent = profiles.column(RECENT_AMOUNT).astype(np.float64) * horizon / RECENT_DAYS
    scaled = f"spending of the last {RECENT_DAYS} days, scaled to {number(horizon)} days"
    return spent, (scaled, f"近 {RECENT_DAYS} 天消费额折算为 {number(horizon)} 天")


def _predicted(champions: Champions, field: str, n: int) -> NDArray[np.float64] | None:
    """A field of `serving.predictions` of all n customers, NaN where it is unknown; None without its model.

    A model that was trained on rows after the moment of the profiles is not used.
    """
    made = next((one for one in PREDICTIONS.values() if field in one.response.model_fields), None)
    if made is None or made.job not in champions.models:
        return None
    if champions.require(made.job).bundle.as_of > champions.customers.as_of:
        return None
    moments = np.full(n, np.datetime64(champions.customers.as_of, "us"))
    found = made.predict(PredictedCustomers(champions, np.arange(n, dtype=np.int64), moments)).fields[field]
    return np.array([np.nan if value is None else value for value in found], dtype=np.float64)
