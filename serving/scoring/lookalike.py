"""Lookalike audiences: customers similar to a seed, for single requests and for whole files of ids."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from features.profiles.tags.chinese import CHINESE
from qianmian.errors import InvalidRequest
from serving.champions import Champion, Champions
from serving.responses import ResponseBody, rounded
from serving.scoring.blocks import BlockScores, provenance
from serving.scoring.excluded_tags import TagExclusions, with_tags
from serving.scoring.lists.columns import TagWords
from serving.scoring.lists.words import Lang, pick
from serving.scoring.tables import IDENTITY_COLUMNS, PROVENANCE, identity_columns, provenance_columns
from serving.scoring.traits import SeedTrait, traits_of
from serving.users import resolve_users

if TYPE_CHECKING:
    from models.lookalike import SeedEvaluation  # imports scikit-learn

JOB = "lookalike"
EVIDENCE_SPLITS = 10  # halves of the seed, all scored in one pass over the customers
MOST_SEEDS = 0.5  # of all customers
SourcedId = tuple[str, str | None]  # user id, and the source that it belongs to, if it is named
AUDIENCE = pa.schema([*IDENTITY_COLUMNS, ("rank", pa.int32()), ("score", pa.float64()), *PROVENANCE])
GROUP = pa.field("group", pa.string())  # contact or control, of an audience with a control group
GROUPS = ("contact", "control")


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
class Exclusions:
    """Whom an audience leaves out.

    Attributes
    ----------
    ids : sequence of (str, str or None)
        User ids, each with its source if it is named.
    tags : mapping of str to sequence
        Tag → values; whoever has one of them is left out. None is an unknown value.
    """

    ids: Sequence[SourcedId] = ()
    tags: TagExclusions = field(default_factory=dict)


@dataclass(frozen=True)
class Audience:
    """Customers similar to a seed.

    Attributes
    ----------
    rows : ndarray of int64, shape (n,)
        Their rows in the profiles, best first.
    scores : ndarray of float64, shape (n,)
        Share of all customers who are not more similar to the seed.
    control : ndarray of bool, shape (n,)
        Who is set aside in the control group.
    known_seeds : int
        Number of seed customers.
    unknown : tuple of str
        Ids of the seed and of the customers to leave out that are no customer of the model.
    evidence : SeedEvaluation or None
        How well hidden halves of the seed are found.
    traits : tuple of SeedTrait
        What sets the seed apart; empty without evidence.
    counts : dict of str to int
        ``considered``, all customers of the model, and where they went: the other counts add up to it.
    short_reason : str or None
        Why there are fewer customers than asked for.
    """

    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    control: NDArray[np.bool_]
    known_seeds: int
    unknown: tuple[str, ...]
    evidence: SeedEvaluation | None
    traits: tuple[SeedTrait, ...]
    counts: dict[str, int]
    short_reason: str | None


def find_audience(
    champions: Champions,
    seed: Sequence[SourcedId],
    *,
    size: int | None = None,
    ratio: float | None = None,
    exclude: Exclusions | None = None,
    control_share: float = 0.0,
    salt: str = "",
    with_evidence: bool = True,
    words: TagWords = CHINESE,
    lang: Lang = "en",
) -> Audience:
    """Find the customers most similar to a seed, without the seed, `exclude`, shared accounts and erased customers.

    Parameters
    ----------
    champions : Champions
        Models and profiles.
    seed : sequence of (str, str or None)
        User ids of the seed customers, each with its source if it is named.
    size : int, optional
        Number of customers, with the control group; default: `ratio` of all, else as many as there are known seed
        customers.
    ratio : float, optional
        Share of all known customers.
    exclude : Exclusions, optional
        Customers to leave out.
    control_share : float
        Probability with which each customer of the audience is in the control group.
    salt : str
        Name of the campaign: with the same one, the same customers are in the control group.
    with_evidence : bool
        Measure how well hidden halves of the seed are found, and say what sets the seed apart.
    words : mapping
        Tag → its Chinese words, for the traits.
    lang : str
        Language of the traits.

    Raises
    ------
    InvalidRequest
        Fewer seed customers are known than `lookalike.minimum_seed`, they are more than half of all customers, a tag is
        unknown, or the exclusions leave nobody.
    """
    champion, exclude = champions.require(JOB), exclude or Exclusions()
    user_ids, model = champion.bundle.user_ids, champion.bundle.model
    seeds, left_out = known_seeds(champions, seed), known_ids(champions, exclude.ids)
    if size is None:
        size = len(seeds.rows) if ratio is None else max(1, round(ratio * len(user_ids)))
    # customers that are not in the profiles have no id that the caller could use
    profile_rows = champions.customers.user_map.rows(user_ids)
    shared = champion.bundle.user_map.rows(list(champion.bundle.facts.get("shared_accounts", {})))
    erased = champion.bundle.user_map.rows(list(champions.live.erased_one_ids() if champions.live is not None else ()))
    with_tag = with_tags(champions, exclude.tags)
    reasons = {
        "seed": seeds.rows,
        "erased": erased[erased >= 0],
        "not_in_profiles": np.flatnonzero(profile_rows < 0),
        "shared_accounts": shared[shared >= 0],
        "excluded_ids": left_out.rows,
        "excluded_tags": np.flatnonzero((profile_rows >= 0) & with_tag[profile_rows]),
    }
    free = np.ones(len(user_ids), dtype=bool)
    counts = {"considered": len(user_ids)}
    for reason, rows in reasons.items():  # each customer is counted under the first reason
        counts[reason] = int(free[rows].sum()) if len(rows) else 0
        free[rows] = False
    if not free.any():
        raise InvalidRequest(
            "nobody is left for the audience",
            got=", ".join(f"{reason} {count}" for reason, count in counts.items() if count),
            field="exclude_tags" if counts["excluded_tags"] else "exclude",
            hint="exclude fewer customers, or give a smaller seed",
        )
    rows, scores = model.expand(seeds.rows, size, exclude=np.flatnonzero(~free))
    control = in_control_group([user_ids[row] for row in rows], control_share, salt)
    counts |= {"contact": int((~control).sum()), "control": int(control.sum())}
    counts["not_chosen"] = int(free.sum()) - len(rows)
    found = profile_rows[rows]
    seed_profiles = profile_rows[seeds.rows]
    return Audience(
        found,
        scores,
        control,
        len(seeds.rows),
        tuple(dict.fromkeys([*seeds.unknown, *left_out.unknown])),
        model.evidence(seeds.rows, size, splits=EVIDENCE_SPLITS) if with_evidence else None,
        tuple(traits_of(champions, seeds.rows, seed_profiles[seed_profiles >= 0], found, words, lang))
        if with_evidence
        else (),
        counts,
        f"all {len(rows)} other customers are in the list" if len(rows) < size else None,
    )


def in_control_group(one_ids: Sequence[str], share: float, salt: str) -> NDArray[np.bool_]:
    """Draw customers for the control group by a hash of their id: the same ones for the same salt, wherever it runs.

    Parameters
    ----------
    one_ids : sequence of str
    share : float
        Probability of each, 0 … 1.
    salt : str
        Name of the campaign; another one draws other customers.

    Examples
    --------
    >>> drawn = in_control_group([f"u{n}" for n in range(1000)], 0.1, "spring")
    >>> bool(70 < drawn.sum() < 130)
    True
    """
    if share == 0.0:
        return np.zeros(len(one_ids), dtype=bool)
    digests = b"".join(hashlib.sha256(f"{salt}\0{one_id}".encode()).digest()[:8] for one_id in one_ids)
    return np.asarray(np.frombuffer(digests, dtype=">u8") / 2.0**64 < share)


def audience_users(champions: Champions, audience: Audience) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Return user_id, user_source, one_id and score of the customers to contact and of the control group."""
    table = audience_rows(identity_columns(champions), audience.rows, audience.scores, 0).drop_columns("rank")
    return table.filter(pa.array(~audience.control)).to_pylist(), table.filter(pa.array(audience.control)).to_pylist()


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
        If fewer of them are known than `lookalike.minimum_seed`, or they are more than half of all customers.
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
    most = int(MOST_SEEDS * len(champions.require(JOB).bundle.user_ids))
    if len(seeds.rows) > most:
        raise InvalidRequest(
            "the seed is more than half of all customers, so there is nothing to compare it with",
            got=f"{len(seeds.rows)} seed customers",
            allowed=f"at most {most}",
            field="seed_user_ids",
            hint="give the customers that matter most, such as the best tenth",
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
    """Return the evidence as JSON-compatible data."""
    intervals = {name: getattr(evidence, name) for name in ("auc", "recall_at_size", "lift_at_size")}
    return {
        **{
            name: {"value": rounded(value, 4), "low": rounded(low, 4), "high": rounded(high, 4)}
            for name, (value, low, high) in intervals.items()
        },
        "chance_auc": rounded(evidence.chance_auc, 4),
        "separable": evidence.separable,
        "meaning": separability_words(evidence),
        "reach": [{name: rounded(value, 4) for name, value in point.items()} for point in evidence.reach],
        "splits": evidence.splits,
    }


def separability_words(evidence: SeedEvaluation, lang: Lang = "en") -> str:
    """Say what the AUC of hidden seeds means."""
    auc = evidence.auc[0]
    if not evidence.separable:
        return pick(
            lang,
            f"the seed does not differ from the other customers: a hidden seed customer ranks above {auc:.0%} of them, "
            f"and up to {evidence.chance_auc:.0%} is chance; nothing shows that the audience beats a random one",
            f"种子人群与其他客户没有差别：隐藏的种子客户平均排在 {auc:.0%} 的客户之前，"
            f"{evidence.chance_auc:.0%} 以内属于偶然；没有证据表明扩展人群好于随机选取",
        )
    return pick(
        lang,
        f"a hidden seed customer ranks above {auc:.0%} of the other customers on average; 50% is chance",
        f"隐藏的种子客户平均排在 {auc:.0%} 的其他客户之前，50% 为随机水平",
    )


def score_audience(champions: Champions, audience: Audience, *, with_groups: bool = False) -> BlockScores:
    """Prepare the rows of an audience: user_id, user_source, one_id, rank, score, as_of, model_version.

    Parameters
    ----------
    with_groups : bool
        Add the column `group`: contact or control.
    """
    champion = champions.require(JOB)
    groups = np.array(GROUPS)[audience.control.astype(int)] if with_groups else None
    block = _AudienceBlock(identity_columns(champions), audience.rows, audience.scores, groups, champion)
    listed = hashlib.sha256(audience.rows.tobytes() + audience.scores.tobytes())
    if with_groups:
        listed.update(audience.control.tobytes())
    depends_on = {**provenance(champions, champion), "audience": listed.hexdigest()}
    return BlockScores(block.schema, len(audience.rows), block, depends_on)


@dataclass(frozen=True)
class _AudienceBlock:
    """Makes the rows of a block of an audience."""

    identity: pa.Table
    rows: NDArray[np.int64]
    scores: NDArray[np.float64]
    groups: NDArray[np.str_] | None
    champion: Champion

    @property
    def schema(self) -> pa.Schema:
        """With the column `group` before those of the provenance, where there are groups."""
        return AUDIENCE if self.groups is None else AUDIENCE.insert(len(AUDIENCE) - len(PROVENANCE), GROUP)

    def __call__(self, start: int, stop: int) -> pa.Table:
        table = audience_rows(self.identity, self.rows[start:stop], self.scores[start:stop], start)
        if self.groups is not None:
            table = table.append_column(GROUP, pa.array(self.groups[start:stop].tolist(), pa.string()))
        moment = provenance_columns(stop - start, self.champion.bundle.as_of, self.champion.version)
        return pa.table([*table.columns, *moment], schema=self.schema)
