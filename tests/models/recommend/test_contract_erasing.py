"""Every registered recommender declares what it holds of single users, so that one can be taken out of its bundle."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.interactions import Interactions
from models.bundle import ModelBundle
from models.erasing import bundles_in, erase_users
from models.kinds import MODELS, model_class
from models.persist import load_arrays
from models.recommend import RECOMMENDERS
from models.recommend.ranking.two_stage import TwoStageRecommender

_spec = importlib.util.spec_from_file_location("recommender_contract", Path(__file__).with_name("test_contract.py"))
_contract = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_contract)

ERASED = [0, 7, 39]  # the first, one in the middle, and the last, who has no history
# what a user is recommended is what users like them bought next: without a user, that of their neighbours changes
FROM_OTHER_USERS = {"next_basket"}


@pytest.fixture(scope="module", params=list(RECOMMENDERS))
def name(request):
    return request.param


@pytest.fixture(scope="module")
def shop(shop):
    """The shop with its lines in the order of those of a lake, which is that of the users."""
    order = np.argsort(shop.interactions.users, kind="stable")
    return replace(shop, interactions=shop.interactions.where(order))


@pytest.fixture(scope="module")
def bundle(name, shop):
    return ModelBundle(
        name, _contract.make(name).fit(shop), shop.as_of, None, shop.user_ids, shop.item_ids, shop.item_attributes
    )


@pytest.fixture(scope="module")
def erased(bundle, shop, tmp_path_factory):
    folder = tmp_path_factory.mktemp("erased") / "bundle"
    bundle.save(folder)
    assert erase_users(folder, shop.user_ids[ERASED].tolist()) == len(ERASED)
    return folder


def answers(model, users, recent=None, **options):
    found = model.recommend(users, 10, recent_interactions=recent, **options)
    return found.ids.tolist(), found.scores.tolist(), found.source.tolist()


def states(folder):
    return {path.relative_to(folder): load_arrays(path) for path in folder.rglob("*.npz")}


def undeclared(model, arrays, n_users):
    """Arrays with as many entries as there are users, or as a declared array has, that the class does not declare."""
    declared = {name for one in model.user_arrays for name in one.names}
    sizes = {n_users, n_users + 1} | {len(arrays[name]) for name in declared & set(arrays) if arrays[name].ndim}
    others = {0, 1, 2, model.n_items_}
    return [name for name, array in arrays.items() if name not in declared and (sizes - others) & set(array.shape)]


def test_an_array_with_an_entry_per_user_is_declared(bundle, shop, tmp_path):
    bundle.save(tmp_path / "bundle")
    for model in bundle.model.with_submodels():
        model.save(tmp_path / "one")
        arrays = load_arrays(tmp_path / "one" / "state.npz")
        assert not undeclared(model, arrays, shop.n_users)


def test_erased_users_are_gone_and_all_others_get_the_same_answers(name, bundle, erased, shop):
    left = ModelBundle.load(erased)
    kept = np.delete(np.arange(shop.n_users), ERASED)
    assert left.user_ids.tolist() == shop.user_ids[kept].tolist()
    assert left.user_map.rows(shop.user_ids[ERASED]).tolist() == [-1] * len(ERASED)
    for model in left.model.with_submodels():
        assert (model.n_users_, model.history_.shape[0]) == (len(kept), len(kept))
    moved = np.arange(len(kept))
    assert left.model.recommend(moved, 10).ids.shape == (len(kept), 10)
    if name in FROM_OTHER_USERS:
        return
    recent = Interactions(
        np.array([3], np.int32), np.array([2], np.int32), np.array([0.5], np.float32), np.ones(1, np.float32), (37, 25)
    )
    assert answers(left.model, moved) == answers(bundle.model, kept)
    assert answers(left.model, moved, exclude_purchased=True) == answers(bundle.model, kept, exclude_purchased=True)
    assert answers(left.model, moved, recent, elapsed_days=3.0) == answers(bundle.model, kept, recent, elapsed_days=3.0)


def test_what_was_learnt_from_all_users_stays(bundle, erased, tmp_path):
    bundle.save(tmp_path / "before")
    declared = {name for model in bundle.model.with_submodels() for one in model.user_arrays for name in one.names}
    before, after = states(tmp_path / "before"), states(erased)
    assert before.keys() == after.keys()
    for path, arrays in after.items():
        for name, array in arrays.items():
            if name not in declared | {"user_ids"}:
                np.testing.assert_array_equal(array, before[path][name])
                assert array.dtype == before[path][name].dtype


def test_the_row_of_a_user_leaves_every_declared_array(bundle, shop, tmp_path):
    """All users but one are erased: what is left is no more than what this one alone has."""
    bundle.save(tmp_path / "bundle")
    erase_users(tmp_path / "bundle", np.delete(shop.user_ids, 5).tolist())
    pairs = len(np.unique(shop.interactions.items[shop.interactions.users == 5]))
    lines = int((shop.interactions.users == 5).sum())
    for path in (tmp_path / "bundle" / "model").rglob("state.npz"):
        arrays = load_arrays(path)
        assert arrays["history_shape"].tolist() == [1, shop.n_items]
        assert arrays["history_indices"].tolist() == shop.interactions.matrix()[5].indices.tolist()
        for name in ("counts_data", "chances_data", "read_data"):
            assert len(arrays.get(name, ())) <= pairs
        for name in ("lines_users", "order_users", "day_users", "owners"):
            assert len(arrays.get(name, ())) <= lines
            assert not np.any(arrays.get(name, 0))


def test_users_of_a_ranker_with_types_and_promotions():
    declared = {name for one in TwoStageRecommender.user_arrays for name in one.names}
    assert {"typed_users", "typed_visits", "promotions_response", "lines_users", "lines_amounts"} <= declared


def test_every_kind_of_model_declares_its_users():
    for kind in MODELS:
        assert "user_arrays" in {name for base in model_class(kind).__mro__ for name in vars(base)}, kind


def test_nothing_changes_where_nobody_is_known(bundle, tmp_path):
    bundle.save(tmp_path / "bundle")
    before = (tmp_path / "bundle" / "manifest.json").read_bytes()
    assert erase_users(tmp_path / "bundle", ["nobody"]) == 0
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before
    assert bundles_in(tmp_path) == [tmp_path / "bundle"]
