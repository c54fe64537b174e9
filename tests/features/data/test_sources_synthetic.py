"""The made-up shop: its rows must show the truth it tells."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.data.sources.synthetic import Synthetic, generate
from features.data.sources.synthetic_orders import EFFECT_DAYS
from features.data.sources.synthetic_shop import SyntheticShop, season_factors
from qianmian.errors import UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace


@pytest.fixture(scope="module")
def world() -> tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]:
    made = generate(1500, 365, 7)
    return {name: table.to_pandas() for name, table in made.tables.items()}, dict(made.truth)


def test_the_same_seed_gives_the_same_rows() -> None:
    first, second, other = generate(40, 90, 1), generate(40, 90, 1), generate(40, 90, 2)
    assert all(first.tables[name].equals(second.tables[name]) for name in first.tables)
    assert not first.tables["transactions"].equals(other.tables["transactions"])


def test_it_passes_its_own_contract(tmp_path: Path) -> None:
    workspace = Workspace(tmp_path)
    source = SOURCES["synthetic"](customers=60, days=90, seed=3)
    report = ingest(workspace, source, Settings())
    assert report.read == report.kept
    intents = ingest(
        Workspace(tmp_path / "intents"), SOURCES["synthetic"](customers=60, days=90, intent=True), Settings()
    )
    assert intents.read == intents.kept
    assert all(not table.flags for table in report.tables.values())
    assert ingest(workspace, SOURCES["synthetic"](customers=60, days=90, seed=3), Settings()).digest == report.digest
    accounts = source.truth()["accounts"]
    known = Lake(workspace).connect().con.execute("SELECT source, source_user_id FROM customers").df()
    assert set(known.itertuples(index=False, name=None)) == set(
        accounts[["source", "source_user_id"]].itertuples(index=False, name=None)
    )


def test_people_use_several_accounts_and_share_a_telephone(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    tables, truth = world
    accounts = truth["accounts"]
    per_person = accounts.groupby("person_id").size()
    assert 0.15 < (per_person == 2).mean() < 0.35
    phones = tables["identities"].query("id_type == 'phone'").merge(accounts, on=["source", "source_user_id"])
    assert not phones[["id_value", "person_id"]].drop_duplicates()["id_value"].duplicated().any()
    assert (phones.groupby("id_value").size() > 1).sum() > 100


def test_nobody_orders_before_coming_or_after_leaving(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    tables, truth = world
    bought = tables["transactions"].query("status == 'paid'").merge(truth["accounts"], on=["source", "source_user_id"])
    bought = bought.merge(truth["persons"], on="person_id")
    assert (bought["ts"] >= bought["started_at"].dt.floor("D")).all()
    left = bought.dropna(subset="churned_at")
    assert len(left) > 1000
    assert (left["ts"] < left["churned_at"]).all()


def test_purchases_follow_the_preferences_and_looks_tell_of_them(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    tables, truth = world
    bought = (
        tables["transactions"]
        .merge(tables["items"], on="item_id")
        .merge(truth["accounts"], on=["source", "source_user_id"])
    )
    counts = bought.groupby(["person_id", "category"]).size().rename("count").reset_index()
    both = truth["preferences"].merge(counts, on=["person_id", "category"], how="left").fillna({"count": 0})
    assert both["share"].corr(both["count"] / both.groupby("person_id")["count"].transform("sum")) > 0.8
    # a cold customer can be judged by attributes: people of the north like other departments than people of the west
    north, west = (
        bought.merge(tables["profiles"].query("region == @region"), on=["source", "source_user_id"])
        for region in ("north", "west")
    )
    shares = [part["category"].str.split("/").str[0].value_counts(normalize=True) for part in (north, west)]
    assert abs(shares[0]["grocery"] - shares[1]["grocery"]) > 0.3


def test_items_come_back_at_their_cycle(world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]) -> None:
    tables, truth = world
    bought = (
        tables["transactions"]
        .query("status == 'paid'")
        .merge(truth["accounts"], on=["source", "source_user_id"])
        .sort_values("ts")
    )
    gaps = bought.assign(gap=bought.groupby(["person_id", "item_id"])["ts"].diff().dt.total_seconds() / 86_400).groupby(
        ["person_id", "item_id"]
    )["gap"]
    both = truth["cycles"].set_index(["person_id", "item_id"]).join(gaps.agg(["median", "count"])).query("count >= 3")
    assert both["cycle_days"].corr(both["median"], method="spearman") > 0.6


def test_a_campaign_does_what_the_truth_says(world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]]) -> None:
    tables, truth = world
    orders = (
        tables["transactions"]
        .query("status == 'paid'")
        .drop_duplicates("order_id")
        .merge(truth["accounts"], on=["source", "source_user_id"])
    )
    touches = (
        truth["effects"]
        .merge(tables["campaigns"][["campaign_id", "start"]], on="campaign_id")
        .merge(truth["persons"][["person_id", "segment"]])
    )
    near = touches.reset_index().merge(orders[["person_id", "ts"]], on="person_id")
    near = near[(near["ts"] >= near["start"]) & (near["ts"] < near["start"] + pd.Timedelta(days=EFFECT_DAYS))]
    touches["orders"] = touches.index.map(near.groupby("index").size()).fillna(0)
    assert abs((touches["variant"] == "contact").mean() - 0.5) < 0.03
    for _, group in touches.groupby("segment"):
        contact, control = (group.loc[group["variant"] == arm] for arm in ("contact", "control"))
        error = np.sqrt(contact["orders"].var() / len(contact) + control["orders"].var() / len(control))
        assert abs(contact["orders"].mean() - control["orders"].mean() - group["lift"].mean()) < 4 * error + 0.05
    lifts = touches.groupby("segment")["lift"].mean()
    assert lifts[0] > lifts[1] > lifts[2] == 0 > lifts[3]


def test_the_season_multiplies_the_orders_of_a_month_and_nothing_else_changes() -> None:
    plain, seasonal = (
        generate(1500, 2 * 366, 7, SyntheticShop(gap_days=(45.0, 15.0, 200.0), season_strength=strength))
        for strength in (0.0, 4.0)
    )
    counts = []
    for made in (plain, seasonal):
        orders = made.tables["transactions"].to_pandas().query("status == 'paid'").drop_duplicates("order_id")
        # people who came at the start and never left, so that only the season differs between the months
        persons = made.truth["persons"]
        stayed = persons.loc[persons["churned_at"].isna() & (persons["started_at"] < "2024-01-02"), "person_id"]
        owner = orders.merge(made.truth["accounts"], on=["source", "source_user_id"])
        ts = owner.loc[owner["person_id"].isin(stayed) & owner["ts"].between("2024-06-01", "2026-01-01"), "ts"]
        counts.append(ts.dt.to_period("M").value_counts().sort_index())
    ratio = counts[1] / counts[0]
    expected = np.array(season_factors(4.0))[ratio.index.month - 1]
    assert abs(ratio / expected - 1.0).mean() < 0.08
    assert abs(ratio / expected - 1.0).max() < 0.25
    assert np.isclose(np.mean(season_factors(4.0)), 1.0)
    assert plain.truth["persons"].equals(seasonal.truth["persons"])


@pytest.fixture(scope="module")
def browsed() -> tuple[dict[str, pd.DataFrame], pd.DataFrame]:
    """A shop with intents, and its events about items with the person and category of each."""
    made = generate(600, 120, 7, SyntheticShop(intent=True, gap_days=(20.0, 7.0, 100.0)))
    tables = {name: table.to_pandas() for name, table in made.tables.items()}
    events = tables["events"].dropna(subset="item_id").merge(tables["items"], on="item_id")
    return tables, events.merge(made.truth["accounts"], on=["source", "source_user_id"])


def test_intents_change_neither_orders_nor_people(browsed: tuple[dict[str, pd.DataFrame], pd.DataFrame]) -> None:
    tables, _ = browsed
    plain = generate(600, 120, 7, SyntheticShop(gap_days=(20.0, 7.0, 100.0)))
    for name in ("transactions", "profiles", "identities", "items", "touches"):
        pd.testing.assert_frame_equal(tables[name], plain.tables[name].to_pandas())


def test_views_precede_orders_by_minutes_to_days(browsed: tuple[dict[str, pd.DataFrame], pd.DataFrame]) -> None:
    tables, events = browsed
    owners = events[["source", "source_user_id", "person_id"]].drop_duplicates()
    lines = tables["transactions"].query("status == 'paid'").merge(owners, on=["source", "source_user_id"])
    seen = lines.merge(events[["person_id", "item_id", "ts"]], on=["person_id", "item_id"], suffixes=("", "_seen"))
    hours = (seen["ts"] - seen["ts_seen"]).dt.total_seconds() / 3600
    before = seen[(hours > 0) & (hours <= 240)].assign(hours=hours)
    first = before.groupby(["order_id", "item_id"])["hours"].max()
    assert len(first) > 0.9 * len(lines)
    # more than a fifth of the bought items were met within the hour, and more than a fifth a day or longer before
    assert (first < 1.0).mean() > 0.2
    assert (first > 24.0).mean() > 0.2
    # an item in the cart is bought within ten days more often than one that was only viewed
    bought = events.merge(lines[["person_id", "item_id", "ts"]], on=["person_id", "item_id"], suffixes=("", "_bought"))
    days = (bought["ts_bought"] - bought["ts"]).dt.total_seconds() / 86_400
    hits = bought[(days > 0) & (days < 10)].drop_duplicates(["person_id", "item_id", "ts", "event_type"])
    rate = hits.groupby("event_type").size() / events.groupby("event_type").size()
    assert rate["cart"] > 2 * rate["view"]


def test_a_visit_compares_items_of_similar_price(browsed: tuple[dict[str, pd.DataFrame], pd.DataFrame]) -> None:
    _, events = browsed
    views = events.query("event_type == 'view'").sort_values(["session_id", "ts"])
    pairs = views[["session_id", "item_id", "category", "price"]].join(
        views[["session_id", "item_id", "category", "price"]].shift(-1), rsuffix="_next"
    )
    pairs = pairs[(pairs["session_id"] == pairs["session_id_next"]) & (pairs["item_id"] != pairs["item_id_next"])]
    same = pairs[pairs["category"] == pairs["category_next"]]
    assert len(same) > 0.7 * len(pairs)
    any_visit = same.groupby("category")["price_next"].transform(np.random.default_rng(0).permutation)
    distance, usual = (np.abs(np.log(same["price"] / others)) for others in (same["price_next"], any_visit))
    assert distance[distance > 0].mean() < 0.85 * usual[usual > 0].mean()


def test_strangers_visit_the_shop_and_never_buy(browsed: tuple[dict[str, pd.DataFrame], pd.DataFrame]) -> None:
    tables, events = browsed
    strangers = events[events["person_id"].str.startswith("v")]
    assert strangers["person_id"].nunique() == 240
    assert (strangers.groupby("person_id")["ts"].agg(np.ptp) < pd.Timedelta(days=20)).all()
    assert not tables["transactions"]["source_user_id"].str.startswith("v").any()
    assert not tables["profiles"]["source_user_id"].str.startswith("v").any()
    # one visit is one person's
    assert not events[["session_id", "person_id"]].drop_duplicates()["session_id"].duplicated().any()


def test_a_season_that_does_not_exist_is_refused() -> None:
    with pytest.raises(UsageError, match="season_strength ≥ 0"):
        Synthetic(season_strength=-1.0)
    with pytest.raises(UsageError, match="gap_days > 0"):
        Synthetic(gap_days=0.0)


def test_a_shop_too_small_is_refused() -> None:
    with pytest.raises(UsageError, match="customers ≥ 20"):
        Synthetic(customers=3)


def opened(tables: dict[str, pd.DataFrame], truth: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Who opened which content: one row a click, with its topics."""
    clicks = tables["events"][
        tables["events"]["content_id"].notna() & tables["events"]["event_type"].isin(["view", "message_open"])
    ]
    return clicks.merge(tables["contents"], on="content_id", suffixes=("", "_of")).merge(
        truth["accounts"], on=["source", "source_user_id"]
    )


def test_contents_have_topics_and_show_items_of_them(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    tables, _ = world
    contents, items = tables["contents"], tables["items"].set_index("item_id")["category"]
    assert set(contents["type"]) == {"article", "banner", "message"}
    assert contents["topics"].str.len().min() > 0
    shown = contents[contents["item_ids"] != ""]
    assert 0.5 < len(shown) / len(contents) < 0.8
    for topics, item_ids in zip(shown["topics"], shown["item_ids"], strict=True):
        assert {items[item].split("/")[-1] for item in item_ids.split("|")} <= set(topics.split("|"))


def test_people_read_what_interests_them_and_stay_longer_there(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    tables, truth = world
    topics = opened(tables, truth).assign(topic=lambda rows: rows["topics"].str.split("|")).explode("topic")
    counts = topics.groupby(["person_id", "topic"]).size().rename("count").reset_index()
    both = truth["interests"].merge(counts, on=["person_id", "topic"], how="left").fillna({"count": 0})
    both = both[both.groupby("person_id")["count"].transform("sum") >= 20]
    assert both["share"].corr(both["count"] / both.groupby("person_id")["count"].transform("sum")) > 0.6
    # a person stays longer with what interests them: seconds against the content's usual ones
    views = topics.merge(truth["interests"], on=["person_id", "topic"]).dropna(subset="duration_seconds")
    stayed = views["duration_seconds"] / views.groupby("content_id")["duration_seconds"].transform("median")
    assert stayed.corr(views["share"], method="spearman") > 0.2


def test_contents_are_met_after_they_appear_and_fade(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    tables, truth = world
    clicks = opened(tables, truth).merge(truth["published"], on="content_id").merge(truth["persons"], on="person_id")
    age = (clicks["ts"] - clicks["published_at"]).dt.total_seconds() / 86_400
    assert age.min() >= 0
    assert (age < 30).mean() > 0.4
    assert (clicks["ts"] >= clicks["started_at"].dt.floor("D")).all()
    again = clicks.duplicated(["person_id", "content_id"]).mean()
    assert 0.0 < again < 0.2
    # the last ones have hardly been met
    last = truth["published"].nlargest(10, "published_at")["content_id"]
    per_content = clicks.groupby("content_id").size()
    assert per_content.reindex(last).fillna(0).mean() < per_content.mean() / 2


def test_what_is_read_does_not_change_what_is_bought(
    world: tuple[dict[str, pd.DataFrame], dict[str, pd.DataFrame]],
) -> None:
    """An event is about an item or about a content, and interests stay in the truth."""
    tables, truth = world
    about_content, about_item = tables["events"]["content_id"].notna(), tables["events"]["item_id"].notna()
    assert (about_content ^ about_item).all()
    assert set(truth["interests"]["topic"]) >= {"dairy", "recipes"}
    assert not {"share", "appeal", "published_at"} & {column for table in tables.values() for column in table.columns}
    assert truth["interests"].groupby("person_id")["share"].sum().round(6).eq(1.0).all()
