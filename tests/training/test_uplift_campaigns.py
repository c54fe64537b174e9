"""`train uplift` on campaigns of the lake: known effects are found, and every refusal says what would be enough."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.special import expit

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources import SOURCES
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.conftest import write_lake
from training.gate import apply_gate
from training.jobs.base import TrainingContext
from training.jobs.uplift import run
from training.report import EvalReport, Metric
from training.uplift.campaign_report import RULES, enough, report_of
from training.uplift.campaign_rows import CampaignRows
from training.uplift.campaign_trial import campaign_trial
from training.uplift.choice import choose
from training.uplift.overlap import overlap_of, require_overlap, standardised_differences
from training.uplift.placebo import Placebo

BEGIN, CONTACT = datetime(2024, 1, 1), datetime(2024, 3, 1)


def context_of(workspace, as_of=None, **settings) -> TrainingContext:
    uplift = {"campaigns": ["c"], "horizon_days": 14, **settings}
    moment = as_of or Lake(workspace).default_as_of
    return TrainingContext(workspace, moment, Settings.model_validate({"uplift": uplift}), lambda line: None)


def order(user, day):
    return {
        "source": "shop",
        "order_id": f"{user}-{day}",
        "line_no": 1,
        "source_user_id": user,
        "item_id": "i",
        "ts": BEGIN + timedelta(days=day),
        "quantity": 1.0,
        "amount": 10.0,
        "status": "paid",
    }


def touches(users, at=CONTACT, variant=None, campaign="c"):
    return [
        {
            "source": "shop",
            "touch_id": f"{campaign}-{user}",
            "campaign_id": campaign,
            "source_user_id": user,
            "ts": at,
            "variant": variant,
        }
        for user in users
    ]


USERS = [f"u{n}" for n in range(120)]
VARIED = [order(user, day) for n, user in enumerate(USERS) for day in range(n % 11, 100, 4 + n % 17)]
ALIKE = [order(user, day) for user in USERS for day in (10, 50, 99)]


def shop(tmp_path, contacts, lines=VARIED) -> Workspace:
    return write_lake(tmp_path / "workspace", {"transactions": lines, "touches": contacts}).workspace


# small shops, but a build of the profiles takes a CPU second: what is refused before one is in the default suite
@pytest.mark.parametrize(
    ("contacts", "lines", "settings", "told"),
    [
        (touches(USERS), VARIED, {}, "everybody was contacted.*at least 30 customers contacted and 30 not"),
        (touches(["stranger"]), VARIED, {}, "nobody with an order.*0 of 120 customers contacted"),
        (touches(USERS[:10]), VARIED, {}, "too few customers were contacted.*10 contacted, 110 not.*at least 30"),
        (touches(USERS[:60]), ALIKE, {}, "all customers have the same features"),
        (touches(USERS[:60], CONTACT + timedelta(days=30)), VARIED, {}, "is not over.*horizon of at most"),
        (touches(USERS[:60]), VARIED, {"campaigns": []}, "no campaign is declared.*c: 60 contacted.*--campaign c"),
        (touches(USERS[:60]), VARIED, {"outcome": "brand=none"}, "no row of the lake is of this brand"),
        (
            [
                *touches(USERS[:60]),
                *touches(USERS[:40], campaign="d"),
                *touches(USERS[40:], campaign="d", variant="control"),
            ],
            VARIED,
            {"campaigns": ["c", "d"]},
            "in some of the campaigns only.*held out in d",
        ),
        (
            [*touches(USERS[:60]), *touches(USERS[60:70], variant="control")],
            VARIED,
            {},
            "too few customers were not contacted.*'10'.*at least 30",
        ),
    ],
    ids=[
        *("everybody", "nobody", "ten customers", "identical customers", "not over", "none declared", "no such brand"),
        *("two kinds", "ten held out"),
    ],
)
def test_refusals(tmp_path, contacts, lines, settings, told):
    with pytest.raises(DataError, match=told):
        run(context_of(shop(tmp_path, contacts, lines), **settings))


def test_of_a_kind_the_campaigns_that_are_not_over_are_left_out(tmp_path, monkeypatch):
    """A campaign of this week does not stop the training on those before; one that is named by its id is refused."""
    start, kind = datetime(2024, 1, 1), {"kind": "mail"}
    names = ("c", "running", "later")
    tables = {
        "transactions": VARIED,
        "campaigns": [{"campaign_id": name, "start": start, "end": start + timedelta(14), **kind} for name in names],
        "touches": [
            one
            for days, name in zip((0, 30, 60), names, strict=True)
            for arm, users in ((None, USERS[:60]), ("control", USERS[60:]))
            for one in touches(users, CONTACT + timedelta(days=days), arm, name)
        ],
    }
    workspace = write_lake(tmp_path / "workspace", tables).workspace
    read = []
    monkeypatch.setattr("training.jobs.uplift.campaign_rows", lambda context, arms, *rest: read.append(arms) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        run(context_of(workspace, campaigns=["kind=mail"]))
    assert [one.campaign.campaign_id for one in read] == ["c"]
    with pytest.raises(DataError, match="campaign running is not over"):
        run(context_of(workspace, campaigns=["kind=mail", "running"]))
    with pytest.raises(DataError, match="campaign c is not over"):
        run(context_of(workspace, CONTACT + timedelta(days=3), campaigns=["kind=mail"]))


def test_a_campaign_after_the_cutoff_and_one_that_there_is_not(tmp_path):
    workspace = shop(tmp_path, touches(USERS[:60]))
    with pytest.raises(DataError, match="begins after the cutoff"):
        run(context_of(workspace, CONTACT - timedelta(days=3)))
    with pytest.raises(UsageError, match="no campaign of the lake is called so.*allowed: c"):
        run(context_of(workspace, campaigns=["x"]))


def drawn(n, seed=0, *, chosen_by_x=0.0) -> CampaignRows:
    """Customers of whom those with a high first feature are contacted more often, and whose outcome rises with it."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    treated = rng.random(n) < expit(chosen_by_x * X[:, 0])
    outcome = X[:, 0] + 0.5 * treated + rng.normal(size=n)
    return CampaignRows(X, treated, outcome, None, np.arange(n).astype(str), np.zeros(n, dtype=np.int64))


@pytest.fixture(scope="module")
def spec():
    from features.compute.algebra import Feature
    from features.compute.spec import FeatureSpec

    names = ("orders_28d", "orders_91d", "lines_28d")
    return FeatureSpec(tuple(Feature(name, "orders", "count", description=name) for name in names), ((),) * 3)


def test_weighting_balances_the_arms_and_the_effect_is_covered(spec):
    from training.uplift.effect import average_effect

    rows = drawn(1500, chosen_by_x=1.0)
    made = campaign_trial(rows, spec, 0, randomised=False)
    assert made.overlap.before["orders_28d"] > 0.7
    assert made.overlap.after["orders_28d"] < 0.15
    assert made.overlap.kept_share > 0.9
    require_overlap(made.overlap)
    effect = average_effect(made.trial, 0)
    assert effect.low < 0.5 < effect.high
    naive = rows.outcome[rows.treated].mean() - rows.outcome[~rows.treated].mean()
    assert naive > effect.high  # what a comparison without propensities would claim


def test_no_overlap(spec):
    rows = drawn(600, chosen_by_x=40.0)
    made = campaign_trial(rows, spec, 0, randomised=False)
    with pytest.raises(DataError, match="no overlap.*at least 50%.*hold out a tenth"):
        require_overlap(made.overlap)
    nobody = overlap_of(rows, np.full(600, 0.99), spec.names)
    assert not nobody.kept.any()
    assert nobody.after == nobody.before


def test_standardised_differences():
    X = np.array([[0.0, 5.0], [2.0, 5.0], [1.0, 5.0], [5.0, 5.0]], dtype=np.float32)
    treated = np.array([True, True, False, False])
    found = standardised_differences(X, treated, np.array([1.0, 1.0, 3.0, 1.0]))
    np.testing.assert_allclose(found, [abs(1.0 - 2.0) / np.sqrt((1.0 + 4.0) / 2), 0.0])


def test_a_failed_placebo_or_an_unusable_effect_is_refused_and_says_what_would_be_enough(spec):
    """A trial without any effect: the gate refuses, and an impossible placebo test only where nobody was held out."""
    rows = drawn(400)
    made = campaign_trial(replace(rows, outcome=rows.outcome - 0.5 * rows.treated), spec, 0, randomised=True)
    evaluation = choose(made.trial, 0, splits=2).evaluation
    assert not evaluation.usable
    passed = apply_gate(report_of(evaluation, Placebo(True), None, ()), RULES)
    assert not passed.passed
    assert "customers" in passed.reasons[0]
    assert "would be" in enough(evaluation)
    usable = replace(evaluation, usable=True)
    overlap = overlap_of(rows, np.full(len(rows), 0.5), spec.names)
    for placebo, how, objects in (
        (Placebo(True), None, False),
        (Placebo(False), None, True),
        (Placebo(None, reason="too short"), None, False),
        (Placebo(None, reason="too short"), overlap, True),
    ):
        assert bool(report_of(usable, placebo, how, ()).objections) == objects


def test_objections_are_the_first_reasons():
    report = EvalReport({}, {}, {"gain:at random": Metric(1.0, 0.5, 1.5, 9)}, objections=("the placebo test failed",))
    refused = apply_gate(report, RULES[:1])
    assert not refused.passed
    assert refused.reasons == ("the placebo test failed",)


@pytest.mark.slow
def test_the_known_effects_of_the_synthetic_shop_are_found(tmp_path):
    """The interval covers the true average, and the customers with a high uplift are those with a high true lift."""
    source = SOURCES["synthetic"](customers=1500, days=105, seed=1)
    workspace = Workspace(tmp_path / "workspace")
    ingest(workspace, source, Settings())
    settings = {"campaigns": ["kind=message"], "horizon_days": 7, "outcome": "orders"}
    found = run(context_of(workspace, **settings))
    report = apply_gate(found.report, found.rules)
    assert report.passed, report.reasons
    facts, truth = found.bundle.facts, source.truth()
    effects = truth["effects"][truth["effects"]["campaign_id"].isin(facts["campaign"])]
    assert facts["randomised"]
    assert facts["placebo"]["passed"]
    assert facts["effect"]["low"] < effects["lift"].mean() < facts["effect"]["high"]
    lift = dict(zip(effects["person_id"], effects["lift"], strict=True))
    person = {row.source_user_id: row.person_id for row in truth["accounts"].itertuples()}
    customers = Lake(workspace).connect().table("customers").to_pyarrow().to_pylist()
    of_customer = {row["one_id"]: lift.get(person.get(row["source_user_id"])) for row in customers}
    one_ids, deciles = found.tags["uplift_decile"]
    known = [
        (decile, of_customer[one])
        for one, decile in zip(one_ids, deciles, strict=True)
        if of_customer.get(one) is not None
    ]
    high, low = ([value for decile, value in known if decile in tenths] for tenths in ((1, 2, 3), (8, 9, 10)))
    assert np.mean(high) - np.mean(low) > 4 * np.sqrt(np.var(high) / len(high) + np.var(low) / len(low))
