"""`tags validate` on lakes whose truth is known."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import duckdb
import numpy as np
import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from features.definitions.building import make_builder
from features.profiles.governance.later import LaterRows
from features.profiles.governance.moments import choose_moments, needed_names, tags_at
from features.profiles.governance.validate import claiming_tags, compare, validate
from features.profiles.governance.verdicts import days_from
from features.profiles.tags import TAGS, published
from features.profiles.tags.claims import Later, NextOrder, Ordering, Preference
from features.profiles.tags.tagging import declared_tags
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

BEGIN = datetime(2024, 1, 1)
SETTINGS = Settings()


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    """A synthetic shop, its tags at three moments, and the end of its data."""
    workspace = Workspace(tmp_path_factory.mktemp("shop")).create()
    source = SOURCES["synthetic"](customers=400, days=260, seed=5)
    ingest(workspace, source, SETTINGS)
    lake = Lake(workspace)
    builder, end = make_builder(lake, SETTINGS), lake.default_as_of
    names = ("favourite_category", "value_tier", "purchase_cycle_days", "purchase_cycle", "active_hours", "buyer_stage")
    tags = [TAGS[name] for name in names]
    moments = [tags_at(builder, at, end, tags, SETTINGS) for at in choose_moments(BEGIN, end, 28, 3)]
    return builder, moments, end


def verdict(moments, tag, values, end, **more):
    """Verdict on a tag with these values at each moment."""
    given = [replace(moment, tags={tag.name: one, **more}) for moment, one in zip(moments, values, strict=True)]
    return compare(given, [tag], end, 28, 400).checks[0]


@pytest.mark.parametrize(
    "name", ["value_tier", "purchase_cycle", "purchase_cycle_days", "favourite_category", "active_hours"]
)
def test_a_tag_that_tells_is_borne_out_a_shuffled_one_is_not_and_a_reversed_one_is_contradicted(shop, name):
    _, moments, end = shop
    tag, rng = TAGS[name], np.random.default_rng(0)
    true = [moment.tags[name] for moment in moments]
    assert verdict(moments, tag, true, end).verdict == "borne_out"
    assert verdict(moments, tag, [rng.permutation(one) for one in true], end).verdict == "not_borne_out"
    known = sorted({value for one in true for value in one.tolist() if value is not None}, key=str)
    if name == "purchase_cycle_days":
        wrong = [np.array([None if value is None else -value for value in one], dtype=object) for one in true]
    else:  # the opposite level, or the next category
        order = list(tag.values or known)
        opposite = dict(
            zip(order, order[::-1] if name in ("value_tier", "purchase_cycle") else [*order[1:], order[0]], strict=True)
        )
        wrong = [np.array([opposite.get(value) for value in one], dtype=object) for one in true]
    assert verdict(moments, tag, wrong, end).verdict == "contradicted"


def test_the_days_to_the_next_order_are_ranked_and_their_interval_is_counted(shop):
    _, moments, end = shop
    tag = replace(TAGS["days_to_next_order"], claim=NextOrder("low", "high"))
    # the days that passed in truth, so that the tag knows the future
    waits = [np.where(np.isnan(moment.days_to_order), 200.0, moment.days_to_order) for moment in moments]
    given = [wait.astype(object) for wait in waits]

    def check(values, low, high):
        made = [
            replace(
                moment, tags={tag.name: one, "low": (wait * low).astype(object), "high": (wait * high).astype(object)}
            )
            for moment, one, wait in zip(moments, values, waits, strict=True)
        ]
        return compare(made, [tag], end, 28, 400).checks[0]

    sure = check(given, 0.9, 1.1)
    assert sure.verdict == "not_borne_out"
    assert sure.reason == "the interval for 80 % contains 100 % of the next orders"
    missed = check(given, 1.1, 1.2)
    assert "contains 0 %" in missed.reason
    assert missed.evidence.figures["share of the next orders in the interval for 80 %"].value < 0.1
    reversed_ = check([-one for one in given], 0.9, 1.1)
    assert reversed_.verdict == "contradicted"
    rng = np.random.default_rng(1)
    shuffled = check([rng.permutation(one) for one in given], 0.9, 1.1)
    assert shuffled.verdict == "not_borne_out"
    plain = compare(
        [replace(moment, tags={tag.name: one}) for moment, one in zip(moments, given, strict=True)],
        [replace(tag, claim=NextOrder())],
        end,
        28,
        400,
    ).checks[0]
    assert plain.verdict == "borne_out"


def test_few_customers_are_not_judged(shop):
    _, moments, end = shop
    few = [
        np.array([*one[:25], *[None] * (len(one) - 25)], dtype=object)
        for one in (m.tags["value_tier"] for m in moments)
    ]
    found = verdict(moments, TAGS["value_tier"], few, end)
    assert found.verdict == "too_few"
    assert "30 customers" in found.reason
    assert found.p_value is None


def test_shares_of_random_tags_that_pass_are_at_most_those_promised(shop):
    """Of 60 tags without information none is borne out or contradicted; each alone at 5 % would give three."""
    _, moments, end = shop
    rng = np.random.default_rng(2)
    tags = [replace(TAGS["value_tier"], name=f"noise{number}") for number in range(60)]
    given = [
        replace(
            moment,
            tags={
                tag.name: rng.choice(np.array(["low", "middle", "high"], object), len(moment.one_ids)) for tag in tags
            },
        )
        for moment in moments
    ]
    found = compare(given, tags, end, 28, 400).checks
    assert {check.verdict for check in found} == {"not_borne_out"}


# ---- small lakes -----------------------------------------------------------------------------------------------------


def order(user, day, number=0, amount=10.0, item="i"):
    return {
        "source": "till",
        "source_user_id": user,
        "order_id": f"{user}-{day}-{number}",
        "line_no": 1,
        "ts": BEGIN + timedelta(days=day),
        "item_id": item,
        "quantity": 1.0,
        "amount": amount,
        "status": "paid",
    }


def builder_of(lake):
    return make_builder(lake, SETTINGS)


def test_later_rows_are_those_from_the_moment_to_before_the_end(lake_of):
    rows = [
        order("a", 1),
        order("a", 10),
        order("a", 19.9),
        order("a", 20),
        order("b", 1),
        order("b", 9.99),
        order("b", 25),
    ]
    builder = builder_of(lake_of({"transactions": rows}))
    at, end = BEGIN + timedelta(days=10), BEGIN + timedelta(days=20)
    ids = builder.build(at, []).table
    by_user = dict(zip(ids["user_id"].to_pylist(), range(2), strict=True))
    later = LaterRows(builder, at, end, ids["one_id"].combine_chunks())
    any_, count, amount, mean = later.measures(
        [
            Later("", "orders", "any"),
            Later("", "orders", "count"),
            Later("", "orders", "sum", "amount"),
            Later("", "orders", "mean", "amount"),
        ]
    )
    a, b = by_user["a"], by_user["b"]
    assert (any_[a], count[a], amount[a], mean[a]) == (1, 2, 20.0, 10.0)
    assert (any_[b], count[b], amount[b]) == (0, 0, 0)
    assert np.isnan(mean[b])
    days = later.days_to_order()
    assert days[a] == 0
    assert np.isnan(days[b])
    rows_, values, names, counts = later.value_counts("lines", "item_id")
    assert (rows_.tolist(), values.tolist(), names, counts.tolist()) == ([a], [0], ["i"], [2.0])


def test_customers_are_those_of_the_moment_even_if_their_records_are_joined_later(lake_of):
    lake = lake_of({"transactions": [order("a", 1), order("a", 12), order("b", 1), order("b", 13), order("b", 14)]})
    joined = BEGIN + timedelta(days=11)
    with duckdb.connect() as connection:
        lake.attach(connection)
        earlier = "SELECT * FROM customers"
        later = (
            f"SELECT * REPLACE (TIMESTAMP '{joined}' AS valid_from, (SELECT one_id FROM customers "
            "WHERE source_user_id = 'a') AS one_id) FROM customers WHERE source_user_id = 'b'"
        )
        lake.commit(connection, {"customers": f"{earlier} UNION ALL {later}"})
    builder = builder_of(Lake(lake.workspace))
    table = builder.build(joined - timedelta(days=1), []).table
    later_rows = LaterRows(
        builder, joined - timedelta(days=1), BEGIN + timedelta(days=20), table["one_id"].combine_chunks()
    )
    counts = later_rows.measures([Later("", "orders", "count")])[0].tolist()
    assert dict(zip(table["user_id"].to_pylist(), counts, strict=True)) == {"a": 1, "b": 2}


def frequent_lake(extra=()):
    """60 customers who order every 4 days for 180 days, and 60 who order every 30 and stop."""
    rows = [order(f"often{n}", day + n / 60) for n in range(60) for day in range(0, 180, 4)]
    rows += [order(f"seldom{n}", day + n) for n in range(60) for day in range(0, 120, 30)]
    return {"transactions": [*rows, *extra]}


def claimed(days=(28,)):
    later = Later("share with an order", "orders", "any")
    return replace(TAGS["purchase_cycle"], claim=Ordering(later, (("weekly", "monthly"),), days))


def test_rows_after_the_end_change_nothing(lake_of):
    end, tags = BEGIN + timedelta(days=180), [claimed(), TAGS["value_tier"], TAGS["days_to_next_order"]]
    moments = choose_moments(BEGIN, end, 28, 2)
    rows = [order(f"seldom{n}", day, 1, 999.0) for n in range(60) for day in (180, 180.5, 190, 260)]
    rows += [order(f"new{n}", 181) for n in range(60)]
    before = validate(builder_of(lake_of(frequent_lake())), SETTINGS, tags, moments, end, 28)
    after = validate(builder_of(lake_of(frequent_lake(rows))), SETTINGS, tags, moments, end, 28)
    assert [check.as_dict() for check in before.checks] == [check.as_dict() for check in after.checks]
    assert before.checks[0].verdict == "borne_out"
    # the data of the command ends there as well if the rows are only in the future of --as-of
    assert before.customers == after.customers == 120


def test_a_horizon_counts_only_where_all_of_it_can_be_seen(lake_of):
    end = BEGIN + timedelta(days=180)
    builder = builder_of(lake_of(frequent_lake()))
    found = validate(builder, SETTINGS, [claimed(days=(28, 84))], [end - timedelta(days=28)], end, 28).checks[0]
    assert {one.days for one in found.evidence.values} == {28}
    assert found.verdict == "borne_out"
    moments = [end - timedelta(days=28), end - timedelta(days=84)]
    both = validate(builder, SETTINGS, [claimed(days=(28, 84))], moments, end, 28).checks[0]
    rows = {
        one.days: sum(other.rows for other in both.evidence.values if other.days == one.days)
        for one in both.evidence.values
    }
    assert rows == {28: 240, 84: 120}
    assert both.verdict == "not_borne_out"  # within 84 days nearly all of them order once more
    alone = validate(builder, SETTINGS, [claimed(days=(84,))], [end - timedelta(days=28)], end, 28).checks[0]
    assert (alone.verdict, alone.reason) == ("too_few", "no moment is followed by 84 days of data")


def test_customers_above_the_limit_are_sampled_and_the_same_at_every_moment(lake_of):
    end = BEGIN + timedelta(days=180)
    builder = builder_of(lake_of(frequent_lake()))
    moments = choose_moments(BEGIN, end, 28, 2)
    found = validate(builder, SETTINGS, [claimed()], moments, end, 28, max_customers=60)
    assert found.customers == 120
    assert 35 <= found.sampled <= 85
    rows = sum(one.rows for one in found.checks[0].evidence.values)
    assert rows == 2 * found.sampled
    assert max(one.customers for one in found.checks[0].evidence.values) <= found.sampled


def test_a_model_tag_is_checked_only_with_values_from_before_the_moment(lake_of):
    lake = lake_of(frequent_lake())
    end, tag = BEGIN + timedelta(days=180), TAGS["churn_risk"]
    moments = [end - timedelta(days=28), end - timedelta(days=84)]
    builder = builder_of(lake)
    absent = validate(builder, SETTINGS, [tag], moments, end, 28).checks[0]
    assert (absent.verdict, absent.reason) == ("too_few", "no model published values before the moments")
    table = builder.build(moments[0], []).table
    ids, users = table["one_id"].to_pylist(), table["user_id"].to_pylist()
    values = ["low" if user.startswith("often") else "high" for user in users]

    def rows_of(as_of):
        published.publish(lake.workspace, "churn_risk", ids, values, as_of=as_of, model_name="m", model_version="1")
        found = validate(builder, SETTINGS, [tag], moments, end, 28).checks[0]
        return found.verdict, sum(one.rows for one in found.evidence.values)

    assert rows_of(end) == ("too_few", 0)
    assert rows_of(moments[0]) == ("borne_out", 120)
    assert rows_of(moments[0] - timedelta(days=35)) == ("borne_out", 120)
    assert rows_of(moments[0] - timedelta(days=36)) == ("too_few", 0)  # stale then


def test_moments_are_as_many_as_the_data_allow():
    end = BEGIN + timedelta(days=119)
    assert choose_moments(BEGIN, end, 28, 4) == [end - timedelta(days=28)]
    assert len(choose_moments(BEGIN, end + timedelta(days=30), 28, 4)) == 2
    with pytest.raises(DataError, match="too short to check tags"):
        choose_moments(BEGIN, end - timedelta(days=1), 28, 4)


def test_a_tag_without_a_claim_or_of_another_name_is_refused():
    with pytest.raises(UsageError, match="claims nothing"):
        claiming_tags(list(TAGS.values()), ["gender"])
    with pytest.raises(UsageError, match="unknown tag") as error:
        claiming_tags(list(TAGS.values()), ["value_tire"])
    assert "value_tier" in error.value.got
    assert needed_names(list(TAGS.values()), ["brand_affinity"]) == ["favourite_brand", "brand_affinity"]


def test_claims_name_values_and_tags_that_exist():
    tags = {tag.name: tag for tag in declared_tags(SETTINGS)}
    for tag in tags.values():
        if isinstance(tag.claim, Ordering):
            named = {value for chain in tag.claim.chains for value in chain}
            assert named <= set(tag.values or (True, False)), tag.name
        if tag.claim is not None:
            assert set(needed_names(list(tags.values()), [tag.name])) <= set(tags)


# the synthetic shop draws these at random, so that there is nothing to tell
RANDOM = (
    "favourite_weekday",
    "weekend_shopper",
    "message_response",
    "demand_type",
    "coupon_user",
    "refund_prone",
    "engagement_trend",
)
# these grow with the age of a customer in the shop, so that they tell how new customers are
AGES = ("buyer_stage", "repertoire")


@pytest.mark.slow
def test_the_built_in_tags_of_the_synthetic_shop_are_borne_out(tmp_path):
    workspace = Workspace(tmp_path).create()
    ingest(workspace, SOURCES["synthetic"](customers=1000, days=365, seed=0), SETTINGS)
    lake = Lake(workspace)
    end = lake.default_as_of
    found = validate(
        make_builder(lake, SETTINGS), SETTINGS, declared_tags(SETTINGS), choose_moments(BEGIN, end, 28, 4), end, 28
    )
    verdicts = {check.tag: check.verdict for check in found.checks}
    assert "contradicted" not in verdicts.values(), verdicts
    assert {name: verdicts[name] for name in RANDOM if verdicts[name] == "borne_out"} == {}
    untold = {check.tag: check for check in found.checks if check.verdict == "not_borne_out"}
    # the gaps of this shop are more regular than those of most shops, so that an interval for 80 % contains more
    for name in ("days_to_next_order", "next_order_date"):
        assert name not in untold or untold.pop(name).reason.startswith("the interval for 80 % contains")
    assert set(untold) <= {*RANDOM, *AGES}


def test_values_of_a_column_that_no_value_of_the_tag_stands_for_count_as_another(lake_of):
    rows = [order(f"a{n}", day, item="tea") for n in range(40) for day in (1, 12)]
    rows += [order(f"b{n}", day, item="milk") for n in range(40) for day in (1, 12)]
    rows += [order(f"a{n}", 13, item="bread") for n in range(40)]
    lake = lake_of({"transactions": rows})
    builder = builder_of(lake)
    at, end = BEGIN + timedelta(days=10), BEGIN + timedelta(days=40)
    tag = replace(
        TAGS["favourite_item"], claim=Preference("lines", "item_id", (("hot", ("tea",)), ("cold", ("milk",))))
    )
    moment = tags_at(builder, at, end, [tag], SETTINGS)
    named = np.array(["hot" if value == "tea" else "cold" for value in moment.tags[tag.name]], dtype=object)
    found = compare([replace(moment, tags={tag.name: named})], [tag], end, 28, 80).checks[0]
    assert found.verdict == "borne_out"
    hot = next(one for one in found.evidence.values if one.value == "hot")
    assert (hot.customers, hot.everybody) == (40, pytest.approx(0.25))  # half of the rows of half of the customers
    assert hot.mean == pytest.approx(2.0)  # half of their own rows are bread


def test_the_bounds_of_the_next_order_may_be_dates():
    values = np.array(["2024-03-03", None, 4.0], dtype=object)
    assert days_from(datetime(2024, 3, 1, 12), values).tolist() == [1.5, pytest.approx(np.nan, nan_ok=True), 4.0]
