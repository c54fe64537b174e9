"""Every pack gives what its `expected.yaml` says, from raw files to tags; a new folder under `packs/` is tested by lying there."""

from __future__ import annotations

from collections import defaultdict
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import yaml

from features.definitions.pack_features import declared_features, features_for, replenishment_cycles
from features.profiles.tags import TAGS, tag_values
from features.profiles.tags.pack_tags import LAPSED_CYCLES, MIN_CYCLE_ORDERS, tags_for
from qianmian.errors import ConfigError
from qianmian.model_settings import LifecycleSettings
from qianmian.packs import builtin_packs, load_pack
from qianmian.settings import Settings
from tests.packs.outcome import BEGIN, make_lake, outcome, shop_of
from tests.shared import made_once

PACKS = sorted(builtin_packs())


@pytest.fixture
def outcomes(tmp_path_factory):
    """The outcome of a pack, computed once."""
    return lambda name: made_once(tmp_path_factory, name, partial(outcome, name))[1]


def test_the_four_trades_are_there():
    assert {"beauty", "medical_aesthetics", "fast_moving_goods", "mother_and_baby"} <= set(PACKS)


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_gives_what_it_says(name, outcomes):
    expected = yaml.safe_load((builtin_packs()[name] / "expected.yaml").read_text(encoding="utf-8"))
    found = outcomes(name)
    assert found["learnt_days"] == pytest.approx(expected["learnt_days"], abs=1e-3)
    assert {key: value for key, value in found.items() if key != "learnt_days"} == {
        key: value for key, value in expected.items() if key != "learnt_days"
    }


@pytest.mark.parametrize("name", PACKS)
def test_what_is_learnt_is_near_the_truth_of_the_shop(name, outcomes):
    """The trade's cycle is the shop's truth; people buy with the first order after something ran out."""
    cycles = replenishment_cycles(Settings(pack=name))
    learnt = outcomes(name)["learnt_days"]
    assert learnt
    assert all(0.65 * cycles[cycle].days < days < 1.65 * cycles[cycle].days for cycle, days in learnt.items())


@pytest.mark.parametrize("name", PACKS)
def test_a_pack_is_worth_its_place(name):
    pack = load_pack(name)
    own = [tag for tag in tags_for(Settings(pack=name)) if tag.name not in TAGS]
    assert 5 <= len(pack.tags) <= 8
    assert {tag.name for tag in pack.tags} < {tag.name for tag in own}
    assert len(pack.events) >= 10
    assert pack.lifecycle
    assert pack.replenishment
    assert pack.synthetic is not None
    assert {"view", "cart"} <= set(pack.synthetic.event_names)
    assert pack.settings["lifecycle"] != {key: getattr(LifecycleSettings(), key) for key in pack.settings["lifecycle"]}


def test_a_feature_of_a_pack_says_whether_it_grows_with_the_calendar(tmp_path):
    text = """
title: Wine
description: Bottles.
features:
  - {name: bottles_bought, view: lines, aggregate: count, description: bottles ever}
"""
    (tmp_path / "pack.yaml").write_text(text)
    with pytest.raises(ConfigError, match="bottles_bought: does not say whether it grows with the calendar"):
        features_for(Settings(pack=str(tmp_path)))
    (tmp_path / "pack.yaml").write_text(text.replace("count,", "count, grows_with_calendar: true,"))
    (feature,) = features_for(Settings(pack=str(tmp_path)))
    assert feature.grows_with_calendar


@pytest.mark.parametrize("name", PACKS)
def test_what_was_bought_ever_grows_with_the_calendar(name):
    said = {one.name: one.grows_with_calendar for one in features_for(Settings(pack=name)) if not one.window_days}
    growing = {name for name, grows in said.items() if grows}
    assert growing == {name for name in said if name.endswith("_orders") or name.startswith("days_since_first_")}


@pytest.mark.parametrize("name", PACKS)
def test_every_value_of_a_tag_occurs_or_is_known_to_be_rare(name, outcomes):
    """A rule nobody can pass is a mistake in the pack."""
    rare = {
        ("mother_and_baby", "second_child", "true"),
        ("mother_and_baby", "child_stage", "beyond"),
        ("medical_aesthetics", "decision_stage", "booked"),
    }
    missing = []
    for tag in load_pack(name).tags:
        found = outcomes(name)["tags"][tag.name]
        texts = {str(one.value).lower() if isinstance(one.value, bool) else str(one.value) for one in tag.values}
        missing += [(name, tag.name, text) for text in texts if text not in found]
    assert set(missing) <= rare


def test_rare_values_by_hand():
    settings = Settings(pack="mother_and_baby")
    table = pa.table({feature.name: [feature.default] * 2 for feature in features_for(settings)})
    for name, values in {
        "days_since_first_toddler": [400.0, 800.0],
        "days_since_newborn": [20.0, 9999.0],
        "toddler_orders": [3.0, 9.0],
    }.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    found = tag_values(
        table, [tag for tag in tags_for(settings) if tag.name in ("second_child", "child_stage")], settings
    )
    assert found == {"child_stage": [None, "beyond"], "second_child": [True, False]}


def test_what_runs_out_is_computed_as_by_hand(tmp_path, outcomes):
    """Dates of each account's orders, read from the raw rows one by one."""
    name = "beauty"
    shop, cycles = shop_of(name), replenishment_cycles(Settings(pack=name))
    rows = {table: shop._data.tables[table].to_pandas() for table in ("transactions", "items")}
    category = dict(zip(rows["items"]["item_id"], rows["items"]["category"], strict=True))
    cycle_of = {member: cycle for cycle, stated in cycles.items() for member in stated.categories}
    as_of = pd.Timestamp(BEGIN) + pd.Timedelta(days=shop.days)
    dates = defaultdict(set)
    for row in rows["transactions"].itertuples():
        if row.status == "paid" and category[row.item_id] in cycle_of and row.ts < as_of:
            dates[row.source, row.source_user_id, cycle_of[category[row.item_id]]].add((row.ts, row.order_id))
    silent, own = {}, {}
    for key, orders in dates.items():
        moments = sorted(ts for ts, _ in orders)
        silent[key] = (as_of - moments[-1]).total_seconds() / 86_400
        if len(moments) >= MIN_CYCLE_ORDERS:
            own[key] = (moments[-1] - moments[0]).total_seconds() / 86_400 / (len(moments) - 1)
    stated = {}
    for cycle, given in cycles.items():
        shown = np.array([days for key, days in own.items() if key[2] == cycle and days > 0])
        stated[cycle] = (given.days, given.spread)
        if len(shown) >= 30:
            stated[cycle] = (float(np.median(shown)), 1.4826 * float(np.median(np.abs(shown - np.median(shown)))))
    counts = {"due": 0, "overdue": 0, "stocked": 0, "lapsed": 0}
    for user in {key[:2] for key in dates}:
        states = []
        for cycle, (days, spread) in stated.items():
            if (*user, cycle) in silent:
                each, waited = own.get((*user, cycle)) or days, silent[*user, cycle]
                off = (waited - each) / (each * spread / days)
                states.append(
                    "lapsed"
                    if waited > LAPSED_CYCLES * each
                    else "overdue"
                    if off > 1
                    else "due"
                    if off >= -1
                    else "stocked"
                )
        counts[min(states, key=list(counts).index)] += 1
    found = {state: n for state, n in outcomes(name)["tags"]["replenishment_state"].items() if state != "unknown"}
    assert found == counts


def test_the_stage_of_a_child_is_the_true_one_for_who_still_buys(tmp_path):
    from features.compute.builder import Builder
    from qianmian.config import load_settings

    lake = make_lake("mother_and_baby", tmp_path)
    settings = load_settings(lake.workspace.config_file)
    shop = shop_of("mother_and_baby")
    as_of = BEGIN + pd.Timedelta(days=shop.days)
    tag = [tag for tag in tags_for(settings) if tag.name == "child_stage"]
    wanted = {*tag[0].inputs, "days_since_last_order"}
    built = Builder(lake, declared_features(settings)).build(
        as_of, [feature for feature in declared_features(settings) if feature.name in wanted]
    )
    frame = built.table.to_pandas().assign(stage=tag_values(built.table, tag, settings)["child_stage"])
    truth = shop.truth()
    frame = frame.merge(truth["accounts"], left_on="user_id", right_on="source_user_id").merge(
        truth["persons"], on="person_id"
    )
    months = (as_of - frame["child_born_at"]).dt.total_seconds() / 86_400 / 30.4
    true = pd.cut(
        months, [-np.inf, 0, 6, 12, 36, np.inf], labels=["pregnancy", "newborn", "infant", "toddler", "beyond"]
    ).astype(str)
    asked = frame["stage"].notna() & (frame["days_since_last_order"] <= 45) & (months < 36)
    assert asked.sum() >= 50
    assert (frame["stage"] == true)[asked].mean() > 0.85
