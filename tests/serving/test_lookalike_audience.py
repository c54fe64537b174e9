"""Audiences of lookalikes: who is left out and why, the control group, what sets the seed apart, and refusals."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest

from cli.main import run
from features.event_log import open_log
from features.event_log.rows import encode, make_row
from features.profiles.tags import TAGS
from qianmian.errors import InvalidRequest
from serving.endpoints import ENDPOINTS
from serving.events.live import LiveEvents
from serving.scoring.lookalike import Exclusions, find_audience, in_control_group, separability_words

NOW = datetime(2026, 1, 1)
SOURCE = None


def ids(users):
    return [(user, SOURCE) for user in users]


def answer(champions, **body):
    endpoint = ENDPOINTS["/lookalike"]
    return endpoint.respond(champions, endpoint.request.model_validate(body), NOW)


def stage_of(champions, one_id):
    return champions.customers.tags["lifecycle_stage"][champions.customers.user_map.row(one_id)]


def test_the_counts_add_up_to_all_customers(champions, buyers):
    found = answer(
        champions,
        seed_user_ids=buyers[:40],
        size=25,
        exclude=[buyers[50], buyers[3], "spirit"],
        exclude_tags={"lifecycle_stage": ["lost", None]},
        control_share=0.3,
        salt="spring",
    )
    counts = dict(found["counts"])
    assert counts.pop("considered") == sum(counts.values()) == len(champions.require("lookalike").bundle.user_ids)
    assert counts["seed"] == 40
    assert counts["excluded_ids"] == 1  # one of them is a seed customer, and counted there
    assert counts["contact"] == len(found["users"])
    assert counts["control"] == len(found["control_group"])
    assert counts["contact"] + counts["control"] == 25
    stages = {stage_of(champions, user["one_id"]) for user in found["users"] + found["control_group"]}
    assert not stages & {"lost", None}
    assert counts["excluded_tags"] > 0


def test_the_control_group_is_the_same_for_a_campaign_and_another_for_the_next(champions, buyers):
    body = {"seed_user_ids": buyers[:40], "size": 80, "control_share": 0.3, "with_evidence": False}
    first, again, other = (answer(champions, **body, salt=salt) for salt in ("spring", "spring", "summer"))
    assert first == again
    assert not {user["one_id"] for user in first["users"]} & {user["one_id"] for user in first["control_group"]}
    assert 8 <= len(first["control_group"]) <= 42
    assert {user["one_id"] for user in first["control_group"]} != {user["one_id"] for user in other["control_group"]}
    everybody = answer(champions, seed_user_ids=buyers[:40], size=80, with_evidence=False)
    assert everybody["control_group"] == []
    both = sorted(first["users"] + first["control_group"], key=lambda user: -user["score"])
    assert [user["score"] for user in both] == [user["score"] for user in everybody["users"]]


def test_the_control_group_does_not_depend_on_the_score():
    one_ids = [f"u{number}" for number in range(20_000)]
    drawn = in_control_group(one_ids, 0.1, "spring")
    assert abs(drawn.mean() - 0.1) < 0.01
    assert abs(drawn[:10_000].mean() - drawn[10_000:].mean()) < 0.02
    assert in_control_group(one_ids[::-1], 0.1, "spring").tolist() == drawn[::-1].tolist()
    wider = in_control_group(one_ids, 0.2, "spring")
    assert (wider | ~drawn).all(), "a larger share keeps those of a smaller one"
    assert not in_control_group(one_ids, 0.0, "spring").any()


def test_the_traits_of_frequent_buyers_are_that_they_buy_often(champions, buyers):
    snapshot = champions.customers
    traits = find_audience(champions, ids(buyers[:60]), size=30).traits
    assert 0 < len(traits) <= 10
    assert [abs(one.difference) for one in traits] == sorted((abs(one.difference) for one in traits), reverse=True)
    assert all(one.low <= one.difference <= one.high and one.low * one.high > 0 for one in traits)
    assert len({one.name for one in traits}) == len(traits)
    orders = next(one for one in traits if one.name.startswith("order"))
    assert orders.seed > orders.others
    assert orders.difference > 0
    assert orders.tgi is None
    rows = np.array([snapshot.user_map.row(champions.customers.resolve(user)) for user in buyers[:60]])
    for one in traits:
        if one.value is not None:
            has = np.array([value == one.value for value in snapshot.tags[one.name]])
            assert one.seed == pytest.approx(has[rows].mean())
            assert one.tgi == pytest.approx(100 * has[rows].mean() / has.mean())


def test_a_random_seed_has_hardly_a_trait_and_is_said_to_be_no_different(champions):
    users = champions.customers.table["user_id"].to_pylist()
    rng = np.random.default_rng(0)
    found = [find_audience(champions, ids(rng.choice(users, 60, replace=False).tolist()), size=30) for _ in range(10)]
    assert sum(len(one.traits) for one in found) <= 3
    assert sum(one.evidence.separable for one in found) <= 2
    chance = next(one.evidence for one in found if not one.evidence.separable)
    assert "nothing shows that the audience beats" in separability_words(chance)
    assert "随机" in separability_words(chance, "zh")


def test_traits_are_worded_in_both_languages(champions, buyers):
    both = [find_audience(champions, ids(buyers[:60]), size=30, lang=lang).traits for lang in ("en", "zh")]
    english, chinese = both
    assert [one.name for one in english] == [one.name for one in chinese]
    assert all(one.text.isascii() or "–" in one.text or "±" in one.text for one in english)
    assert all(any("一" <= character <= "鿿" for character in one.text) for one in chinese)


@pytest.mark.parametrize(
    ("changed", "field", "said"),
    [
        ({"seed": ["ghost"] * 30}, "seed_user_ids", "0 known of 30 ids"),
        ({"seed": "everybody"}, "seed_user_ids", "more than half of all customers"),
        ({"exclude": "everybody"}, "exclude", "nobody is left"),
        ({"tags": {"no_such_tag": ["x"]}}, "exclude_tags", "no such tag"),
        ({"tags": {"lifecycle_stage": ["losst"]}}, "exclude_tags", "no such value"),
        ({"tags": {"lifecycle_stage": [True]}}, "exclude_tags", "no such value"),
        ({"tags": {"average_order_value": ["12"]}}, "exclude_tags", "a tag of numbers"),
    ],
)
def test_what_cannot_work_is_refused(champions, buyers, changed, field, said):
    everybody = champions.customers.table["user_id"].to_pylist()
    seed, exclude = (
        everybody if changed.get(name) == "everybody" else changed.get(name) for name in ("seed", "exclude")
    )
    with pytest.raises(InvalidRequest, match=said) as caught:
        find_audience(
            champions, ids(seed or buyers[:40]), size=5, exclude=Exclusions(ids(exclude or []), changed.get("tags", {}))
        )
    assert caught.value.field == field
    assert "allowed" in str(caught.value) or "got" in str(caught.value)


def test_declared_values_are_allowed_whether_or_not_somebody_has_them_today(champions, buyers):
    for stage in TAGS["lifecycle_stage"].values:
        excluded = Exclusions(tags={"lifecycle_stage": [stage]})
        counts = find_audience(champions, ids(buyers[:40]), size=5, exclude=excluded, with_evidence=False).counts
        assert counts["excluded_tags"] <= list(champions.customers.tags["lifecycle_stage"]).count(stage)


def test_a_consent_that_was_withdrawn_by_an_event_counts_at_once(champions, buyers, tmp_path):
    profiles = champions.customers
    body = {"seed_user_ids": buyers[:40], "size": 400, "exclude_tags": {"consent_email": [False]}, "with_evidence": False}  # fmt: skip
    before = answer(champions, **body)
    place = next(
        profiles.user_map.row(one["one_id"])
        for one in before["users"]
        if profiles.tags["consent_email"][profiles.user_map.row(one["one_id"])]
    )
    one_id = profiles.one_ids[place]
    source, user = (profiles.table[name][place].as_py() for name in ("user_source", "user_id"))
    values = {"source": source, "source_user_id": user, "ts": profiles.as_of + timedelta(hours=1), "channel": "email"}
    log = open_log(tmp_path / "events.db")
    log.append([encode(make_row("withdrawn", {**values, "event_type": "consent", "granted": False}))])
    events = LiveEvents(lambda: log)
    events.start()
    try:
        events.wait(60)
        following = replace(champions, events=events)
        after = answer(following, **body)
        assert one_id not in {one["one_id"] for one in after["users"]}
        assert after["counts"]["excluded_tags"] == before["counts"]["excluded_tags"] + 1
        body["exclude_tags"] = {"consent_email": [True]}
        assert one_id in {one["one_id"] for one in answer(following, **body)["users"]}
    finally:
        events.close()


def test_the_file_has_the_same_groups_as_the_answer(workspace, champions, buyers, tmp_path, capfd):
    import pyarrow.csv as pa_csv

    (tmp_path / "seed.txt").write_text("\n".join(buyers[:40]))
    out = tmp_path / "audience.csv"
    arguments = ("--seed", tmp_path / "seed.txt", "--out", out, "--workspace", workspace.root, "--size", "30")
    options = ("--control-share", "0.3", "--salt", "spring", "--exclude-tag", "lifecycle_stage=lost")
    assert run(["score", "lookalike", *map(str, arguments), *options]) == 0
    said = " ".join(capfd.readouterr().out.split())
    assert "in the control group" in said
    assert "traits, the strongest first" in said
    body = {"seed_user_ids": buyers[:40], "size": 30, "control_share": 0.3, "salt": "spring"}
    found = answer(champions, **body, exclude_tags={"lifecycle_stage": ["lost"]})
    rows = pa_csv.read_csv(out).to_pylist()
    for group, users in (("contact", found["users"]), ("control", found["control_group"])):
        assert [row["one_id"] for row in rows if row["group"] == group] == [user["one_id"] for user in users]
    assert run(["score", "lookalike", *map(str, arguments), *options, "--lang", "zh"]) == 0
    rows = pa_csv.read_csv(out).to_pylist()
    for group, users in (("触达组", found["users"]), ("对照组", found["control_group"])):
        assert [row["OneID"] for row in rows if row["分组"] == group] == [user["one_id"] for user in users]
