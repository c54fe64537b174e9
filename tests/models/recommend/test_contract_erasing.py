"""Every registered recommender declares what it holds of single users, so that one can be taken out of its bundle."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

import numpy as np
import pytest

from features.interactions import Interactions
from models.bundle import ModelBundle
from models.erasing import bundles_in, erase_users
from models.kinds import MODELS, model_class
from models.persist import load_arrays
from models.recommend import RECOMMENDERS
from models.user_arrays import UserMatrix
from tests.models.recommend.promoted_shop import shop as promoted_shop
from tests.models.recommend.test_contract import make
from tests.models.recommend.test_types import random_shop

AS_OF = datetime(2024, 6, 1)

# what a user is recommended is what users like them bought next: without a user, that of their neighbours changes
FROM_OTHER_USERS = {"next_basket"}
WEIGHTS = {"view": 0.3, "cart": 0.6}
CASES = {  # model and data: those of purchases alone, of interactions of several types, and with planned promotions
    **{name: (name, {}, "purchases") for name in RECOMMENDERS},
    **{
        f"{name} of types": (name, {"type_weights": WEIGHTS}, "types")
        for name in ("repeat", "own_events", "ials", "item_knn")
    },
    "session of types": ("session", {}, "types"),
    "two_stage of types": ("two_stage", {"rounds": 5}, "types"),
    "two_stage with promotions": ("two_stage", {"rounds": 5}, "promotions"),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    return request.param


@pytest.fixture(scope="module")
def train(case, shop):
    """The data of a case; the lines are in the order of the users, as those of a lake are."""
    made = {"purchases": lambda: shop, "types": random_shop, "promotions": lambda: promoted_shop()[0]}
    data = made[CASES[case][2]]()
    order = np.argsort(data.interactions.users, kind="stable")
    return replace(data, interactions=data.interactions.where(order))


@pytest.fixture(scope="module")
def erased_rows(train):
    """The first user, one in the middle, and the last, who in one shop has no history."""
    return [0, 7, train.n_users - 1]


@pytest.fixture(scope="module")
def bundle(case, train):
    name, parameters, _ = CASES[case]
    model = (RECOMMENDERS[name](**parameters) if parameters else make(name)).fit(train)
    ids = [f"u{row:04d}" for row in range(train.n_users)]
    return ModelBundle(name, model, AS_OF, None, np.array(ids), train.item_ids, train.item_attributes)


@pytest.fixture(scope="module")
def erased(bundle, erased_rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("erased") / "bundle"
    bundle.save(folder)
    assert erase_users(folder, bundle.user_ids[erased_rows].tolist()) == len(erased_rows)
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


def test_an_array_with_an_entry_per_user_is_declared(bundle, tmp_path):
    for model in bundle.model.with_submodels():
        model.save(tmp_path / "one")
        arrays = load_arrays(tmp_path / "one" / "state.npz")
        assert not undeclared(model, arrays, len(bundle.user_ids))


def test_erased_users_are_gone_and_all_others_get_the_same_answers(bundle, erased, erased_rows):
    left = ModelBundle.load(erased)
    kept = np.delete(np.arange(len(bundle.user_ids)), erased_rows)
    assert left.user_ids.tolist() == bundle.user_ids[kept].tolist()
    assert left.user_map.rows(bundle.user_ids[erased_rows]).tolist() == [-1] * len(erased_rows)
    for model in left.model.with_submodels():
        assert (model.n_users_, model.history_.shape[0]) == (len(kept), len(kept))
    moved = np.arange(len(kept))
    assert left.model.recommend(moved, 10).ids.shape == (len(kept), 10)
    if bundle.kind in FROM_OTHER_USERS:
        return
    one = (
        np.array([kind], dtype) for kind, dtype in ((3, np.int32), (2, np.int32), (0.5, np.float32), (1, np.float32))
    )
    recent = Interactions(*one, (len(kept), left.model.n_items_))
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
            assert array.dtype == before[path][name].dtype
            if name not in declared | {"user_ids"}:
                np.testing.assert_array_equal(array, before[path][name])


def test_only_what_the_others_have_is_left_in_the_declared_arrays(bundle, train, tmp_path):
    """All users but one are erased: no array has more of users than this one has lines."""
    bundle.save(tmp_path / "bundle")
    erase_users(tmp_path / "bundle", np.delete(bundle.user_ids, 5).tolist())
    left = ModelBundle.load(tmp_path / "bundle").model
    auxiliary = [] if train.auxiliary is None else train.auxiliary.users
    most = int((np.concatenate([train.interactions.users, auxiliary]) == 5).sum())
    most *= 1 + train.n_items * (bundle.kind in ("content", "next_basket"))  # words of items; states have items
    for model in left.with_submodels():
        model.save(tmp_path / "one")
        arrays = load_arrays(tmp_path / "one" / "state.npz")
        matrix = {f"{one.name}_indptr" for one in model.user_arrays if isinstance(one, UserMatrix)}
        for name in {name for one in model.user_arrays for name in one.names} & arrays.keys():
            if name in matrix:
                assert len(arrays[name]) == 2, name
            elif not name.endswith(("_shape", "_indptr")):
                assert len(arrays[name]) <= max(most, 2), name
        assert arrays["history_indices"].tolist() == train.interactions.matrix()[5].indices.tolist()


def test_nothing_changes_where_nobody_is_known(bundle, tmp_path):
    bundle.save(tmp_path / "bundle")
    before = (tmp_path / "bundle" / "manifest.json").read_bytes()
    assert erase_users(tmp_path / "bundle", ["nobody"]) == 0
    assert (tmp_path / "bundle" / "manifest.json").read_bytes() == before
    assert bundles_in(tmp_path) == [tmp_path / "bundle"]


def test_every_kind_of_model_declares_its_users():
    for kind in MODELS:
        assert "user_arrays" in {name for base in model_class(kind).__mro__ for name in vars(base)}, kind
