"""The task of `similar`: users who try another item of a category, and their last item of it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from features.interactions import TrainingSet
from models.recommend.popular import PopularRecommender
from models.recommend.similar.model import SimilarRecommender
from training.tasks.similar import COLD, examples, extra_metrics


@pytest.fixture(scope="module")
def shop() -> tuple[TrainingSet, TrainingSet]:
    """40 customers before and after a cutoff; 30 items in three categories, of which the last five have none."""
    rng = np.random.default_rng(2)

    def drawn(lines: int) -> TrainingSet:
        made = TrainingSet.from_arrays(
            rng.integers(0, 40, lines),
            rng.integers(0, 30, lines),
            n_users=40,
            n_items=30,
            age_days=rng.uniform(1, 90, lines),
        )
        categories = np.array([f"c{item % 3}" if item < 25 else "" for item in range(30)])
        return replace(
            made,
            item_attributes={
                **made.item_attributes,
                "category": categories,
                "brand": np.array([f"b{item % 2}" for item in range(30)]),
            },
        )

    return drawn(300), drawn(150)


@pytest.fixture(scope="module")
def task_examples(shop):
    return examples(shop[0], shop[1].interactions, 0)


def test_one_category_per_customer_and_the_last_item_bought(shop, task_examples):
    train, holdout = shop[0], shop[1].interactions
    data, category = train.interactions, train.item_attributes["category"]
    assert len(set(task_examples.users.tolist())) == len(task_examples) > 20
    assert task_examples.exclude_purchased
    for user, given, row in zip(
        task_examples.users.tolist(), task_examples.context_items, task_examples.truth, strict=True
    ):
        mine = data.users == user
        own = data.items[mine]
        of = category[int(given[0])]
        assert of
        same = category[own] == of
        assert given[0] == own[same][np.argmin(data.age_days[mine][same])]
        new = {int(item) for item in holdout.items[holdout.users == user] if item not in own and category[item] == of}
        assert set(row.indices.tolist()) == new


def test_another_seed_samples_other_categories(shop, task_examples):
    other = examples(shop[0], shop[1].interactions, 1)
    np.testing.assert_array_equal(other.users, task_examples.users)
    assert [one[0] for one in other.context_items] != [one[0] for one in task_examples.context_items]


def test_without_categories_there_are_no_examples(shop):
    train = replace(shop[0], item_attributes={**shop[0].item_attributes, "category": np.full(30, "")})
    assert len(examples(train, shop[1].interactions, 0)) == 0


def test_the_cold_part_uses_only_the_attributes_of_the_item(shop, task_examples):
    train = shop[0]
    model = SimilarRecommender(factors=4).fit(train)
    found = extra_metrics(model, task_examples, shop[1].interactions)
    values = found[f"recall@10, {COLD}"]
    assert np.isfinite(values).all()
    assert values.max() > 0
    # the users of the query items do not matter
    hidden = model.item_features_
    model.item_features_ = replace(hidden, vectors=hidden.vectors[::-1].copy())
    np.testing.assert_array_equal(
        extra_metrics(model, task_examples, shop[1].interactions)[f"recall@10, {COLD}"], values
    )
    assert extra_metrics(PopularRecommender().fit(train), task_examples, shop[1].interactions) == {}
