"""Every tag has its Chinese words, and the RFM segments have their usual names."""

from __future__ import annotations

import re

import numpy as np
import pytest

from features.profiles.tags import TAGS
from features.profiles.tags.chinese import CATEGORIES_ZH, CHINESE
from features.profiles.tags.declare import TagContext
from features.profiles.tags.pack_tags import tags_for
from qianmian.packs import builtin_packs
from qianmian.schema import TAG_CATEGORIES
from qianmian.settings import Settings

HAN = re.compile(r"[\u4e00-\u9fff]")


@pytest.mark.parametrize("pack", [None, *builtin_packs()])
def test_every_tag_and_every_value_of_a_closed_list_has_chinese_words(pack):
    for tag in tags_for(Settings(pack=pack)):
        assert tag.chinese is not None, tag.name
        assert HAN.search(tag.chinese.name), tag.name
        assert HAN.search(tag.chinese.description), tag.name
        named = [tag.chinese.value(value) for value in tag.values]
        assert all(name and HAN.search(name) for name in named), tag.name
        assert len(set(named)) == len(named), f"{tag.name}: two values have one Chinese name"


def test_no_words_are_left_of_tags_or_values_that_are_gone():
    assert set(CHINESE) == set(TAGS)
    for tag in TAGS.values():
        if tag.values:
            assert set(CHINESE[tag.name].values) == set(tag.values), tag.name
    assert tuple(CATEGORIES_ZH) == TAG_CATEGORIES


@pytest.mark.parametrize(
    ("recent", "often", "much", "name"),
    [
        (True, True, True, "重要价值客户"),
        (True, False, True, "重要发展客户"),
        (False, True, True, "重要保持客户"),
        (False, False, True, "重要挽留客户"),
        (True, True, False, "一般价值客户"),
        (True, False, False, "一般发展客户"),
        (False, True, False, "一般保持客户"),
        (False, False, False, "一般挽留客户"),
    ],
)
def test_the_eight_rfm_segments_have_their_usual_names(recent, often, much, name):
    tag = TAGS["rfm_segment"]
    columns = {
        "days_since_last_order": np.array([5.0 if recent else 90.0]),
        "orders_365d": np.array([20.0 if often else 2.0]),
        "amount_365d": np.array([900.0 if much else 20.0]),
    }
    medians = {"days_since_last_order": [30.0], "orders_365d": [10.0], "amount_365d": [300.0]}
    (value,) = tag.rule(columns, TagContext(Settings(), medians))
    assert tag.chinese.value(str(value)) == name


def test_yes_and_no():
    chinese = TAGS["weekend_shopper"].chinese
    assert (chinese.value(True), chinese.value(False), TAGS["city"].chinese.value("北京")) == ("是", "否", None)
