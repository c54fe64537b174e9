"""Lookalike audiences: customers similar to a seed, for single requests and for whole files of ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.responses import ResponseBody, rounded
from serving.scoring.blocks import BlockScores, provenance
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, identity_columns, provenance_columns
from serving.users import resolve_users

if TYPE_CHECKING:
    from models.lookalike import SeedEvaluation  # imports scikit-learn

JOB = "lookalike"
EVIDENCE_SPLITS = 5  # each split fits the expander again
SourcedId = tuple[str, str | None]  # user id, and the source that it belongs to, if it is named
AUDIENCE = pa.schema([*IDENTITY_COLUMNS, ("rank", pa.int32()), ("score", pa.float64()), *PROVENANCE])


@dataclass(frozen=True)
class KnownIds:
    """The customers that ids name.

    Attributes
    ----------
    rows : ndarray of int64
        Their rows in the lookalike model, each once.
    unknown : tuple of str
        Ids that are no customer of the model, each once, in the order of the ids.
    """

    rows: NDArray[np.int64]
    unknown: tuple[str, ...]


@dataclass(frozen=True)
class Audience:
    """Customers similar to a seed.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Their rows in the profiles, best first.
    scores : ndarray of float64, shape (n,)
        Similarity to the seed.
    known_seeds : int
        Number of seed customers.
    unknown : tuple of str
        Ids of the seed and of the customers to leave out that are no customer of the model.
    evidence : SeedEvaluation or None
        How well hidden halves of the seed are found.
    short_reason : str or None
        Why there are fewer customers than asked for.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    known_seeds: int
    unknown: tuple[str, ...]
    evidence: SeedEvaluation | None
    short_reason: str | None


def find_audience(
    champions: Champions,
    seed: Sequence[SourcedId],
    *,
    size: int | None = None,
    ratio: float | None = None,
    exclude: Sequence[SourcedId] = (),
    with_evidence: bool = True,
) -> Audience:
    """Find the customers most similar to a seed, without the seed, `exclude`, shared accounts and erased customers.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    seed, exclude : sequence of (str, str or None)
        User ids of the seed customers and of those to leave out, each with its source if it is named.
    size : int, optional
        Number of customers; default: `ratio` of all, else as many as there are known seed customers.
    ratio : float, optional
        Share of all known customers.
    with_evidence : bool
        Measure how well hidden halves of the seed are found, which takes most of the time.

    Raises
    ------
    InvalidRequest
        If fewer seed customers are known than `lookalike.minimum_seed`.
    """
    champion = champions.require(JOB)
    user_ids, model = champion.bundle.user_ids, champion.bundle.model
    seeds, left_out = known_seeds(champions, seed), known_ids(champions, exclude)
    if size is None:
        size = len(seeds.rows) if ratio is None else max(1, round(ratio * len(user_ids)))
    # customers that are not in the profiles have no id that the caller could use
    profile_rows = champions.customers.user_map.rows(user_ids)
    shared = champion.bundle.user_map.rows(list(champion.bundle.facts.get("shared_accounts", {})))
    erased = champion.bundle.user_map.rows(list(champions.live.erased_one_ids() if champions.live is not None else ()))
    excluded = np.concatenate(
        [left_out.rows, np.flatnonzero(profile_rows < 0), shared[shared >= 0], erased[erased >= 0]]
    )
    rows, scores = model.expand(seeds.rows, size, exclude=np.unique(excluded))
    return Audience(
        profile_rows[rows],
        scores,
        len(seeds.rows),
        tuple(dict.fromkeys([*seeds.unknown, *left_out.unknown])),
        model.evidence(seeds.rows, size, splits=EVIDENCE_SPLITS) if with_evidence else None,
        f"all {len(rows)} other customers are in the list" if len(rows) < size else None,
    )


def audience_users(champions: Champions, audience: Audience) -> list[dict[str, Any]]:
    """Return user_id, user_source, one_id and score of the customers of an audience, best first."""
    table = audience_rows(identity_columns(champions), audience.rows, audience.scores, 0)
    return list(table.drop_columns("rank").to_pylist())


def audience_rows(identity: pa.Table, rows: NDArray[np.int64], scores: NDArray[np.float64], before: int) -> pa.Table:
    """Return user_id, user_source, one_id, rank and score of part of an audience, `before` of which come earlier."""
    ranks = pa.array(np.arange(before + 1, before + 1 + len(rows), dtype=np.int32))
    table = identity.take(pa.array(rows)).append_column("rank", ranks)
    return table.append_column("score", pa.array([rounded(score) for score in scores.tolist()], pa.float64()))


def known_seeds(champions: Champions, seed: Sequence[SourcedId]) -> KnownIds:
    """Return the seed customers.

    Raises
    ------
    InvalidRequest
        If fewer of them are known than `lookalike.minimum_seed`.
    """
    seeds = known_ids(champions, seed)
    minimum = champions.settings.lookalike.minimum_seed
    if len(seeds.rows) < minimum:
        raise InvalidRequest(
            "too few known seed customers",
            got=f"{len(seeds.rows)} known of {len(seed)} ids",
            allowed=f"at least {minimum}",
            field="seed_user_ids",
            hint="add customers, or name the source of the ids in user_source",
        )
    return seeds


def known_ids(champions: Champions, ids: Sequence[SourcedId]) -> KnownIds:
    """Return the customers that ids name; an id that several sources use is unknown without its source."""
    by_source: dict[str | None, list[str]] = {}
    for user_id, source in ids:
        by_source.setdefault(source, []).append(user_id)
    users = [user for source, named in by_source.items() for user in resolve_users(champions, named, source)]
    customers = champions.require(JOB).bundle.user_map
    found = {(user.user_id, user.user_source): customers.row(user.one_id) for user in users}
    unknown = tuple(dict.fromkeys(user_id for user_id, source in ids if found[user_id, source] < 0))
    return KnownIds(np.unique([row for row in found.values() if row >= 0]).astype(np.int64), unknown)


def evidence_entry(evidence: SeedEvaluation) -> ResponseBody:
    """Return the evidence as JSON-compatible data: auc, recall_at_size, lift_at_size, reach, splits."""
    intervals = {name: getattr(evidence, name) for name in ("auc", "recall_at_size", "lift_at_size")}
    return {
        **{
            name: {"value": rounded(value, 4), "low": rounded(low, 4), "high": rounded(high, 4)}
            for name, (value, low, high) in intervals.items()
        },
        "reach": [{"share": point["share"], "found": rounded(point["found"], 4)} for point in evidence.reach],
        "splits": evidence.splits,
    }


def score_audience(champions: Champions, audience: Audience) -> BlockScores:
    """Prepare the rows of an audience: user_id, user_source, one_id, rank, score, as_of, model_version."""
    champion = champions.require(JOB)
    block = _AudienceBlock(identity_columns(champions), audience.rows, audience.scores, champion)
    listed = hashlib.sha256(audience.rows.tobytes() + audience.scores.tobytes()).hexdigest()
    depends_on = {**provenance(champions, champion), "audience": listed}
    return BlockScores(AUDIENCE, len(audience.rows), block, depends_on)


@dataclass(frozen=True)
class _AudienceBlock:
    """Makes the rows of a block of an audience."""

    identity: pa.Table
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    champion: Champion

    def __call__(self, start: int, stop: int) -> pa.Table:
        table = audience_rows(self.identity, self.rows[start:stop], self.scores[start:stop], start)
        moment = provenance_columns(stop - start, self.champion.bundle.as_of, self.champion.version)
        return pa.table([*table.columns, *moment], schema=AUDIENCE)
