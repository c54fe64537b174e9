"""Models by scene: held once, each scene a chain of them, saved and loaded as one."""

from __future__ import annotations

import json

import numpy as np
import pytest

from models.recommend.popular import PopularRecommender
from models.recommend.repeat import RepeatPurchaseRecommender
from models.recommend.scene_models import SceneModels
from qianmian.errors import ArtifactError, InvalidRequest


@pytest.fixture(scope="module")
def scenes(shop):
    models = {"own": RepeatPurchaseRecommender().fit(shop), "popular": PopularRecommender(28).fit(shop)}
    return SceneModels(models, {"home": ["own", "popular"], "popular only": ["popular"]})


def test_each_scene_is_answered_by_its_models_in_order(scenes, shop):
    home, popular = scenes.scene("home").recommend([0], 25), scenes.scene("popular only").recommend([0], 25)
    assert home.sources == ("repeat", "popular")
    assert home.source[0].tolist() == sorted(home.source[0].tolist())
    assert home.valid[0] == popular.valid[0] == 25
    np.testing.assert_array_equal(popular.ids, scenes.models["popular"].recommend([0], 25).ids)
    assert scenes.scene("home").submodels[1] is scenes.scene("popular only").submodels[0]


def test_a_scene_nobody_trained(scenes):
    with pytest.raises(InvalidRequest, match="home, popular only"):
        scenes.scene("upgrade")
    with pytest.raises(InvalidRequest, match="none"):
        SceneModels().scene("home")


def test_save_and_load(scenes, shop, tmp_path):
    scenes.save(tmp_path / "scenes")
    loaded = SceneModels.load(tmp_path / "scenes")
    users = np.arange(-1, shop.n_users)
    for scene in scenes.scenes:
        one, other = scenes.scene(scene).recommend(users, 9), loaded.scene(scene).recommend(users, 9)
        np.testing.assert_array_equal(one.ids, other.ids)
        np.testing.assert_array_equal(one.scores, other.scores)
        assert one.sources == other.sources


@pytest.mark.parametrize(
    "change", [{"models": {"own": "no such", "popular": "popular"}}, {"scenes": {"home": ["own", "gone"]}}]
)
def test_a_description_that_does_not_hold_together(scenes, tmp_path, change):
    scenes.save(tmp_path / "scenes")
    path = tmp_path / "scenes" / "scenes.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ArtifactError, match=r"no such|gone"):
        SceneModels.load(tmp_path / "scenes")
