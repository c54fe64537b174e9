"""What tags are worth, where the truth is known."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.compute.builder import Builder
from features.definitions import FEATURES
from features.profiles.building import build_snapshot
from features.profiles.governance.lift import tag_lifts
from features.profiles.governance.outcome import TARGETS, target_labels
from features.profiles.governance.value import bias, information_gain, mutual_information
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings

BEGIN = datetime(2024, 1, 1)


@pytest.fixture(scope="module")
def made():
    """3,000 customers: two tags that tell, one of them more, a copy, a coarser reading, noise few and noise many."""
    rng = np.random.default_rng(7)
    n = 3000
    strong, weak = rng.integers(0, 4, n), rng.integers(0, 2, n)
    p = 1 / (1 + np.exp(-(1.2 * (strong - 1.5) + 0.8 * (weak - 0.5))))
    outcome = (rng.random(n) < p).astype(np.int64)
    tags = {
        "noise": rng.choice(["a", "b", "c"], n).tolist(),
        "many": rng.integers(0, 25, n).astype(str).tolist(),
        "weak": [bool(w) for w in weak],
        "strong": [f"s{s}" for s in strong],
        "copy": [float(s) for s in strong],
        "coarse": [bool(s > 1) for s in strong],
        "constant": ["same"] * n,
        "nothing": [None] * n,
    }
    return tags, outcome, information_gain(tags, outcome, seed=1)


def by_name(found):
    return {tag.name: tag for tag in found.tags}


def test_the_telling_tag_ranks_first_and_the_picks_are_those_that_add(made):
    _, _, found = made
    assert {found.tags[0].name, found.tags[1].name} == {"strong", "copy"}
    assert [tag.name for tag in found.tags[2:4]] == ["coarse", "weak"]
    assert len(found.picked) == 2
    assert found.picked[0] in ("strong", "copy")
    assert found.picked[1] == "weak"
    assert found.information_bits == pytest.approx(sum(by_name(found)[name].adds for name in found.picked), abs=1e-9)
    assert 0 < found.information_bits < found.entropy_bits <= 1.0


def test_a_copy_adds_nothing(made):
    tags = by_name(made[2])
    other = tags["copy" if made[2].picked[0] == "strong" else "strong"]
    assert other.bits == pytest.approx(tags[made[2].picked[0]].bits, abs=1e-9)
    assert other.picked is None
    for name in (other.name, "coarse"):
        assert abs(tags[name].adds) < 0.002
        assert tags[name].adds_low <= 0.0005


@pytest.mark.parametrize("name", ["noise", "many"])
def test_the_interval_of_noise_includes_nothing(made, name):
    tag = by_name(made[2])[name]
    assert tag.low <= 0 <= tag.high
    assert tag.bits < tag.chance * 1.5
    assert tag.picked is None
    assert tag.adds <= 0.001


def test_a_tag_without_two_values_is_worth_nothing(made):
    for name in ("constant", "nothing"):
        tag = by_name(made[2])[name]
        assert (tag.bits, tag.low, tag.high, tag.adds, tag.picked) == (0.0, 0.0, 0.0, 0.0, None)


def test_the_interval_holds_the_truth_and_stands_above_chance(made):
    tags, outcome, found = made
    strong = by_name(found)["strong"]
    # the truth from the process itself: P(outcome | strong), the weak tag averaged out
    p = np.array([[1 / (1 + np.exp(-(1.2 * (s - 1.5) + 0.8 * (w - 0.5)))) for w in (0, 1)] for s in range(4)]).mean(
        axis=1
    )
    truth = float(mutual_information(np.column_stack([p, 1 - p])))
    assert strong.low < truth < strong.high
    assert strong.low > strong.chance
    assert strong.share == pytest.approx(strong.bits / found.entropy_bits)
    assert found.n == len(outcome) == len(tags["strong"])


def test_the_correction_takes_out_what_counting_adds():
    rng = np.random.default_rng(0)
    tables = rng.multinomial(500, np.full(40, 1 / 40), size=300).reshape(300, 10, 4)
    counted = mutual_information(tables.astype(float))
    corrected = counted - [bias(table) for table in tables]
    assert counted.mean() > 0.03
    assert abs(corrected.mean()) < 0.002


def test_intervals_of_noise_include_zero_about_as_often_as_they_say():
    rng = np.random.default_rng(3)
    outcome = rng.integers(0, 2, 400)
    tags = {f"noise{n}": rng.integers(0, 4, 400).astype(str).tolist() for n in range(60)}
    found = information_gain(tags, outcome, seed=2)
    assert np.mean([tag.low <= 0 for tag in found.tags]) > 0.85
    assert found.picked == ()


def test_the_same_seed_gives_the_same_figures(made):
    tags, outcome = (
        {name: values[:600] for name, values in made[0].items() if name in ("weak", "strong", "noise")},
        made[1][:600],
    )
    found = information_gain(tags, outcome, seed=1)
    assert information_gain(tags, outcome, seed=1) == found
    assert information_gain(tags, outcome, seed=2) != found


def test_money_has_more_than_two_outcomes():
    rng = np.random.default_rng(5)
    tier = rng.integers(0, 4, 1500)
    outcome = np.where(rng.random(1500) < 0.7, tier, rng.integers(0, 4, 1500))
    found = information_gain(
        {"tier": tier.astype(str).tolist(), "noise": rng.integers(0, 4, 1500).astype(str).tolist()}, outcome
    )
    assert found.picked == ("tier",)
    assert found.entropy_bits == pytest.approx(2.0, abs=0.02)
    assert found.tags[0].bits == pytest.approx(found.information_bits, abs=0.03)


@pytest.mark.parametrize("outcome", [np.zeros(500, dtype=np.int64), np.array([1] * 5 + [0] * 495)])
def test_one_outcome_is_none(outcome):
    with pytest.raises(DataError, match="too few customers of an outcome"):
        information_gain({"a": ["x"] * 500}, outcome)


# ---- outcomes ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def builder(lake_of):
    """150 customers: all order in January; the first hundred of them in February too, ever dearer."""
    rows = [("1", user, 10 + user % 15, 5.0) for user in range(150)] + [
        ("2", user, 40 + user % 15, 1.0 + user) for user in range(100)
    ]
    lines = [
        {
            "source": "s",
            "source_user_id": f"{user:03}",
            "order_id": f"{kind}-{user}",
            "line_no": 1,
            "ts": BEGIN + timedelta(days=day),
            "item_id": "i",
            "quantity": 1.0,
            "amount": amount,
            "status": "paid",
        }
        for kind, user, day, amount in rows
    ]
    return Builder(lake_of({"transactions": lines}), FEATURES)


def test_outcomes_are_what_happened_after(builder):
    as_of = BEGIN + timedelta(days=30)
    snapshot = build_snapshot(builder, as_of, Settings())
    users = snapshot.table["user_id"].to_pylist()

    def told(target, **more):
        outcome = target_labels(
            builder, snapshot.table, as_of, target, more.get("horizon_days", 25), more.get("active_days", 56)
        )
        return outcome, {
            users[row]: outcome.labels[code] for row, code in zip(outcome.rows, outcome.codes, strict=True)
        }

    _, churn = told("churn")
    assert churn == {user: "stayed" if int(user) < 100 else "churned" for user in users}
    _, purchase = told("purchase")
    assert purchase == {user: "ordered" if int(user) < 100 else "no order" for user in users}
    outcome, _ = told("clv")
    assert np.bincount(outcome.codes).tolist() == [50, 25, 25, 25, 25]
    assert len(outcome.labels) == 5
    # who has been away for longer is not asked
    outcome, asked = told("churn", active_days=18)
    assert set(asked) == {user for user in users if int(user) % 15 >= 2}


@pytest.mark.parametrize(
    ("days", "target", "horizon", "said"),
    [
        (30, "churn", 90, "the data ends before the end of the horizon"),
        (54, "churn", 1, "too few customers"),
        (12, "purchase", 5, "too few customers"),
    ],
)
def test_what_cannot_be_measured_is_refused(builder, days, target, horizon, said):
    as_of = BEGIN + timedelta(days=days)
    with pytest.raises(DataError, match=said):
        target_labels(builder, builder.build(as_of).table, as_of, target, horizon, 56)


def test_the_numbers_of_an_outcome_say_who_left_and_what_was_paid(builder):
    as_of = BEGIN + timedelta(days=30)
    table = builder.build(as_of).table
    users = table["user_id"].to_pylist()
    churn = target_labels(builder, table, as_of, "churn", 25, 56)
    assert churn.verb == "left"
    left = {users[row] for row, number in zip(churn.rows, churn.numbers, strict=True) if number}
    assert left == {user for user in users if int(user) >= 100}
    paid = target_labels(builder, table, as_of, "clv", 25, 56)
    assert paid.numbers.tolist() == [1.0 + int(user) if int(user) < 100 else 0.0 for user in users]


def test_a_propensity_target_is_who_bought_the_thing_in_the_horizon(lake_of):
    """120 customers buy bread first; then 40 buy cat food, 30 tea, and 20 nothing of a category."""
    items = [
        {"item_id": "bread", "category": "food/bread", "brand": "mill"},
        {"item_id": "cat", "category": "pet/cat", "brand": "paw"},
        {"item_id": "tea", "category": "food/tea", "brand": "leaf"},
    ]
    bought = [(user, 1, "bread") for user in range(120)] + [
        (user, 40, "cat" if user < 40 else "tea" if user < 70 else "odd") for user in range(90)
    ]
    lines = [
        {
            **{"source": "s", "source_user_id": f"{user:03}", "order_id": f"{user}-{day}", "line_no": 1},
            **{"ts": BEGIN + timedelta(days=day), "item_id": item, "quantity": 1.0, "amount": 2.0, "status": "paid"},
        }
        for user, day, item in bought
    ]
    builder = Builder(lake_of({"transactions": lines, "items": items}), FEATURES)
    as_of = BEGIN + timedelta(days=20)
    table = builder.build(as_of).table

    users = table["user_id"].to_pylist()

    def buyers(target):
        found = target_labels(builder, table, as_of, target, 21, 56)
        assert (found.verb, len(found.rows)) == ("bought it", 120)
        return sorted(int(users[row]) for row in np.flatnonzero(found.numbers))

    assert buyers("item:cat") == buyers("brand=paw") == buyers("category=pet") == buyers("category:pet/cat")
    assert buyers("item:cat") == list(range(40))
    assert buyers("category:food") == list(range(40, 70)), "bread was bought before the horizon"
    with pytest.raises(DataError, match="no row of the lake is of this brand"):
        buyers("brand:nobody")
    with pytest.raises(UsageError, match="item=ID"):
        buyers("item:")


# ---- customers and lift -------------------------------------------------------------------------------------------------


def test_the_ends_of_a_tag_are_the_customers_with_its_most_and_least_telling_values():
    """Of 1,000 customers, 20 % have `a` and half of them bought; 30 % have `b` and none of them; the rest a quarter."""
    values = ["a"] * 200 + ["b"] * 300 + ["c"] * 500
    outcome = np.concatenate([np.tile([1.0, 0.0], 100), np.zeros(300), np.tile([1.0, 0, 0, 0], 125)])
    (tag,) = tag_lifts({"tag": values}, outcome).values()
    assert (tag.most.values, tag.least.values) == (("a",), ("b",))
    assert tag.most.mean == pytest.approx(0.5, abs=0.02)
    assert tag.least.mean == 0.0
    assert tag.lift == pytest.approx(tag.most.mean / outcome.mean())
    assert tag.most.low < 0.5 < tag.most.high
    # the 100 customers of the end share what is known of all 200 with the value
    assert tag.most.high - tag.most.low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(200), abs=0.01)
    assert tag.least.low == pytest.approx(0.0, abs=1e-12)
    assert 0 < tag.least.high < 0.02


def test_an_end_goes_on_with_the_next_value_where_one_has_too_few_customers():
    values = ["rare"] * 50 + ["next"] * 50 + ["rest"] * 900
    outcome = np.concatenate([np.ones(50), np.tile([1.0, 0.0], 25), np.zeros(900)])
    tag = tag_lifts({"tag": values}, outcome)["tag"]
    assert tag.most.values == ("rare", "next")
    assert tag.most.mean == pytest.approx(0.75, abs=0.03)


def test_noise_with_many_values_shows_no_lift():
    """Its values are ordered on other customers; on the same ones the upper end would have a lift of about 1.5."""
    rng = np.random.default_rng(4)
    outcome = (rng.random(2000) < 0.2).astype(float)
    lifts = tag_lifts({f"noise{n}": rng.integers(0, 25, 2000).astype(str).tolist() for n in range(30)}, outcome)
    assert np.mean([tag.lift for tag in lifts.values()]) == pytest.approx(1.0, abs=0.06)


def test_amounts_and_tags_without_two_values():
    paid = np.arange(400.0)
    lifts = tag_lifts({"amount": paid.tolist(), "same": ["x"] * 400, "unknown": [None] * 400}, paid)
    assert list(lifts) == ["amount"]
    assert lifts["amount"].most.mean == pytest.approx(375, abs=5)  # of the upper eighth
    assert lifts["amount"].least.mean == pytest.approx(25, abs=5)
    assert tag_lifts({"half": ["a", "b"] * 200}, np.zeros(400))["half"].lift is None


def test_targets_are_named(builder):
    assert list(TARGETS) == ["churn", "purchase", "clv"]
    with pytest.raises(UsageError, match="churn, purchase, clv"):
        target_labels(
            builder, builder.build(BEGIN + timedelta(days=30)).table, BEGIN + timedelta(days=30), "love", 5, 56
        )
