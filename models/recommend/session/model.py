"""What a customer does next: own events of every type, visits of others, transitions, categories and popularity."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from features.interactions import INTERACTION_TYPES, TrainingSet
from models.persist import Arrays
from models.recommend.base import Query, entry_positions
from models.recommend.choice_models import fit_conditional_logit
from models.recommend.session.examples import MOST_EXAMPLES, SessionExamples, period_examples, visit_examples
from models.recommend.session.features import MOST_ENTRIES, SessionStatistics
from models.recommend.session.trails import TRAIL_ARRAYS, Trails, auxiliary_kinds, untyped_kind
from models.recommend.sparse_scores import SparseScoresRecommender
from qianmian.errors import DataError, UsageError

RIDGE = 3.0
MOST_MET = 10  # an example with more items met counts as this many, as a list of ten does
BLOCK_ROWS = 200  # rows whose candidates are in memory at a time
PREDICTS = ("any", "target")
Floats = NDArray[np.float64]


class SessionRecommender(SparseScoresRecommender):
    """Ranks what a customer will meet next by a conditional logit (McFadden 1974) over candidates.

    Candidates are the customer's own items, the items that others met in the same visits and right after them, popular
    items of their categories, and popular items. Features are own entries by type, decayed with several half-lives, and
    the strengths of these links. Weights are learnt on earlier moments of the data, with links learnt from what was
    older, so that the half-lives and the blend are those that predict best.

    Parameters
    ----------
    horizon_days : float or None
        The list is for the rest of this visit (None), or for the next days.
    predicts : {"any", "target"}
        Whether any interaction counts as met, or only those of the target, such as purchases.
    seed : int
        Seed of the choice of examples.

    Raises
    ------
    UsageError
        A parameter is out of its range.
    DataError
        There are no examples to learn from.
    """

    name: ClassVar[str] = "session"
    user_arrays = (*SparseScoresRecommender.user_arrays, TRAIL_ARRAYS)
    supports_fold_in: ClassVar[bool] = True
    supports_cold: ClassVar[bool] = True
    returns_partial_lists: ClassVar[bool] = True
    needs_several_types: ClassVar[bool] = True

    def __init__(self, horizon_days: float | None = None, predicts: str = "any", seed: int = 0) -> None:
        self.horizon_days, self.predicts, self.seed = horizon_days, predicts, seed

    @property
    def auxiliary_types(self) -> tuple[str, ...]:
        return tuple(INTERACTION_TYPES[code] for code in self.types_.tolist())

    def estimated_cpu_seconds(self, train: TrainingSet) -> float:
        """Estimate the CPU seconds of a fit: links of a bounded number of entries, and of a bounded number of examples.

        Measured on 400,000 and 1.6 million entries; the cutoffs of a period cost more than the one of the visits.
        """
        entries = len(train.interactions) + (0 if train.auxiliary is None else len(train.auxiliary))
        return (1.0 if self.horizon_days is None else 8.0) + 5e-6 * min(entries, MOST_ENTRIES)

    def estimated_peak_bytes(self, train: TrainingSet) -> int:
        """Estimate the memory of a fit in bytes, most of which are the features of the examples."""
        entries = len(train.interactions) + (0 if train.auxiliary is None else len(train.auxiliary))
        return int(1.2e9 + 150.0 * entries)

    def _fit(self, train: TrainingSet) -> None:
        if self.predicts not in PREDICTS or not (self.horizon_days is None or self.horizon_days > 0):
            raise UsageError(
                "session: unknown aim",
                got=f"predicts={self.predicts}, horizon_days={self.horizon_days}",
                allowed=f"predicts: {', '.join(PREDICTS)}; horizon_days: None or a number above 0",
            )
        trails, category = Trails.of_training(train), _category_codes(train.item_attributes["category"])
        self.types_ = auxiliary_kinds(train)
        rng = np.random.default_rng(self.seed)
        if self.horizon_days is None:
            examples = visit_examples(trails, rng)
        else:
            target = None if self.predicts == "any" else _target_types(train)
            examples = period_examples(trails, self.horizon_days, target, rng)
        self.weights_ = _learn(examples, trails, category)
        self.statistics_ = SessionStatistics.of(trails, category)
        self.trails_, self.untyped_ = trails.newest(), untyped_kind(train)

    def _score_candidates(self, query: Query) -> sparse.csr_matrix:
        blocks = []
        for chosen, columns in _in_blocks(self.statistics_, self.trails_.of_query(query, self.untyped_)):
            chosen.data = (columns @ self.weights_).astype(np.float32)
            blocks.append(chosen)
        return sparse.vstack(blocks, format="csr")

    def _cells_per_user(self, k: int) -> int:
        return 4 * k + 1_000

    def _state(self) -> Arrays:
        return {**self.statistics_.state(), **self.trails_.state(), **self._learnt()}

    def _learnt(self) -> Arrays:
        return {"weights": self.weights_, "types": self.types_, "untyped": np.array(self.untyped_)}

    def _restore(self, state: Arrays) -> None:
        self.statistics_, self.trails_ = SessionStatistics.restore(state), Trails.restore(state, self.n_items_)
        self.weights_, self.types_, self.untyped_ = state["weights"], state["types"], int(state["untyped"])


def _in_blocks(statistics: SessionStatistics, trails: Trails) -> Iterator[tuple[sparse.csr_matrix, Floats]]:
    """Yield `SessionStatistics.candidates` of blocks of rows, so that the memory does not grow with the rows."""
    n, n_items = trails.shape
    for start in range(0, n, BLOCK_ROWS) or (0,):
        stop = min(start + BLOCK_ROWS, n)
        part = trails.where(np.arange(*np.searchsorted(trails.rows, [start, stop])))
        shape = (stop - start, n_items)
        yield statistics.candidates(Trails(part.rows - start, part.items, part.ages, part.kinds, shape))


def _learn(examples: Iterator[SessionExamples], trails: Trails, category: NDArray[np.int64]) -> Floats:
    """Weights of the features; those of standardised features are shrunk to 0."""
    columns, groups, chosen, count = [], [], [], 0
    for found in examples:
        statistics, start = SessionStatistics.of(trails.before(found.days), category), 0
        for candidates, values in _in_blocks(statistics, found.trails.newest()):
            truth = found.truth[start : start + candidates.shape[0]]
            start += candidates.shape[0]
            rows = np.repeat(np.arange(candidates.shape[0]), np.diff(candidates.indptr))
            met = np.zeros(candidates.nnz, dtype=bool)
            place = entry_positions(candidates, _padded(truth))
            met[place[place >= 0]] = True
            useful = np.isin(rows, rows[met])  # an example none of whose candidates were met tells nothing
            number = np.unique(rows[useful], return_inverse=True)[1]
            columns.append(values[useful])
            groups.append(number + count)
            chosen.append(met[useful])
            count += int(number.max(initial=-1)) + 1
        if count >= MOST_EXAMPLES:
            break
    if not count:
        raise DataError(
            "there are no earlier visits to learn from",
            where="session",
            got="no customer met one of the candidates after an earlier moment",
            hint="ingest events with item ids and times, or a longer history",
        )
    x = np.concatenate(columns)
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread[spread < 1e-6] = np.inf  # a feature that is constant gets no weight
    of, met = np.concatenate(groups), np.concatenate(chosen)
    counts = np.maximum(np.bincount(of, met), 1.0)[of]
    weights = fit_conditional_logit(
        (x - mean) / spread, of, met * np.minimum(MOST_MET / counts, 1.0), np.zeros(x.shape[1]), RIDGE
    )
    return np.asarray(weights / spread, dtype=np.float64)


def _padded(matrix: sparse.csr_matrix) -> NDArray[np.int64]:
    """Columns of the stored entries of each row, (n, most entries), −1 past the end."""
    lengths = np.diff(matrix.indptr)
    padded = np.full((len(lengths), int(lengths.max(initial=0))), -1, dtype=np.int64)
    padded[np.arange(padded.shape[1]) < lengths[:, None]] = matrix.indices
    return padded


def _target_types(train: TrainingSet) -> NDArray[np.int8]:
    """Codes of the types of the target."""
    types = train.interactions.types
    if types is not None:
        return np.unique(types).astype(np.int8)
    return np.array([untyped_kind(train)], dtype=np.int8)


def _category_codes(category: NDArray[np.str_]) -> NDArray[np.int64]:
    """A code for each item; items without a category have one code each, so that they have nothing in common."""
    codes = np.unique(category, return_inverse=True)[1].astype(np.int64)
    unknown = category == ""
    codes[unknown] = codes.max(initial=-1) + 1 + np.arange(int(unknown.sum()))
    return np.unique(codes, return_inverse=True)[1].astype(np.int64)
