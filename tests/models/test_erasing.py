"""Bundles that lose customers: the models of all scenes, lookalike, facts that name somebody, and runs that are killed."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

import models.erasing
from features.compute.algebra import Feature
from features.compute.spec import FeatureSpec
from models.bundle import ModelBundle, verify
from models.erasing import ERASURES, bundles_in, erase_users
from models.lookalike import LookalikeExpander
from models.persist import checksum, load_arrays, save_arrays
from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from models.recommend.scene_models import SceneModels
from qianmian.errors import ArtifactError

AS_OF = datetime(2024, 6, 1)
GONE = "u0007"


@pytest.fixture(scope="module")
def scenes(shop):
    models = {"home": RepeatPurchaseRecommender().fit(shop), "popular": PopularRecommender().fit(shop)}
    facts = {"job": "recommend", "shared_accounts": {GONE: "9,000 orders", "u0001": "8,000 orders"}}
    model = SceneModels(models, {"home": ["home", "popular"], "discover": ["popular"]})
    return ModelBundle("scenes", model, AS_OF, None, shop.user_ids, shop.item_ids, shop.item_attributes, {}, facts)


@pytest.fixture
def folder(scenes, tmp_path):
    scenes.save(tmp_path / "bundle")
    return tmp_path / "bundle"


def names(folder: Path) -> bool:
    """Whether the bytes of a folder hold the id, as JSON or as an array of texts."""
    texts = (GONE.encode(), GONE.encode("utf-32-le"), GONE.encode("utf-16-le"))
    return any(text in path.read_bytes() for path in folder.rglob("*") if path.is_file() for text in texts)


def test_neither_arrays_nor_facts_name_an_erased_customer(folder, scenes, shop):
    assert names(folder)
    assert erase_users(folder, [GONE]) == 1
    assert not names(folder.parent)
    left = ModelBundle.load(folder)
    assert left.facts == {"job": "recommend", "shared_accounts": {"u0001": "8,000 orders"}, ERASURES: 1}
    for scene in ("home", "discover"):
        before, after = scenes.model.scene(scene), left.model.scene(scene)
        users = np.delete(np.arange(shop.n_users), 7)
        np.testing.assert_array_equal(after.recommend(np.arange(len(users)), 10).ids, before.recommend(users, 10).ids)
    assert erase_users(folder, [GONE]) == 0
    assert erase_users(folder, ["u0001", "u0002"]) == 2
    assert ModelBundle.load(folder).facts[ERASURES] == 3


def test_facts_of_a_model_without_users_are_erased(tmp_path, shop):
    model = PopularRecommender().fit(shop)
    facts = {"shared_accounts": {GONE: "9,000 orders"}, "listed": ["a", GONE], "at": {"first": GONE}}
    ModelBundle("popular", model, AS_OF, facts=facts).save(tmp_path / "bundle")
    assert erase_users(tmp_path / "bundle", [GONE]) == 1
    left = ModelBundle.load(tmp_path / "bundle").facts
    assert left == {"shared_accounts": {}, "listed": ["a"], "at": {}, ERASURES: 1}


def test_lookalike_never_finds_an_erased_customer(tmp_path, shop):
    rng = np.random.default_rng(0)
    model = LookalikeExpander(factors=2).fit(rng.normal(size=(40, 3)).astype(np.float32))
    ModelBundle("lookalike", model, AS_OF, user_ids=shop.user_ids).save(tmp_path / "bundle")
    erase_users(tmp_path / "bundle", [GONE])
    left = ModelBundle.load(tmp_path / "bundle")
    np.testing.assert_array_equal(left.model.space_, np.delete(model.space_, 7, axis=0))
    found, _ = left.model.expand(left.user_map.rows(shop.user_ids[:5]), 100)
    assert sorted(left.user_ids[found].tolist()) == [f"u{row:04d}" for row in range(5, 40) if row != 7]


def test_all_customers_can_be_erased(folder, shop):
    assert erase_users(folder, shop.user_ids.tolist()) == shop.n_users
    left = ModelBundle.load(folder)
    assert not len(left.user_ids)
    assert left.model.scene("home").recommend([-1], 5).ids.shape == (1, 5)


def test_a_process_that_has_mapped_the_files_keeps_them(folder, shop):
    served = ModelBundle.load(folder)
    expected = served.model.scene("home").recommend([7], 10).ids.copy()
    erase_users(folder, [GONE])
    np.testing.assert_array_equal(served.model.scene("home").recommend([7], 10).ids, expected)


@pytest.mark.parametrize("step", range(6))
def test_a_killed_run_is_finished_by_the_next(folder, monkeypatch, step):
    """The process ends at the first file, the ids, the manifest, before and between the renames, and before the end."""
    neighbour = folder.with_name("other bundle")
    ModelBundle.load(folder).save(neighbour)
    places = [
        (models.erasing, "save_arrays", 1),
        (models.erasing, "save_arrays", 2),
        (models.erasing, "write_json", 1),
        (Path, "rename", 1),
        (Path, "rename", 2),
        (models.erasing.shutil, "rmtree", 1),
    ]
    owner, function, at = places[step]
    original, calls = getattr(owner, function), 0

    def killed(*arguments, **options):
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyboardInterrupt
        return original(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(owner, function, killed)
        with pytest.raises(KeyboardInterrupt):
            erase_users(folder, [GONE])
    assert bundles_in(folder.parent) == [folder, neighbour]
    erase_users(neighbour, [GONE])  # does not disturb the other one
    for bundle in bundles_in(folder.parent):
        erase_users(bundle, [GONE])
    verify(folder)
    assert not names(folder.parent)
    assert {path.name for path in folder.parent.iterdir()} == {"bundle", "other bundle"}
    assert json.loads((folder / "manifest.json").read_text())["facts"][ERASURES] == 1


def test_a_damaged_bundle_or_another_format_is_refused(folder, scenes):
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 1}))
    with pytest.raises(ArtifactError, match="another format"):
        erase_users(folder, [GONE])
    (folder / "manifest.json").write_text(json.dumps(manifest))
    os.truncate(folder / "ids.npz", 100)
    with pytest.raises(ArtifactError, match="was changed"):
        erase_users(folder, [GONE])


def test_files_without_customers_are_shared_with_the_former_bundle(tmp_path, shop):
    model = LookalikeExpander(factors=2).fit(np.ones((40, 3), np.float32))
    bundle = ModelBundle("lookalike", model, AS_OF, user_ids=shop.user_ids)
    replace(bundle).save(tmp_path / "bundle")
    before = {path.name: path.stat().st_ino for path in (tmp_path / "bundle").rglob("*.*")}
    erase_users(tmp_path / "bundle", [GONE])
    after = {path.name: path.stat().st_ino for path in (tmp_path / "bundle").rglob("*.*")}
    assert {name for name in before if before[name] == after[name]} == {"items.npz", "params.json"}


def test_a_category_that_names_an_erased_customer_stays_a_category(tmp_path, shop):
    """A shop says who referred a customer: the id is in the vocabulary of the feature, and in arrays of texts."""
    features = (Feature("by", "profiles", "attribute", "referred_by", default=""),)
    spec = FeatureSpec(features, (("u0001", "u-erased-17"),))
    folder = tmp_path / "bundle"
    model = SceneModels({"home": RepeatPurchaseRecommender().fit(shop)}, {"home": ["home"]})
    facts = {"job": "recommend", "notes": ["referred by u-erased-17"]}
    ModelBundle("scenes", model, AS_OF, spec, shop.user_ids, shop.item_ids, shop.item_attributes, {}, facts).save(
        folder
    )
    state = folder / "model" / "home" / "state.npz"
    arrays = load_arrays(state)
    names = np.array(["by=u-erased-17", "by=u0001"])
    save_arrays(state, {**arrays, "names": names})
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {**manifest["files"], "model/home/state.npz": checksum(state)}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "files": files}))

    def edit(text: str) -> str:
        return text.replace("u-erased-17", "(erased)")

    assert erase_users(folder, ["nobody"]) == 0
    assert erase_users(folder, ["nobody"], edit) == 1
    left = ModelBundle.load(folder)
    assert left.spec.vocabularies == (("u0001", "(erased)"),)
    assert left.facts["notes"] == ["referred by (erased)"]
    found = load_arrays(state)
    assert found.pop("names").tolist() == ["by=(erased)", "by=u0001"]
    assert {name: array.tolist() for name, array in found.items()} == {n: array.tolist() for n, array in arrays.items()}
    assert erase_users(folder, ["nobody"], edit) == 0
