"""Traits of a group of customers: features and tags that set it apart from all others, in words."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.compute.algebra import Feature
from features.profiles.snapshot import Snapshot
from features.profiles.tags.chinese import CHINESE
from serving.champions import Champions
from serving.scoring.lists.columns import TagWords, column_of
from serving.scoring.lists.sentences import statements
from serving.scoring.lists.subjects import split_window, subject_of
from serving.scoring.lists.words import Lang, percent, pick, tag_value

MOST = 10
FALSE_DISCOVERIES = 0.05  # share of the traits that may be chance (Benjamini & Hochberg 1995)
SMALLEST = 0.2  # standardised difference of a trait: what Cohen (1988) calls a small effect
MIN_CUSTOMERS = 10  # with a value of a tag
Z_95 = 1.959964
DATE = re.compile(r"\d{4}-\d\d-\d\d")
RowIndices = NDArray[np.int64]


@dataclass(frozen=True)
class SeedTrait:
    """A feature, or a value of a tag, in which a seed differs from all other customers.

    Attributes
    ----------
    name : str
        Feature or tag.
    value : str, bool or None
        Value of the tag; None for a feature.
    seed, audience, others : float
        Median of the feature, or share of the customers who have the value of the tag: of the seed, of the customers
        found, and of all but the seed.
    difference, low, high : float
        Mean of the seed minus that of all others, in standard deviations of all customers, with its 95 % interval; of
        a feature, the means are of ranks.
    tgi : float or None
        Target group index of a tag: share of the seed ÷ share of all customers × 100.
    text : str
        The trait in words.
    """

    name: str
    value: str | bool | None
    seed: float
    audience: float
    others: float
    difference: float
    low: float
    high: float
    tgi: float | None
    text: str

    def as_dict(self) -> dict[str, Any]:
        """The trait as JSON-compatible data, with four digits."""
        return {name: round(one, 4) if isinstance(one, float) else one for name, one in asdict(self).items()}


@dataclass(frozen=True)
class _Candidate:
    """A feature or a value of a tag, and how far the seed differs in it."""

    group: str  # of which one trait is told
    difference: float
    error: float
    feature: Feature | None = None
    tag: str = ""
    value: str | bool | None = None
    code: int = -1  # of the value, in `_codes` of the tag

    @property
    def p_value(self) -> float:
        """Probability of a difference at least as large between groups drawn at random, by the normal distribution."""
        return math.erfc(abs(self.difference) / self.error / math.sqrt(2.0))


def traits_of(
    champions: Champions,
    model_rows: RowIndices,
    seeds: RowIndices,
    found: RowIndices,
    words: TagWords = CHINESE,
    lang: Lang = "en",
) -> list[SeedTrait]:
    """Find what sets a seed apart, the largest difference first.

    Of the features and tags that differ beyond chance, corrected for the number of comparisons, each group that says
    the same gives its strongest one.

    Parameters
    ----------
    champions : Champions
    model_rows : int array
        RowIndices of the seed in the lookalike model.
    seeds, found : int array
        RowIndices of the seed and of the audience in the profiles.
    words : mapping
        Tag → its Chinese words.
    lang : str
        Language of the texts.

    Returns
    -------
    list of SeedTrait
        At most ten; empty if nothing differs.
    """
    snapshot = champions.customers
    if not 0 < len(seeds) < len(snapshot.one_ids) or not len(model_rows):
        return []
    candidates = [*_features(champions, model_rows), *_tags(snapshot, seeds)]
    told: set[str] = set()
    traits: list[SeedTrait] = []
    for one in sorted(_beyond_chance(candidates), key=lambda one: -abs(one.difference)):
        if one.group in told or len(traits) == MOST:
            continue
        trait = _told(one, snapshot, seeds, found, words, lang)
        if trait is not None:
            told.add(one.group)
            traits.append(trait)
    return traits


def _features(champions: Champions, rows: RowIndices) -> Iterator[_Candidate]:
    """The numeric features, whose columns come first in the space of the model."""
    bundle, columns = champions.require("lookalike").bundle, set(champions.customers.table.column_names)
    if bundle.spec is None:
        return
    space, n = bundle.model.space_, len(bundle.model.space_)
    if len(rows) >= n:
        return
    values = space[rows][:, : len(bundle.spec.features)].astype(np.float64)
    differences = (values.mean(axis=0) - bundle.model.mean_[: values.shape[1]]) * n / (n - len(rows))
    errors = np.sqrt(values.var(axis=0) / len(rows) + 1.0 / (n - len(rows)))
    for feature, difference, error in zip(bundle.spec.features, differences, errors, strict=True):
        subject = subject_of(feature)
        if feature.name in columns and not feature.categorical and not subject.told_by and subject.kind != "record":
            # one without a subject of its own is a group with its other windows
            group = split_window(feature.name)[0] if subject.group == feature.name else subject.group
            yield _Candidate(group, float(difference), float(error), feature=feature)


def _tags(snapshot: Snapshot, seeds: RowIndices) -> Iterator[_Candidate]:
    """The values of the tags that are yes or no, or a text."""
    n, of_seed = len(snapshot.one_ids), len(seeds)
    for tag, values in snapshot.tags.items():
        column = pa.array(values)
        if pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or pa.types.is_null(column.type):
            continue
        codes, names = _codes(column)
        if all(isinstance(name, str) and DATE.fullmatch(name) for name in names):
            continue  # how many share a day says little
        all_counts = np.bincount(codes + 1, minlength=len(names) + 1)[1:]
        seed_counts = np.bincount(codes[seeds] + 1, minlength=len(names) + 1)[1:]
        for code in np.flatnonzero((all_counts >= MIN_CUSTOMERS) & (all_counts < n)).tolist():
            p, q = seed_counts[code] / of_seed, (all_counts[code] - seed_counts[code]) / (n - of_seed)
            overall = all_counts[code] / n
            spread = math.sqrt(overall * (1.0 - overall))
            # the standard error under no difference, so that a share of 0 or 1 has one too
            error = math.sqrt(1.0 / of_seed + 1.0 / (n - of_seed))
            yield _Candidate(tag, (p - q) / spread, error, tag=tag, value=names[code], code=code)


def _codes(column: pa.Array) -> tuple[NDArray[np.integer[Any]], list[Any]]:
    """The code of each customer's value of a tag, −1 where it is unknown, (n,), and the values."""
    encoded = column if pa.types.is_dictionary(column.type) else column.dictionary_encode()
    return encoded.indices.fill_null(-1).to_numpy(zero_copy_only=False), encoded.dictionary.to_pylist()


def _beyond_chance(candidates: Iterable[_Candidate]) -> list[_Candidate]:
    """Those with at least a small difference among the ones that Benjamini and Hochberg's procedure accepts."""
    ordered = sorted((one for one in candidates if one.error > 0), key=lambda one: one.p_value)
    limits = FALSE_DISCOVERIES * np.arange(1, len(ordered) + 1) / max(1, len(ordered))
    accepted = np.flatnonzero(np.array([one.p_value for one in ordered]) <= limits)
    last = int(accepted[-1]) + 1 if len(accepted) else 0
    return [one for one in ordered[:last] if abs(one.difference) >= SMALLEST]


def _told(
    one: _Candidate, snapshot: Snapshot, seeds: RowIndices, found: RowIndices, words: TagWords, lang: Lang
) -> SeedTrait | None:
    """The trait in words; None if its numbers are the same as they are printed."""
    others = np.ones(len(snapshot.one_ids), dtype=bool)
    others[seeds] = False
    if one.tag:
        has = _codes(pa.array(snapshot.tags[one.tag]))[0] == one.code
        seed, audience, rest = (float(has[rows].mean()) if len(rows) else 0.0 for rows in (seeds, found, others))
        tgi = 100.0 * seed / float(has.mean())
        heading, value = column_of(one.tag, words).heading(lang), tag_value(words.get(one.tag), one.value, lang)
        text = pick(
            lang,
            f"{heading}: {value} – {percent(seed)} of the seed, {percent(rest)} of all others",
            f"{heading}：{value}，种子人群 {percent(seed)}，其他客户 {percent(rest)}",
        )
        name = one.tag
    else:
        assert one.feature is not None
        name, tgi = one.feature.name, None
        column = snapshot.table[name].to_numpy().astype(np.float64)  # NaN where it is unknown
        seed, audience, rest = (_median(column[rows]) for rows in (seeds, found, others))
        said = statements(one.feature, {name: seed}, {name: rest}, lang)
        if not said or not said[0].difference:
            return None
        text = said[0].text
    error = Z_95 * one.error
    return SeedTrait(
        name, one.value, seed, audience, rest, one.difference, one.difference - error, one.difference + error, tgi, text
    )


def _median(values: NDArray[np.float64]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else 0.0
