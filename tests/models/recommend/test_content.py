"""Contents where the right answer is known: topics, purchases, readers, attributes, and the turn of the new."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from features.interactions import ContentSet, Interactions, TrainingSet
from models.recommend.content.features import (
    FEATURES,
    ContentStatistics,
    due_ratio,
    engagement_rates,
    log_lift,
    reader_similarity,
)
from models.recommend.content.model import ContentRecommender
from models.recommend.content.words import TopicMatrices

MILK, BREAD, SOAP = "milk", "bread", "soap"


def contents(
    met: list[tuple[int, int, float, float]],
    topics: list[str],
    *,
    n_users: int = 6,
    item_ids: list[str] | None = None,
    bought: list[tuple[int, int, float]] = (),
    categories: list[str] = (),
) -> ContentSet:
    """A set of (user, content, age in days, weight); `bought` are (user, item, age in days) of items with `categories`."""
    users, items, ages, weights = (np.array(column) for column in zip(*met, strict=True)) if met else (np.empty(0),) * 4
    made = TrainingSet.from_arrays(
        users.astype(int), items.astype(int), n_users=n_users, n_items=len(topics), age_days=ages, weights=weights
    )
    attributes = {
        **made.item_attributes,
        "topics": np.array(topics),
        "item_ids": np.array(item_ids or [""] * len(topics)),
    }
    purchases = None
    if categories:
        who, what, when = (np.array(column) for column in zip(*bought, strict=True)) if bought else (np.empty(0),) * 3
        purchases = TrainingSet.from_arrays(
            who.astype(int), what.astype(int), n_users=n_users, n_items=len(categories), age_days=when
        )
        purchases = replace(
            purchases, item_attributes={**purchases.item_attributes, "category": np.array(list(categories))}
        )
    return ContentSet(
        made.user_ids, made.item_ids, made.interactions, attributes, None, made.as_of, "contents", purchases
    )


@pytest.fixture(scope="module")
def library() -> ContentSet:
    """Nine contents of three topics, three of them met by nobody; readers 0 and 1 like milk, 2 and 3 soap, 4 only buys bread, 5 nothing."""
    topics = [MILK, MILK, SOAP, SOAP, BREAD, BREAD, MILK, SOAP, BREAD]
    met = [
        (0, 0, 9.0, 0.9),
        (0, 1, 5.0, 0.9),
        (1, 0, 8.0, 0.9),
        (2, 2, 9.0, 0.9),
        (2, 3, 5.0, 0.9),
        (3, 2, 8.0, 0.9),
        (1, 4, 7.0, 0.2),
        (3, 5, 7.0, 0.2),
    ]
    bought = [(4, 0, float(day)) for day in range(2, 40, 7)] + [(1, 1, 10.0)]
    return contents(
        met,
        topics,
        item_ids=["", "", "", "", "", "0", "", "", ""],
        bought=bought,
        categories=["food/bread", "food/milk"],
    )


def model_of(train: TrainingSet, **parameters: object) -> ContentRecommender:
    return ContentRecommender(**{"learn_days": None, **parameters}).fit(train)


def weighing(model: ContentRecommender, *names: str) -> ContentRecommender:
    """The model with these features counting 1 and the others nothing."""
    model.weights_ = np.isin(FEATURES, names).astype(np.float32)
    return model


def test_readers_get_their_topics(library):
    model = model_of(library)
    first = model.recommend([0, 2], 3).ids
    assert {library.item_attributes["topics"][item] for item in first[0]} == {MILK}
    assert {library.item_attributes["topics"][item] for item in first[1]} == {SOAP}


def test_buyers_who_never_read_get_what_is_about_what_they_buy(library):
    ids = weighing(model_of(library), "bought", "shown").recommend([4], 3).ids[0]
    assert {library.item_attributes["topics"][item] for item in ids} == {BREAD}
    assert ids[0] == 5  # it shows the very item


def test_nobody_gets_the_popular_and_the_new(library):
    model = model_of(library)
    ranked = model.recommend([-1, 5], 9)
    assert ranked.valid.tolist() == [9, 9]
    np.testing.assert_array_equal(ranked.ids[0], ranked.ids[1])
    by_rate = weighing(model_of(library, exploration=0.0), "rate").recommend([-1], 9)
    assert set(by_rate.ids[0, :2].tolist()) == {1, 3}  # met by the one reader of the day


def test_what_was_read_to_the_end_is_not_shown_again_unless_asked(library):
    data = library.interactions
    done = library.with_interactions(
        replace(data, weights=np.where((data.users == 0) & (data.items == 0), np.float32(1.0), data.weights))
    )
    model = model_of(done)
    assert 0 not in model.recommend([0], 9).ids
    assert 1 in model.recommend([0], 9).ids  # opened, not read to the end
    assert 0 in model.recommend([2], 9).ids
    asked = model_of(done, show_read=True)
    assert 0 in asked.recommend([0], 9).ids
    assert asked.recommend([0], 9).valid[0] == 9
    assert model.recommend([0], 9).valid[0] == 8
    recent_interactions = Interactions(
        np.zeros(1, np.int32), np.array([1], np.int32), np.array([0.1], np.float32), np.array([1.5], np.float32), (1, 9)
    )
    assert 1 not in model.recommend([0], 9, recent_interactions=recent_interactions, elapsed_days=1.0).ids


def test_what_is_read_since_the_fit_counts(library):
    recent_interactions = Interactions(
        np.zeros(2, np.int32),
        np.array([2, 3], np.int32),
        np.full(2, 0.1, np.float32),
        np.full(2, 0.9, np.float32),
        (1, 9),
    )
    first = model_of(library).recommend([-1], 3, recent_interactions=recent_interactions).ids[0]
    assert {library.item_attributes["topics"][item] for item in first} == {SOAP}


def test_the_new_get_their_turn_by_what_they_may_turn_out_to_be():
    """Of two contents of one topic nobody cares for more, the one few have met comes first only for its uncertainty."""
    many = [(user, 0, 20.0, 0.9) for user in range(30)] + [(user, 1, 20.0 - user / 10, 0.2) for user in range(30)]
    train = contents(many, ["news", "news", "news"], n_users=40)
    cautious, curious = (weighing(model_of(train, exploration=much), "rate") for much in (0.0, 20.0))
    assert curious.recommend([35], 1).ids[0, 0] == 2
    facts = cautious.statistics_
    assert facts.new.tolist() == [0.0, 0.0, 1.0]
    assert facts.uncertainty[2] > facts.uncertainty[0]
    assert cautious.recommend([35], 3).ids[0, 0] != 2


def test_rates_are_shrunk_to_what_the_topics_let_expect():
    """Ten readers a day; content 0 engages all, 1 one of ten; nobody met 2 and 3, of their topics."""
    rows = [(user, 0, float(day), 1.0) for day in range(1, 11) for user in range(10)] + [
        (0, 1, float(day), 1.0) for day in range(1, 11)
    ]
    train = contents(rows, ["hot", "cold", "hot", "cold"], n_users=10)
    rate, uncertainty = engagement_rates(train.interactions, TopicMatrices.of(train).contents, 1e6)
    assert rate[0] > rate[2] > rate[3]
    assert rate[0] > rate[1]
    assert np.exp(rate[0]) == pytest.approx(1.0, abs=0.1)
    assert np.exp(rate[1]) == pytest.approx(0.1, abs=0.1)
    assert uncertainty[2] > uncertainty[0]
    nothing = train.interactions.where(np.zeros(len(rows), dtype=bool))
    assert engagement_rates(nothing, TopicMatrices.of(train).contents, 10.0)[0].tolist() == [0.0] * 4
    ancient = replace(train.interactions, age_days=np.full(len(rows), 1e7, np.float32))
    assert np.isfinite(engagement_rates(ancient, TopicMatrices.of(train).contents, 10.0)).all()


def test_a_lift_is_one_where_nothing_is_known():
    about = sparse.csr_matrix([[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [0, 0, 0]])
    share = np.array([0.5, 0.5, 0.0], np.float32)
    found = np.exp(log_lift(sparse.csr_matrix([[0.0, 0, 0], [6.0, 0, 0]]), about, share, 3.0))
    np.testing.assert_allclose(found[0], 1.0, rtol=1e-6)
    np.testing.assert_allclose(found[1], [(6 / 0.5 + 3) / 9, 3 / 9, 1.0, 1.0], rtol=1e-5)


def test_readers_are_alike_where_they_are_shared():
    data = contents(
        [(u, i, 1.0, 1.0) for u in range(4) for i in (0, 1)] + [(4, 2, 1.0, 1.0), (0, 2, 1.0, 1.0)], ["", "", ""]
    ).interactions
    alike = reader_similarity(data, 4.0).toarray()
    assert alike[0, 1] == pytest.approx(1.0 * 4 / 8)
    assert alike[0, 2] == pytest.approx(1 / np.sqrt(4 * 2) * 1 / 5)
    assert np.diag(alike).tolist() == [0.0, 0.0, 0.0]


def test_who_read_the_same_reads_on_alike():
    """Topics say nothing here; customers who met 0 met 1, those who met 2 met 3."""
    met = [(user, item, 10.0, 0.9) for user in range(10) for item in ((0, 1) if user < 5 else (2, 3))] + [
        (10, 0, 5.0, 0.9),
        (11, 2, 5.0, 0.9),
    ]
    model = model_of(contents(met, ["x"] * 4, n_users=12))
    ids = weighing(model, "readers").recommend([10, 11], 1).ids.ravel().tolist()
    assert ids == [1, 3]


def test_an_item_is_due_when_its_own_gap_is_over():
    bought = [(0, 0, 40.0), (0, 0, 30.0), (0, 0, 20.0), (1, 0, 22.0), (1, 0, 12.0), (1, 0, 2.0), (2, 0, 1.0)]
    train = contents([], ["x"], bought=bought, categories=["a"])
    data = train.purchases.interactions
    np.testing.assert_allclose(due_ratio(data, data.matrix()), [1.0, 0.2, 1.0])


def test_words_are_topics_categories_and_tags_in_any_case():
    train = contents([], ["Milk| NEWS", ""], item_ids=["", "1"], categories=["Food/Milk", "Home/Soap"])
    words = TopicMatrices.of(train)
    assert words.vocabulary.tolist() == ["food", "home", "milk", "news", "soap"]
    np.testing.assert_allclose(words.contents.toarray(), [[0, 0, 0.5, 0.5, 0], [0, 0.5, 0, 0, 0.5]])
    assert words.items.toarray().tolist() == [[1, 0, 1, 0, 0], [0, 1, 0, 0, 1]]
    assert words.shown.toarray().tolist() == [[0, 0], [0, 1]]


def readers_with_tastes(seed: int = 0, n_users: int = 400, n_contents: int = 60) -> ContentSet:
    """Customers who open contents of their one topic of six nine times in ten, through a hundred days."""
    rng = np.random.default_rng(seed)
    topic, likes = np.arange(n_contents) % 6, rng.integers(0, 6, n_users)
    users = np.repeat(np.arange(n_users), 8)
    own = rng.random(len(users)) < 0.9
    wanted = np.where(own, likes[users], rng.integers(0, 6, len(users)))
    items = rng.integers(0, n_contents // 6, len(users)) * 6 + wanted
    met = list(
        zip(
            users.tolist(),
            items.tolist(),
            rng.uniform(1, 100, len(users)).tolist(),
            np.full(len(users), 0.9).tolist(),
            strict=True,
        )
    )
    return contents(met, [f"t{number}" for number in topic], n_users=n_users)


def test_weights_are_those_of_what_customers_open():
    """Topics decide: read weighs much, what is not there (purchases, attributes) nothing; where topics are mixed up it does not."""
    train = readers_with_tastes()
    learnt = ContentRecommender().fit(train)
    assert learnt.weights_[0] > 0.5
    assert learnt.weights_[[1, 2, 3]].tolist() == [0.0, 0.0, 0.0]
    mixed = np.random.default_rng(1).permutation(train.item_attributes["topics"])
    other = ContentRecommender().fit(replace(train, item_attributes={**train.item_attributes, "topics": mixed}))
    assert other.weights_[0] < learnt.weights_[0] / 2
    likes = [
        np.bincount(
            [int(topic[1]) for topic in train.item_attributes["topics"][learnt.recommend([user], 5).ids[0]]],
            minlength=6,
        ).max()
        for user in range(50)
    ]
    assert np.mean(likes) > 4.0


def test_why(library):
    model = model_of(library)
    assert model.evidence(0, 6) == {"topic": MILK, "because": "read"}
    assert model.evidence(4, 8) == {"topic": BREAD, "because": "bought"}
    assert model.evidence(5, 0) is None
    assert model.evidence(2, 6) is None


def test_like_contents_are_of_the_same_topics(library):
    assert set(model_of(library).similar_items(0, 2).ids[0].tolist()) == {1, 6}


def test_facts_survive_their_arrays(library):
    facts = model_of(library).statistics_
    again = ContentStatistics.restored(facts.state())
    np.testing.assert_array_equal(again.rate, facts.rate)
    assert (again.about != facts.about).nnz == 0
