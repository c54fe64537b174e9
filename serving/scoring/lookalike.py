"""Lookalike audiences: customers similar to a seed, for single requests and for whole files of ids."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.profiles.snapshot import user_ids_of
from models.lookalike import SeedEvaluation
from qianmian.errors import InvalidRequest
from serving.champions import Champions
from serving.responses import ResponseBody, rounded
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, provenance_columns
from serving.users import resolve_users

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
    users : list of dict
        user_id, user_source, one_id and score, best first.
    known_seeds : int
        Number of seed customers.
    unknown : tuple of str
        Ids of the seed and of the customers to leave out that are no customer of the model.
    evidence : SeedEvaluation or None
        How well hidden halves of the seed are found.
    short_reason : str or None
        Why there are fewer customers than asked for.
    """

    users: list[dict[str, Any]]
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
    """Find the customers most similar to a seed, without the seed, `exclude` and shared accounts.

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
    without_id = np.flatnonzero(champions.customers.user_map.rows(user_ids) < 0)
    shared = champion.bundle.user_map.rows(list(champion.bundle.facts.get("shared_accounts", {})))
    excluded = np.concatenate([left_out.rows, without_id, shared[shared >= 0]])
    rows, scores = model.expand(seeds.rows, size, exclude=np.unique(excluded))
    one_ids = user_ids[rows].tolist()
    users = [
        {"user_id": user_id, "user_source": source, "one_id": one_id, "score": rounded(score)}
        for (user_id, source), one_id, score in zip(
            user_ids_of(champions.customers, one_ids), one_ids, scores.tolist(), strict=True
        )
    ]
    return Audience(
        users,
        len(seeds.rows),
        tuple(dict.fromkeys([*seeds.unknown, *left_out.unknown])),
        model.evidence(seeds.rows, size, splits=EVIDENCE_SPLITS) if with_evidence else None,
        f"all {len(users)} other customers are in the list" if len(users) < size else None,
    )


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
    one_ids = [user.one_id or "" for user in users]
    rows = champions.require(JOB).bundle.user_map.rows(one_ids)
    found = {
        (user.user_id, user.user_source): row if one_id else -1
        for user, one_id, row in zip(users, one_ids, rows.tolist(), strict=True)
    }
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


def audience_table(champions: Champions, audience: Audience) -> pa.Table:
    """Return the audience as a table: user_id, user_source, one_id, rank, score, as_of, model_version."""
    champion = champions.require(JOB)
    users = audience.users
    columns = [pa.array([user[name] for user in users], kind) for name, kind in IDENTITY_COLUMNS]
    columns += [
        pa.array(range(1, len(users) + 1), pa.int32()),
        pa.array([user["score"] for user in users], pa.float64()),
        *provenance_columns(len(users), champion.bundle.as_of, champion),
    ]
    return pa.table(columns, schema=AUDIENCE)
