"""Two-stage recommender: several models generate candidates, and gradient-boosted trees rank them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from features.interaction_types import EVENT_WEIGHTS, PURCHASE
from features.interactions import INTERACTION_FIELDS, INTERACTION_TYPES, Interactions, TrainingSet
from features.promotions import ItemPromotions
from models.parallel import thread_budget
from models.persist import Arrays
from models.ranked import NOT_A_CANDIDATE
from models.recommend.base import Choice, Indices, Query, Range, Recommender
from models.recommend.cost import n_lines
from models.recommend.fit_cache import fit_cached
from models.recommend.ranking.boosters import OBJECTIVES, Boosters, check_features
from models.recommend.ranking.candidate_model import CandidateRecommender
from models.recommend.ranking.candidates import StageLists, stage_features
from models.recommend.ranking.examples import ExampleSampler
from models.recommend.ranking.features import FEATURES, features
from models.recommend.ranking.histories import Histories, lines_now, lines_of
from models.recommend.ranking.item_statistics import ItemStatistics, item_statistics
from models.recommend.ranking.promotions import (
    PlannedPromotions,
    promotion_columns,
    promotion_feature_names,
    promotion_kinds,
)
from models.recommend.ranking.type_features import TypedInteractions, type_columns, type_feature_names
from models.recommend.repeat import OwnEventsRecommender, RepeatPurchaseRecommender
from models.recommend.single_stage import SINGLE_STAGE
from models.recommend.submodels import load_submodels, save_submodels
from models.user_arrays import UserLines, UserRows
from qianmian.errors import UsageError

Stages = Sequence[tuple[str, Mapping[str, Any], int]]
DEFAULT_STAGES: Mapping[str, Stages] = {
    "any": (("repeat", {}, 60), ("popular", {"window_days": 28.0}, 20), ("ials", {}, 30)),
    "new": (("ials", {}, 60), ("affinity", {}, 40), ("popular", {"window_days": 28.0}, 40)),
}
# of training sets with several types of interaction, after those of the target
TYPED_STAGES: Stages = (
    ("own_events", {"half_life_days": 2.0}, 60),
    ("item_knn", {"half_life_days": 7.0, "count_power": 1.0, "type_weights": EVENT_WEIGHTS}, 30),
)
# the values cached with a training set (`TrainingSet.memoize`) that rankers of a later cutoff read
SHARED_BY_RANKERS = frozenset(
    {"earlier cutoff", "ranking examples", "item statistics", "typed interactions", "histories", "planned promotions"}
    | {name for stages in (*DEFAULT_STAGES.values(), TYPED_STAGES) for name, _, _ in stages}
)
DEFAULT_OBJECTIVES = ("binary:logistic", "rank:ndcg")
DEFAULT_TREES = {"any": (100, 0.11), "new": (70, 0.16)}  # target → rounds and learning rate
LATEST_ALONE = {"any": True, "new": False}  # target → default of `latest_alone`


class TwoStageRecommender(CandidateRecommender):
    """Ranks the union of the candidates of its stages by XGBoost (Chen & Guestrin 2016).

    The model generates its own training examples. The history is cut at 1, 2, … times `horizon_days` before its end;
    the stages and all features are computed from the data before a cutoff, and the purchases in the `horizon_days`
    after it are the labels. The final model uses stages and statistics of the whole history.

    Items outside the union are not candidates, so a list may have fewer than k items; a user without history gets no
    list. For users with interactions after the fit (`recent_interactions`), the features of the user are computed
    again; the statistics of the items stay.

    Profile attributes are not used, because they exist only at `as_of` and not at the earlier cutoffs.

    `next_basket` instead of `ials` changed NDCG@10 on Complete Journey by −.0024, −.0002, +.0005 and +.0048 in the four
    weeks before 1 October, 1 and 15 November and 1 December: no consistent gain for twice the latency.

    Parameters
    ----------
    target : {"any", "new"}
        Predict the next purchases, or only first purchases of an item; "new" then ranks only items that the user has
        not bought.
    stages : sequence of (str, dict, int), optional
        Name, parameters and number of candidates of each stage; by default `DEFAULT_STAGES` of the target
        and, where there are several types of interaction, `TYPED_STAGES`.
    stage_parameters : mapping of str to dict, optional
        Parameters of the models of the stages, by name, where `stages` does not set them.
    horizon_days : float
        Length of the label period after a cutoff in days.
    cuts : int
        Number of cutoffs, one horizon apart; fewer if the history is short.
    users_per_cut : int
        Largest number of users per cutoff; more are sampled. NDCG@10 of November on Complete Journey, with 250, 500,
        1,000 and 2,000 (all) users: .427, .431, .435 and .437; another seed with all users changes it by .002.
    negatives_per_positive : float
        Largest number of negatives per positive; more are sampled and weighted. First purchases of Complete Journey
        have 49 negatives per positive. NDCG@10 of October on Complete Journey (two seeds) with 5, 3 and 2 of them:
        .4331, .4332 and .4316 (±.0015).
    objectives : sequence of {"binary:logistic", "rank:ndcg", "rank:pairwise"}
        Objectives of XGBoost. For each, a ranker is trained on the same examples, and their scores are averaged
        (`Boosters`). A ranking objective ignores the weights of the sampled negatives.
    rounds, learning_rate : int and float, optional
        As in XGBoost; by default `DEFAULT_TREES` of the target. For `any`, 140 trees with a rate of
        .08 gain less than the noise of Complete Journey (ADR 0030).
    depth, min_child_weight, subsample, column_share, bins
        As in XGBoost. NDCG@10 of October on Complete Journey (three seeds): 100 trees of depth 6 with a rate of .12
        have .4329, 70 of depth 5 with .16 have .4333 (+.0004 ± .0011) in two thirds of the time.
    latest_alone : bool, optional
        Whether each objective also trains a ranker on the examples of the latest cutoff alone, whose scores are
        averaged with those of the others; by default `LATEST_ALONE` of the target. Earlier cutoffs are more data, but
        of other weeks (ADR 0030). With a single cutoff, or too few positives at the latest, there are none.
    n_jobs : int or None
        Threads of XGBoost; None uses the thread budget. With one thread, the same seed gives the same booster; with
        several, sums in another order change about one position in a thousand.
    seed : int
        Seed of the sampling and of the trees.

    Attributes
    ----------
    boosters_ : Boosters
        The rankers.
    models_ : tuple of Recommender
        The fitted stages.
    typed_ : TypedInteractions or None
        Interactions of all types, for the features by type; None if there is only one type.
    promotions_ : PlannedPromotions or None
        Promotions of the items, past and planned; None for a training set without promotions.
    """

    name: ClassVar[str] = "two_stage"
    user_arrays = (
        *CandidateRecommender.user_arrays,
        UserLines("lines_users", tuple(f"lines_{name}" for name in INTERACTION_FIELDS if name != "users")),
        UserLines("typed_users", tuple(f"typed_{name}" for name in ("items", "age_days", "types", "visits"))),
        UserRows("promotions_response"),
    )
    supports_fold_in: ClassVar[bool] = True
    search_space: ClassVar[Mapping[str, Range | Choice]] = {
        "rounds": Range(50, 300),
        "learning_rate": Range(0.03, 0.2, log=True),
        "depth": Range(4, 8),
        "min_child_weight": Range(5.0, 100.0, log=True),
        "cuts": Range(1, 5),
    }

    typed_: TypedInteractions | None = None
    promotions_: PlannedPromotions | None = None

    def __init__(
        self,
        target: str = "any",
        stages: Stages | None = None,
        stage_parameters: Mapping[str, Mapping[str, Any]] | None = None,
        horizon_days: float = 28.0,
        cuts: int = 2,
        users_per_cut: int = 4_000,
        negatives_per_positive: float = 3.0,
        objectives: Sequence[str] = DEFAULT_OBJECTIVES,
        rounds: int | None = None,
        learning_rate: float | None = None,
        depth: int = 5,
        min_child_weight: float = 20.0,
        subsample: float = 0.6,
        column_share: float = 0.4,
        bins: int = 64,
        latest_alone: bool | None = None,
        n_jobs: int | None = None,
        seed: int = 0,
    ) -> None:
        self.target, self.stages, self.stage_parameters = target, stages, stage_parameters
        self.horizon_days = horizon_days
        self.cuts, self.users_per_cut, self.negatives_per_positive = cuts, users_per_cut, negatives_per_positive
        usual_rounds, usual_rate = DEFAULT_TREES.get(target, DEFAULT_TREES["any"])  # fitting checks the target
        self.rounds = usual_rounds if rounds is None else rounds
        self.learning_rate = usual_rate if learning_rate is None else learning_rate
        self.objectives, self.depth = tuple(objectives), depth
        self.min_child_weight, self.subsample = min_child_weight, subsample
        self.column_share, self.bins = column_share, bins
        self.latest_alone = LATEST_ALONE.get(target, False) if latest_alone is None else latest_alone
        self.n_jobs, self.seed = n_jobs, seed

    # ---- fitting -------------------------------------------------------------------------------------------------

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        lists = (self.cuts + (self.latest_alone and self.cuts > 1)) * min(self.users_per_cut, train.n_users)
        stages = sum(SINGLE_STAGE[name](**params).estimated_cpu_seconds(train) for name, params, _ in self._stages)
        # trees and bins of the candidates of a list, and the statistics of all interactions at each cutoff
        trees = self.rounds * len(self.objectives)
        return 3e-3 * lists * trees / 150 + (self.cuts + 1) * (stages + 3e-7 * n_lines(train))

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        lists = self.cuts * min(self.users_per_cut, train.n_users)
        return 100_000 * lists + 60 * n_lines(train)

    def _fit(self, train: TrainingSet) -> None:
        self._check_parameters()
        self.typed_, self.data_target_ = TypedInteractions.of(train), train.target
        if (kinds := promotion_kinds(train)) is not None:
            self.promotions_ = train.memoize(
                ("planned promotions", kinds), lambda: PlannedPromotions.of(train.promotions, kinds, train.interactions)
            )
        trees = {
            "eta": self.learning_rate,
            "max_depth": self.depth,
            "max_bin": self.bins,
            "min_child_weight": self.min_child_weight,
            "subsample": self.subsample,
            "colsample_bytree": self.column_share,
            "seed": self.seed,
            "nthread": thread_budget() if self.n_jobs is None else self.n_jobs,
        }
        from models.recommend.ranking.boosting import fit_boosters  # imports XGBoost, which a server does not need

        samples = self._sampler().samples(train, self.latest_alone)
        boosters = fit_boosters(samples, self._feature_names(), self.objectives, self.rounds, trees)
        self.boosters_ = replace(boosters, threads=self.n_jobs)
        del samples
        self.models_ = self._fitted_stages(train)
        self.lines_, self.statistics_ = train.interactions, item_statistics(train)
        self._set_starts()

    def _check_parameters(self) -> None:
        if self.target not in DEFAULT_STAGES:
            raise UsageError("unknown target", where=self.name, got=self.target, allowed=", ".join(DEFAULT_STAGES))
        unknown = [name for name in self.objectives if name not in OBJECTIVES]
        if unknown or not self.objectives:
            got = ", ".join(unknown) or "none"
            raise UsageError("unknown objective", where=self.name, got=got, allowed=", ".join(OBJECTIVES))

    def _sampler(self) -> ExampleSampler:
        return ExampleSampler(
            target=self.target,
            horizon_days=self.horizon_days,
            cuts=self.cuts,
            users_per_cut=self.users_per_cut,
            negatives_per_positive=self.negatives_per_positive,
            seed=self.seed,
            fit_stages=self._fitted_stages,
            widths=self._widths,
            from_history=self._from_history,
            types=self._types,
            promotion_kinds=None if self.promotions_ is None else self.promotions_.kinds,
            stages=json.dumps(self._stages, sort_keys=True, default=str),
        )

    def _fitted_stages(self, train: TrainingSet) -> tuple[Recommender, ...]:
        return tuple(fit_cached(SINGLE_STAGE[name](**params), train) for name, params, _ in self._stages)

    def unfitted_stages(self) -> tuple[Recommender, ...]:
        """The models of all stages that the ranker may have, whatever types of interaction there are."""
        return tuple(SINGLE_STAGE[name](**params) for name, params, _ in self._stages_of(several_types=True))

    @property
    def _stages(self) -> Stages:
        return self._stages_of(several_types=bool(self._types))

    def _stages_of(self, *, several_types: bool) -> Stages:
        stages = self.stages
        if stages is None:
            stages = (*DEFAULT_STAGES[self.target], *(TYPED_STAGES if several_types else ()))
        given = self.stage_parameters or {}
        return tuple((name, {**given.get(name, {}), **params}, width) for name, params, width in stages)

    @property
    def _types(self) -> tuple[int, ...]:
        """The types of interaction that have features; empty if the training set has only one."""
        return () if self.typed_ is None else self.typed_.present

    @property
    def auxiliary_types(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([INTERACTION_TYPES[code] for code in self._types]))

    @property
    def reads_promotions(self) -> bool:
        return self.promotions_ is not None or super().reads_promotions

    def update_promotions(self, promotions: ItemPromotions | None) -> None:
        super().update_promotions(promotions)
        if self.promotions_ is not None:
            self.promotions_ = replace(self.promotions_, promotions=promotions)

    @property
    def _widths(self) -> list[int]:
        return [width for _, _, width in self._stages]

    @property
    def _from_history(self) -> list[bool]:
        own = (RepeatPurchaseRecommender.name, OwnEventsRecommender.name)
        return [name in own for name, _, _ in self._stages]

    @property
    def _ranks_new_only(self) -> bool:
        return self.target == "new"

    def _feature_names(self) -> list[str]:
        return [
            *FEATURES,
            *(type_feature_names(self._types) if self._types else ()),
            *(() if self.promotions_ is None else promotion_feature_names(self.promotions_.kinds)),
            *(
                f"{level}_{name}_{what}"
                for level, (name, _, _) in enumerate(self._stages)
                for what in ("score", "rank")
            ),
        ]

    def _has_history(self, query: Query) -> NDArray[np.bool_]:
        interacted = super()._has_history(query)
        if self.typed_ is not None:
            known = query.users >= 0
            interacted[known] |= np.diff(self.typed_.starts)[query.users[known]] > 0
        return interacted

    def _set_starts(self) -> None:
        self.user_starts_ = np.searchsorted(self.lines_.users, np.arange(self.n_users_ + 1))

    # ---- ranking -------------------------------------------------------------------------------------------------

    def _candidate_scores(self, query: Query, ids: Indices, lists: StageLists) -> NDArray[np.float32]:
        scores = np.full(ids.shape, NOT_A_CANDIDATE, dtype=np.float32)
        rows, places = np.nonzero(ids >= 0)
        if not len(rows):
            return scores
        wanted = ids[rows, places].astype(np.int64)
        columns = stage_features(self.models_, self._widths, query, ids, lists)[rows, places]
        by_type = type_columns(self.typed_, query, self.data_target_, self.statistics_.codes, rows, wanted)
        promoted = promotion_columns(self.promotions_, query.users[rows], wanted, query.elapsed_days)
        X = np.concatenate([self._features(query, rows, wanted), by_type, promoted, columns], axis=1)
        scores[rows, places] = self.boosters_.scores(X)
        return scores

    def _features(self, query: Query, rows: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.float32]:
        def of_lines(lines: Interactions, row: NDArray[np.int64], items: NDArray[np.int64]) -> NDArray[np.float32]:
            return features(Histories.of(lines, self.statistics_.codes), self.statistics_, row, items)

        changed = query.changed_rows(auxiliary=bool(self._types))
        if not len(changed):
            return of_lines(lines_of(self.lines_, self.user_starts_, query.users), rows, ids)
        place = np.full(len(query), -1, dtype=np.int64)
        place[changed] = np.arange(len(changed))
        is_changed = place[rows] >= 0
        table = np.empty((len(rows), len(FEATURES)), dtype=np.float32)
        if not is_changed.all():
            unchanged = lines_of(self.lines_, self.user_starts_, query.users)
            table[~is_changed] = of_lines(unchanged, rows[~is_changed], ids[~is_changed])
        now = lines_now(self.lines_, self.user_starts_, query, changed)
        table[is_changed] = of_lines(now, place[rows[is_changed]], ids[is_changed])
        return table

    # ---- persistence ---------------------------------------------------------------------------------------------

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of the stages; `candidates.merge_candidates` determines the source of an item."""
        return tuple(name for name, _, _ in self._stages)

    def get_params(self) -> dict[str, Any]:
        stages = None if self.stages is None else [[name, dict(params), width] for name, params, width in self.stages]
        return {**super().get_params(), "stages": stages, "objectives": list(self.objectives)}

    def save(self, folder: Path) -> None:
        super().save(folder)
        self.boosters_.save(folder)
        save_submodels(self.models_, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        check_features(folder)
        model = super().load(folder)
        model.boosters_ = Boosters.load(folder, model.scales_, reads_gaps=model.reads_gaps_, threads=model.n_jobs)
        model.boosters_.check_names(model._feature_names(), folder)
        model.models_ = load_submodels([name for name, _, _ in model._stages], SINGLE_STAGE, folder)
        return model

    def _state(self) -> Arrays:
        lines = {name: getattr(self.lines_, name) for name in INTERACTION_FIELDS}
        return {
            **{f"lines_{name}": column for name, column in lines.items() if column is not None},
            **self.statistics_.state(),
            **({} if self.typed_ is None else self.typed_.state()),
            **({} if self.promotions_ is None else self.promotions_.state()),
            "data_target": np.asarray(self.data_target_),
            "scales": self.boosters_.scales,
            "reads_gaps": np.asarray(self.boosters_.reads_gaps),
        }

    def _restore(self, state: Arrays) -> None:
        columns = {name: state[f"lines_{name}"] for name in INTERACTION_FIELDS if f"lines_{name}" in state}
        self.lines_ = Interactions(**columns, shape=(self.n_users_, self.n_items_))
        self._set_starts()
        self.typed_ = TypedInteractions.restored(state, self.n_users_)
        self.promotions_ = PlannedPromotions.restored(state, self.n_items_)
        self.data_target_ = str(state.get("data_target", PURCHASE))
        self.scales_, self.reads_gaps_ = state["scales"], bool(state.get("reads_gaps", True))
        self.statistics_ = ItemStatistics.restored(state)
