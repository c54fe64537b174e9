"""Clocks of single purchases: pooled where the history is short, reset by a purchase, run down when the habit has ended."""

from __future__ import annotations

import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from features.interactions import Interactions, TrainingSet
from models.recommend.query import Query
from models.recommend.replenish.calibration import calibrate, fit_calibration
from models.recommend.replenish.history import PurchaseDays, PurchaseHistory, PurchaseIntervals
from models.recommend.replenish.model import ReplenishRecommender
from models.recommend.replenish.repurchase import CyclePriors, PopulationPriors, RepurchaseModel, shrink_means
from qianmian.errors import DataError


def lines(users, items, ages, shape, quantities=None) -> Interactions:
    m = len(users)
    return Interactions(
        np.array(users, np.int32),
        np.array(items, np.int32),
        np.array(ages, np.float32),
        np.ones(m, np.float32),
        shape,
        quantities=None if quantities is None else np.array(quantities, np.float32),
    )


def town(
    seed: int = 0, n_users: int = 150, n_items: int = 12, days: int = 200, spread: float = 0.25, ends: float = 0.1
) -> TrainingSet:
    """Customers who buy items at log-normal intervals of 5 to 40 days by the item, and one time in ten never again."""
    rng = np.random.default_rng(seed)
    cycles = np.linspace(5, 40, n_items)
    users, items, ages = [], [], []
    for user in range(n_users):
        for item in rng.choice(n_items, 4, replace=False).tolist():
            day = rng.uniform(0, 60)
            while day < days:
                users.append(user)
                items.append(item)
                ages.append(days - day)
                if rng.random() < ends:
                    break
                day += cycles[item] * np.exp(rng.normal(0, spread))
    made = TrainingSet.from_arrays(
        np.array(users), np.array(items), n_users=n_users, n_items=n_items, age_days=np.array(ages)
    )
    return replace(
        made, item_attributes={**made.item_attributes, "category": np.array([f"c/{i % 3}" for i in range(n_items)])}
    )


@pytest.fixture(scope="module")
def shop() -> TrainingSet:
    return town()


@pytest.fixture(scope="module")
def model(shop) -> ReplenishRecommender:
    return ReplenishRecommender(horizon_days=7).fit(shop)


def chances(model: ReplenishRecommender, user: int, **given) -> dict[int, float]:
    ranked = model.recommend([user], model.n_items_, **given)
    return dict(
        zip(ranked.ids[0, : ranked.valid[0]].tolist(), ranked.scores[0, : ranked.valid[0]].tolist(), strict=True)
    )


def test_what_is_due_comes_before_what_was_just_bought():
    """Both items are bought as often; own counts prefer the one of yesterday."""
    users = np.repeat(np.arange(40), 12)
    ages = np.tile(np.concatenate([np.arange(6) * 20 + 19.5, np.arange(6) * 20 + 1.5]), 40)
    train = TrainingSet.from_arrays(users, np.tile(np.repeat([0, 1], 6), 40), n_users=40, n_items=2, age_days=ages)
    model = ReplenishRecommender(horizon_days=5, snapshots=0).fit(train)
    assert model.recommend([3], 2).ids.tolist() == [[0, 1]]
    assert chances(model, 3)[0] > 5 * chances(model, 3)[1]


def test_it_is_told_when_it_is_due():
    train = TrainingSet.from_arrays(
        np.zeros(5), np.zeros(5), n_users=1, n_items=1, age_days=np.array([26.3, 50.3, 74.3, 98.3, 122.3])
    )
    facts = ReplenishRecommender().fit(train).evidence(0, 0)
    assert facts["times"] == 5
    assert facts["last_days"] == pytest.approx(26.3)
    assert facts["cycle_days"] == pytest.approx(24, abs=0.1)
    assert facts["expected_in_days"] == pytest.approx(-2.3, abs=0.1)  # overdue


def test_no_evidence_of_what_was_never_had(model, shop):
    had = set(shop.interactions.items[shop.interactions.users == 0].tolist())
    never = next(item for item in range(shop.n_items) if item not in had)
    assert model.evidence(0, never) is None
    assert np.isnan(model.expected_days(np.array([0]), np.array([never])))[0]
    assert never not in chances(model, 0)


def test_who_bought_once_has_the_cycle_of_the_item(model, shop):
    """Not their own, and close to the truth; the more gaps, the more is their own."""
    true = np.linspace(5, 40, shop.n_items)
    once = [
        (user, item)
        for user in range(shop.n_users)
        for item in range(shop.n_items)
        if (facts := model.evidence(user, item)) and facts["times"] == 1
    ]
    assert len(once) > 20
    for user, item in once:
        facts = model.evidence(user, item)
        assert not facts["own_cycle"]
        assert facts["cycle_days"] == pytest.approx(true[item], rel=0.25)
    own = np.array([model.own_[model.times_ == n].mean() for n in (1, 3, 8)])
    assert own[0] == 0.0
    assert (np.diff(own) > 0).all()


def test_an_item_nobody_had_twice_has_the_cycle_of_its_category():
    users, items, ages = [], [], []
    for user in range(
        30
    ):  # milk every 7 days, in category a; soap every 60, in category b; new milk and new soap once each
        for item, cycle, times in ((0, 7, 12), (1, 60, 3), (2, 7, 1), (3, 60, 1)):
            users += [user] * times
            items += [item] * times
            ages += (np.arange(times) * cycle + 1.5 + user % 5).tolist()
    made = TrainingSet.from_arrays(np.array(users), np.array(items), n_users=30, n_items=4, age_days=np.array(ages))
    made = replace(made, item_attributes={**made.item_attributes, "category": np.array(["a", "b", "a", "b"])})
    model = ReplenishRecommender().fit(made)
    assert model.evidence(0, 2)["cycle_days"] == pytest.approx(7, rel=0.2)
    assert model.evidence(0, 3)["cycle_days"] == pytest.approx(60, rel=0.2)


def test_the_chance_rises_until_it_is_due_and_falls_after():
    """What is overdue does not stay first for ever: the habit has ended."""
    repurchase_model = RepurchaseModel(np.array([np.log(20.0)]), np.array([0.4]), np.ones(1), np.array([0.1]))
    curve = np.array(
        [
            repurchase_model.purchase_probability(np.array([day]), 7.0)[0]
            for day in (1.0, 8.0, 16.0, 24.0, 40.0, 80.0, 300.0)
        ]
    )
    best = int(np.argmax(curve))
    assert 1 < best < 5
    assert (np.diff(curve[: best + 1]) > 0).all()
    assert (np.diff(curve[best:]) < 0).all()
    assert curve[-1] < 0.01


@settings(max_examples=60, deadline=None)
@given(
    cycle=st.floats(0.0, 6.0),
    spread=st.floats(0.1, 2.0),
    dropout_probability=st.floats(0.001, 0.999),
    quiet=st.floats(0.5, 3000.0),
    horizon=st.floats(1.0, 90.0),
)
def test_chances_are_those_of_the_mixture(cycle, spread, dropout_probability, quiet, horizon):
    """Against scipy's log-normal, where its tail is a number."""
    repurchase_model = RepurchaseModel(
        np.array([cycle]), np.array([spread]), np.ones(1), np.array([dropout_probability])
    )
    purchase_probability, later = (
        float(repurchase_model.purchase_probability(np.array([quiet]), length)[0]) for length in (horizon, horizon * 2)
    )
    assert 0.0 <= purchase_probability <= later <= 1.0
    gap = stats.lognorm(spread, scale=np.exp(cycle))
    if abs(np.log(quiet + 2 * horizon) - cycle) < 6 * spread:
        alive = (1 - dropout_probability) * gap.sf(quiet)
        assert purchase_probability == pytest.approx(
            (1 - dropout_probability) * (gap.sf(quiet) - gap.sf(quiet + horizon)) / (alive + dropout_probability),
            abs=1e-9,
        )
        middle = float(repurchase_model.expected_days(np.array([quiet]))[0])
        assert middle == pytest.approx(max(gap.isf(gap.sf(quiet) / 2) - quiet, 0.5), rel=1e-4, abs=1e-3)
    assert 0.5 <= float(repurchase_model.expected_days(np.array([quiet]), horizon)[0]) <= horizon


def test_the_probabilities_are_right(shop):
    """Of a town whose cycles are known, rewound: the share bought is the mean of the chances, in the lower and in the upper half."""
    big = town(seed=4, n_users=600)
    before = big.with_earlier_cutoff(7)
    model = ReplenishRecommender(horizon_days=7).fit(before)
    users = np.repeat(np.arange(big.n_users), np.diff(model.purchase_probabilities_.indptr))
    soon = big.interactions.where(big.interactions.age_days <= 7)
    bought = np.isin(
        users * big.n_items + model.purchase_probabilities_.indices,
        soon.users.astype(np.int64) * big.n_items + soon.items,
    )
    purchase_probability = model.purchase_probabilities_.data
    for part in (
        purchase_probability < np.median(purchase_probability),
        purchase_probability >= np.median(purchase_probability),
    ):
        assert purchase_probability[part].mean() == pytest.approx(bought[part].mean(), abs=0.03)
    assert purchase_probability[bought].mean() > 2 * purchase_probability[~bought].mean()


def test_a_purchase_since_resets_the_clock(model, shop):
    """Nobody needs again what they bought this morning: of something that lasts twice the horizon and was due, that falls."""
    due = [
        (user, item)
        for user in range(shop.n_users)
        for item in chances(model, user)
        if (facts := model.evidence(user, item))["cycle_days"] > 15
        and facts["times"] > 3
        and abs(facts["expected_in_days"]) < 4
    ]
    assert len(due) > 5
    for user, item in due:
        recent_interactions = lines([0], [item], [0.2], (1, shop.n_items))
        before, after = (
            chances(model, user, elapsed_days=0.5),
            chances(model, user, recent_interactions=recent_interactions, elapsed_days=0.5),
        )
        assert after[item] < before[item] / 2
        assert set(after) == set(before)


def test_fold_in_is_what_the_clocks_say_of_the_joined_history(shop):
    """Purchases since the fit count as if the fitted model had seen them."""
    past = shop.with_earlier_cutoff(10)
    model = ReplenishRecommender(horizon_days=7).fit(past)
    recent = shop.interactions.where(shop.interactions.age_days <= 10)
    folded = model.recommend(np.arange(shop.n_users), shop.n_items, recent_interactions=recent, elapsed_days=10.0)
    days = PurchaseDays.of(shop.interactions, 10.0)
    history = PurchaseHistory.at(10.0, days, days.by_item_group(model.group_), model.gap_decay)
    _, whole = model._purchase_probabilities(history)
    dense = np.full((shop.n_users, shop.n_items), -np.inf)
    dense[history.intervals.users, history.intervals.items] = whole
    got = np.take_along_axis(dense, np.maximum(folded.ids, 0), axis=1)
    np.testing.assert_allclose(folded.scores[folded.ids >= 0], got[folded.ids >= 0], rtol=1e-5)
    assert (folded.valid == np.isfinite(dense).sum(axis=1)).all()


def test_time_alone_moves_the_clock(model):
    now, later = chances(model, 1), chances(model, 1, elapsed_days=365.0)
    assert set(now) == set(later)
    assert max(later.values()) < max(now.values())


def test_two_of_it_last_longer_where_the_data_show_it():
    rng = np.random.default_rng(1)
    users, ages, units = [], [], []
    for user in range(80):
        age = 1.0 + rng.uniform(0, 5)
        bought = rng.choice([1.0, 2.0], 12)
        for i, quantity in enumerate(
            bought[::-1].tolist()
        ):  # from the last purchase back: what a purchase held says how long until the next
            if i:
                age += 10.0 * quantity * np.exp(rng.normal(0, 0.1))
            users.append(user)
            ages.append(age)
            units.append(quantity)
    data = lines(users, [0] * len(users), ages, (80, 1), units)
    train = TrainingSet.from_arrays(np.zeros(1), np.zeros(1), n_users=80, n_items=1).with_interactions(data)
    model = ReplenishRecommender(snapshots=0).fit(train)
    assert model.population_priors_.items.units_slope[0] == pytest.approx(1.0, abs=0.1)
    last = {user: quantity for user, quantity, age in zip(users, units, ages, strict=True) if age < 7}
    cycles = {
        quantity: np.mean([model.evidence(user, 0)["cycle_days"] for user in last if last[user] == quantity])
        for quantity in (1.0, 2.0)
    }
    assert cycles[2.0] > 1.6 * cycles[1.0]
    mixed = replace(data, quantities=rng.permutation(data.quantities))
    assert (
        ReplenishRecommender(snapshots=0).fit(train.with_interactions(mixed)).population_priors_.items.units_slope[0]
        < 0.2
    )


def test_one_day_is_one_purchase():
    data = lines([0, 0, 0], [0, 0, 0], [3.2, 3.9, 10.5], (1, 1), [1, 2, 1])
    days = PurchaseDays.of(data)
    assert days.days.tolist() == [-11, -4]
    np.testing.assert_allclose(np.exp(days.units), [1, 3])
    assert PurchaseIntervals.at(0.0, days, 0.8).times.tolist() == [2]


def test_later_gaps_count_more():
    gaps_then_now = PurchaseDays(
        np.zeros(5, np.int64), np.zeros(5, np.int64), np.array([-200, -160, -120, -110, -100]), np.zeros(5)
    )
    even, recent = (PurchaseIntervals.at(0.0, gaps_then_now, decay) for decay in (1.0, 0.5))
    assert np.exp(even.weighted / even.weights)[0] == pytest.approx(20.0)
    assert np.exp(recent.weighted / recent.weights)[0] < 15.0


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.integers(0, 30)), min_size=2, max_size=20), st.floats(0.1, 10.0))
def test_shrunk_means_lie_between_the_group_and_the_prior(groups, variance):
    means, weights = np.array([mean for mean, _ in groups]), np.array([float(weight) for _, weight in groups])
    prior = np.zeros(len(groups))
    found = shrink_means(means * weights, weights, prior, variance)
    assert (np.abs(found) <= np.abs(means) + 1e-9).all()
    assert (found * means >= -1e-9).all()
    assert (found[weights == 0] == 0).all()


def test_the_correction_learns_what_the_clock_does_not_know():
    rng = np.random.default_rng(0)
    odds, trait = rng.normal(-1, 1, 20_000), rng.normal(0, 1, 20_000)
    bought = rng.random(20_000) < 1 / (1 + np.exp(-(odds + 0.8 * trait)))
    found = fit_calibration(np.column_stack([odds, trait]), bought, np.ones(20_000), ridge=1.0)
    assert found[2, 0] == pytest.approx(0.8, abs=0.08)
    assert abs(found[1, 0]) < 0.1
    better = calibrate([odds, trait], found)
    assert better[bought].mean() > calibrate([odds, trait], np.array([[0.0, 0.0, 1.0]]))[bought].mean()
    strong = fit_calibration(np.column_stack([odds, trait]), bought, np.ones(20_000), ridge=1e9)
    assert np.abs(strong[1:, 0]).max() < 1e-3


def test_nothing_to_learn_from_leaves_the_clock_alone(training_set_of):
    train = training_set_of([(0, 0, 3.0), (0, 0, 9.0), (1, 1, 2.0)], 2, 2)
    assert ReplenishRecommender().fit(train).calibration_.tolist() == [[0.0, 0.0, 1.0]]


def test_what_is_learnt_is_of_before(shop):
    """The correction of a moment knows the population of that moment: what is bought later does not change it."""
    model = ReplenishRecommender(horizon_days=7)
    model.fit(shop)
    past = model.days_.where(model.days_.days < -7)
    group_days = past.by_item_group(model.group_)
    history = PurchaseHistory.at(-7.0, past, group_days, model.gap_decay)
    with_earlier_cutoff = ReplenishRecommender(horizon_days=7).fit(shop.with_earlier_cutoff(7.0))
    then, again = PopulationPriors.of(history, model.group_, np.log(7.0)), with_earlier_cutoff.population_priors_
    np.testing.assert_allclose(then.items.prior, again.items.prior, rtol=1e-6)
    np.testing.assert_allclose(then.trend, again.trend, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(then.items.dropout_probability, again.items.dropout_probability, rtol=1e-5)


def test_without_times_nothing_is_due():
    with pytest.raises(DataError, match="needs purchase times"):
        ReplenishRecommender().fit(TrainingSet.from_arrays(np.array([0, 1]), np.array([0, 0]), n_users=2, n_items=1))


def test_no_history_at_all_is_no_crash():
    empty = TrainingSet.from_arrays(np.empty(0, int), np.empty(0, int), n_users=3, n_items=2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = ReplenishRecommender().fit(empty)
        assert model.recommend([0, -1], 2).valid.tolist() == [0, 0]
        recent_interactions = lines([1], [1], [0.5], (2, 2))
        assert model.recommend([0, -1], 2, recent_interactions=recent_interactions, elapsed_days=1.0).ids.tolist() == [
            [-1, -1],
            [1, -1],
        ]


def test_gone_habits_are_found():
    """The share of purchases that were the last for good, of a town where it is one in ten (and the data end somewhere)."""
    train = town(seed=2, n_users=400, ends=0.1)
    days = PurchaseDays.of(train.interactions)
    found = CyclePriors.of(PurchaseIntervals.at(0.0, days, 1.0), np.zeros(train.n_items, np.int64), np.log(14.0))
    assert found.dropout_probability[:4] == pytest.approx(0.1, abs=0.05)
    assert float(found.within) == pytest.approx(0.25**2, rel=0.3)


def test_expected_days_do_not_depend_on_how_many_pairs_are_read_at_a_time(monkeypatch):
    rng = np.random.default_rng(1)
    data = TrainingSet.from_arrays(
        rng.integers(0, 30, 600), rng.integers(0, 12, 600), n_users=30, n_items=12, age_days=rng.uniform(1, 200, 600)
    )
    fitted = ReplenishRecommender().fit(data)
    users, items = np.repeat(np.arange(30), 12), np.tile(np.arange(12), 30)
    together = fitted.expected_days(users, items)
    monkeypatch.setattr("models.recommend.replenish.model.PAIRS_AT_ONCE", 7)
    np.testing.assert_array_equal(fitted.expected_days(users, items), together)
    assert np.isfinite(together).any()


def test_the_expected_day_moves_with_what_happens_after_the_fit(model, shop):
    users, items = (
        column.astype(np.int64)
        for column in np.unique(np.stack([shop.interactions.users, shop.interactions.items]), axis=1)
    )
    query, rows = Query(np.arange(shop.n_users)), users
    at_fit = model.expected_days(users, items)
    np.testing.assert_allclose(model.expected_days_now(query, rows, items), at_fit, atol=1e-3)
    later = model.expected_days_now(replace(query, elapsed_days=7.0), rows, items)
    assert (later >= 7.5).all()
    assert (later >= at_fit - 1e-4).all(), "a purchase that did not come comes later"
    bought = lines(users, items, np.zeros(len(users)), (shop.n_users, shop.n_items))
    again = model.expected_days_now(replace(query, recent_interactions=bought, elapsed_days=7.0), rows, items)
    cycles = np.linspace(5, 40, shop.n_items)[items]
    assert np.median((again - 7.0) / cycles) == pytest.approx(1.0, abs=0.1)
    never = next(item for item in range(shop.n_items) if (0, item) not in set(zip(users, items, strict=True)))
    assert np.isnan(model.expected_days_now(query, np.array([0]), np.array([never])))[0]
    assert np.isnan(model.expected_days_now(Query(np.array([-1])), np.array([0]), np.array([0])))[0]
