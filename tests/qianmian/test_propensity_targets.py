"""Propensity targets: their spelling, their names, and `targets.yaml` beside the settings."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from features.definitions.target_features import features_of, target_features
from features.profiles.tags.pack_tags import tags_for
from features.profiles.tags.target_tags import target_tags
from qianmian.config import load_settings
from qianmian.errors import ConfigError, UsageError
from qianmian.propensity_targets import PropensityTarget, parse_targets, read_targets, require_target, write_targets
from qianmian.settings import Settings


@pytest.mark.parametrize(
    ("text", "target", "slug"),
    [
        ("category=GROCERY/SOUP", "category=GROCERY/SOUP", "category_grocery_soup"),
        ("category:GROCERY/SOUP", "category=GROCERY/SOUP", "category_grocery_soup"),
        (" item=a=b ", "item=a=b", "item_a_b"),
        ("event=cart", "event=cart", "event_cart"),
        ("brand=雀巢", "brand=雀巢", "brand_a21c0d67"),
    ],
)
def test_a_target_has_one_spelling_and_a_name(text, target, slug):
    found = PropensityTarget.of(text)
    assert str(found) == target
    if found.name.isascii():
        assert found.slug == slug
    else:
        assert len(found.slug) == len(slug)
        assert found.slug != PropensityTarget("brand", "雀").slug


@pytest.mark.parametrize("text", ["soup", "category=", "colour=red", "=x", ""])
def test_other_spellings_are_refused(text):
    with pytest.raises(UsageError, match="a target is item=ID, category=NAME, brand=NAME or event=TYPE"):
        require_target(text)


def test_a_name_that_no_metric_can_carry_is_refused():
    with pytest.raises(UsageError, match="at most 150 characters"):
        require_target("item=" + "x" * 151)


def test_an_unknown_event_names_a_similar_one():
    with pytest.raises(UsageError, match="did you mean cart"):
        require_target("event=crt")


def test_targets_with_the_same_names_are_refused_and_repeated_ones_are_one():
    assert len(parse_targets(["brand=a", "brand:a"])) == 1
    with pytest.raises(ValueError, match="same names of features"):
        parse_targets(["category=a b", "category=a/b"])
    with pytest.raises(ValidationError, match="a target is item=ID"):
        Settings.model_validate({"propensity": {"targets": ["soup"]}})


def test_each_target_declares_features_and_a_tag():
    settings = Settings.model_validate({"propensity": {"targets": ["category=food/milk", "event=cart"]}})
    names = [feature.name for feature in target_features(settings)]
    assert names[:5] == [
        "category_food_milk_orders_28d",
        "category_food_milk_orders_91d",
        "category_food_milk_orders_182d",
        "category_food_milk_share_91d",
        "days_since_category_food_milk",
    ]
    assert len(names) == len(set(names)) == 10
    assert not any(feature.grows_with_calendar for feature in target_features(settings))
    assert [tag.name for tag in target_tags(settings)] == ["propensity_category_food_milk", "propensity_event_cart"]
    assert {tag.name for tag in target_tags(settings)} <= {tag.name for tag in tags_for(settings)}
    assert all(tag.chinese is not None for tag in target_tags(settings))
    assert features_of(PropensityTarget("category", "food"))[0].where[0].operator == "under"


def test_the_targets_of_the_file_are_added_to_those_of_the_settings(tmp_path):
    config = tmp_path / "qianmian.yaml"
    assert read_targets(config) == ()
    write_targets(config, ["category=No, thanks", 'brand="x"'])
    assert read_targets(config) == ("category=No, thanks", 'brand="x"')
    assert load_settings(config).propensity.targets == ("category=No, thanks", 'brand="x"')
    config.write_text("propensity: {targets: ['event=cart'], horizon_days: 7}\n")
    settings = load_settings(config)
    assert settings.propensity.targets == ("event=cart", "category=No, thanks", 'brand="x"')
    assert settings.propensity.horizon_days == 7
    write_targets(config, [])
    assert load_settings(config).propensity.targets == ("event=cart",)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("targets: [soup]\n", "a target is item=ID"),
        ("targets: soup\n", "with a list"),
        ("- category=soup\n", "one key, `targets`"),
        ("targets: [12]\n", "is a number in YAML"),
        ("goals: []\n", "one key, `targets`"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, content, message):
    (tmp_path / "targets.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load_settings(tmp_path / "qianmian.yaml")
