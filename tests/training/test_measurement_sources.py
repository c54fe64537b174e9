"""Experiments from files and from the touches of a lake: windows, what is left out, and every refusal."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.definitions.building import make_builder
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings
from tests.features.conftest import write_lake
from training.measurement.campaign import campaign_experiment, exposed_experiment, find_exposures
from training.measurement.effects import measure
from training.measurement.experiment import check_sample_ratio, weights_of
from training.measurement.funnels import compare_funnels
from training.measurement.table import ExperimentColumns, read_experiment

BEGIN, CONTACT = datetime(2024, 1, 1), datetime(2024, 3, 1, 9)
END = datetime(2024, 5, 1)


# ---- files -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    """Write a file of 80 customers; columns are replaced by name."""

    def write(**columns):
        n = 80
        own = {
            "id": list(range(n)),
            "arm": ["control" if row % 2 else "mail" for row in range(n)],
            "spent": [f"{row % 7}.5" for row in range(n)],
            "orders": [row % 3 + 1 for row in range(n)],
            "bought": ["yes" if row % 3 else "no" for row in range(n)],
            "before": [row % 5 for row in range(n)],
            "seen": ["2024-03-01"] * n,
            "bought_at": ["2024-03-02"] * n,
            **columns,
        }
        path = tmp_path / "test.csv"
        lines = [",".join(own), *(",".join(map(str, row)) for row in zip(*own.values(), strict=True))]
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_a_file_is_read_with_its_numbers_answers_and_ratios(table):
    columns = ExperimentColumns(
        "arm",
        ["spent", "bought"],
        ["before", "before"],
        segments=["orders"],
        customer="id",
        exposed_at="seen",
        outcome_at="bought_at",
    )
    found = read_experiment(table(), columns)
    assert found.control == "control"
    assert found.metrics[0].values[:3].tolist() == [0.5, 1.5, 2.5]
    assert found.metrics[1].values[:4].tolist() == [0.0, 1.0, 1.0, 0.0]
    assert found.metrics[1].before.tolist() == [float(row % 5) for row in range(80)]
    assert found.segments["orders"][:3].tolist() == ["1", "2", "3"]
    assert found.notes == ()
    ratio = read_experiment(table(), ExperimentColumns("arm", ["spent"], denominators=["orders"]))
    assert ratio.metrics[0].name == "spent / orders"
    assert measure(ratio).effects[0].mean_control == pytest.approx(
        sum(row % 7 + 0.5 for row in range(1, 80, 2)) / sum(row % 3 + 1 for row in range(1, 80, 2))
    )


def test_rows_without_a_variant_are_left_out_and_told(table):
    arms = ["" if row < 3 else "control" if row % 2 else "mail" for row in range(80)]
    found = read_experiment(table(arm=arms), ExperimentColumns("arm", ["spent"]))
    assert len(found.variant) == 77
    assert [note.en for note in found.notes] == ["left out, without a variant: 3 rows"]


def test_propensities_of_a_file_are_how_the_variants_were_drawn(table):
    constant = [0.25 if row % 2 else 0.75 for row in range(80)]
    found = read_experiment(table(p=constant), ExperimentColumns("arm", ["spent"], propensity="p"))
    assert (found.weights, found.propensity) == ({"control": 0.25, "mail": 0.75}, None)
    assert check_sample_ratio(found).expected == {"control": 20.0, "mail": 60.0}
    varied = [0.5 + row / 400 for row in range(80)]
    found = read_experiment(table(p=varied), ExperimentColumns("arm", ["spent"], propensity="p"))
    assert found.weights is None
    assert found.propensity.tolist() == pytest.approx(varied)
    assert weights_of(found.variant, found.propensity) is None


@pytest.mark.parametrize(
    ("changes", "columns", "error", "told"),
    [
        ({}, {"variant": "arms"}, UsageError, r"no column arms \(did you mean arm\?\)"),
        ({"id": [row // 2 for row in range(80)]}, {"customer": "id"}, DataError, "the arms overlap.*40 customers"),
        ({"id": [row % 40 for row in range(80)]}, {"customer": "id"}, DataError, "a customer has several rows.*40"),
        (
            {"bought_at": ["2024-02-28"] * 4 + ["2024-03-02"] * 76},
            {"exposed_at": "seen", "outcome_at": "bought_at"},
            DataError,
            "outcomes before the exposure are not caused by it.*4 of 80 rows",
        ),
        (
            {"seen": ["soon"] * 80},
            {"exposed_at": "seen", "outcome_at": "bought_at"},
            DataError,
            "cells that are no times",
        ),
        ({"spent": ["many", *range(79)]}, {}, DataError, "cells that are no numbers.*1 of 80 cells, such as many"),
        ({"spent": ["", *range(79)]}, {}, DataError, "1 of 80 cells, such as an empty one.*write 0 where nothing"),
        ({"p": [0.0] * 80}, {"propensity": "p"}, DataError, "a propensity is a probability.*above 0"),
        ({"before": [-1] * 80}, {"denominators": ["before"]}, DataError, "a denominator is negative"),
        ({}, {"weights": {"control": 1.0}}, UsageError, "other variants than there are.*control, mail"),
    ],
    ids=[
        "no column",
        "overlap",
        "repeated",
        "before exposure",
        "no times",
        "no number",
        "empty",
        "propensity",
        "negative",
        "expected",
    ],
)
def test_files_are_refused(table, changes, columns, error, told):
    with pytest.raises(error, match=told):
        read_experiment(table(**changes), ExperimentColumns(**{"variant": "arm", "metrics": ["spent"], **columns}))


# ---- a lake ----------------------------------------------------------------------------------------------------------


def order(user, at, number=0, amount=10.0):
    return {
        "source": "shop",
        "order_id": f"{user}-{at:%m%d%H}-{number}",
        "line_no": 1,
        "source_user_id": user,
        "item_id": "i",
        "ts": at,
        "quantity": 1.0,
        "amount": amount,
        "status": "paid",
    }


def touch(user, variant, at=CONTACT, propensity=0.5, campaign="c", number=0):
    return {
        "source": "shop",
        "touch_id": f"{campaign}-{user}-{number}",
        "campaign_id": campaign,
        "source_user_id": user,
        "ts": at,
        "variant": variant,
        "propensity": propensity,
    }


def event(user, kind, at):
    return {
        "event_id": f"{user}-{kind}-{at:%m%d%H}",
        "source": "shop",
        "source_user_id": user,
        "event_type": kind,
        "ts": at,
        "item_id": "i",
    }


MAIL, CONTROL = [f"m{n}" for n in range(40)], [f"c{n}" for n in range(40)]
USERS = [*MAIL, *CONTROL]
TOUCHES = [*(touch(user, "mail") for user in MAIL), *(touch(user, "control") for user in CONTROL)]
# two orders after the contact, one of them outside 14 days; one order before it, on the same day
ORDERS = [
    *(order(user, CONTACT + timedelta(days=3), amount=20.0) for user in MAIL[:30]),
    *(order(user, CONTACT + timedelta(days=20)) for user in USERS),
    *(order(user, CONTACT - timedelta(hours=2)) for user in USERS[::4]),
    *(order(user, CONTACT + timedelta(days=2)) for user in CONTROL[:10]),
    order("c0", END),
]


@pytest.fixture
def builder_of(tmp_path):
    def make(touches, orders=ORDERS, events=()):
        tables = {"transactions": orders, "touches": touches, **({"events": events} if events else {})}
        return make_builder(write_lake(tmp_path / "workspace", tables), Settings())

    return make


def test_outcomes_count_after_each_customers_own_touch(builder_of):
    late = [
        touch(user, variant, CONTACT + timedelta(days=10)) for user, variant in (("m39", "mail"), ("c39", "control"))
    ]
    kept = [one for one in TOUCHES if one["source_user_id"] not in ("m39", "c39")]
    builder = builder_of([*kept, *late])
    exposures = find_exposures(builder, "c", END, 14)
    assert (exposures.campaign.campaign_id, len(exposures.one_ids), exposures.notes) == ("c", 80, ())
    experiment = campaign_experiment(builder, exposures, ["order", "orders", "amount"], END, "control")
    assert experiment.weights == {"control": 0.5, "mail": 0.5}
    mail = experiment.variant == "mail"
    sums = {one.name: (one.values[mail].sum(), one.values[~mail].sum()) for one in experiment.metrics}
    # the two of the later touch have their order of day 20 inside their window
    assert sums == {"order": (31, 11), "orders": (31, 11), "amount": (610, 110)}
    assert {one.name: one.before.sum() for one in experiment.metrics} == {"order": 20, "orders": 20, "amount": 200}
    found = measure(experiment, daily=False)
    assert found.effects[0].raw.absolute.value == pytest.approx(20 / 40)


def test_the_first_touch_counts_and_windows_that_are_not_over_do_not(builder_of):
    again = [touch(user, "mail", CONTACT + timedelta(days=5), number=1) for user in MAIL[:5]]
    waiting = [touch(f"w{n}", "mail", datetime(2024, 4, 25)) for n in range(3)]
    exposures = find_exposures(builder_of([*TOUCHES, *again, *waiting]), "c", END, 14)
    assert len(exposures.one_ids) == 80
    assert set(exposures.start.tolist()) == {CONTACT}
    assert [note.en for note in exposures.notes] == ["not counted yet, because their 14 days are not over: 3 customers"]


def test_a_target_is_an_outcome(builder_of):
    builder = builder_of(TOUCHES)
    experiment = campaign_experiment(builder, find_exposures(builder, "c", END, 14), ["item=i"], END, "control")
    assert experiment.metrics[0].values.sum() == 40
    with pytest.raises(DataError, match="no row of the lake is of this item"):
        campaign_experiment(builder, find_exposures(builder, "c", END, 14), ["item=none"], END, "control")


def test_propensities_of_touches(builder_of):
    varied = [touch(user, "mail", propensity=0.4 + n / 400) for n, user in enumerate(MAIL)]
    builder = builder_of([*varied, *TOUCHES[40:]])
    experiment = exposed_experiment(find_exposures(builder, "c", END, 14), "control")
    assert experiment.weights is None
    assert np.sort(experiment.propensity)[0] == pytest.approx(0.4)


def test_touches_without_propensities_are_taken_as_drawn_alike_and_that_is_told(builder_of):
    builder = builder_of([{**one, "propensity": None} for one in TOUCHES])
    exposures = find_exposures(builder, "c", END, 14)
    experiment = exposed_experiment(exposures, "control")
    assert (experiment.weights, experiment.propensity) == (None, None)
    assert "not every touch tells its propensity" in exposures.notes[0].en
    given = exposed_experiment(exposures, "control", weights={"control": 1.0, "mail": 3.0})
    assert check_sample_ratio(given).is_mismatch


@pytest.mark.parametrize(
    ("touches", "as_of", "told"),
    [
        ([touch(user, None) for user in MAIL], END, "one arm: the touches name no variants.*40 of 40"),
        ([*TOUCHES, touch("x", None)], END, "some touches name no variant.*1 of 81"),
        ([*TOUCHES, *(touch(user, "control", number=1) for user in MAIL[:4])], END, "the arms overlap.*4 of 80"),
        (TOUCHES, CONTACT + timedelta(days=10), "no customer's window is over yet.*--as-of 2024-03-15 or later"),
        (TOUCHES, CONTACT - timedelta(days=1), "the campaign begins after the cutoff.*2024-03-01"),
        ([touch(user, "mail", propensity=1.5) for user in MAIL], END, "a propensity is a probability"),
    ],
    ids=["no variants", "some variants", "overlap", "too early", "later campaign", "propensity"],
)
def test_campaigns_are_refused(builder_of, touches, as_of, told):
    with pytest.raises(DataError, match=told):
        find_exposures(builder_of(touches), "c", as_of, 14)


def test_a_few_customers_in_two_variants_are_left_out(builder_of):
    many = [touch(f"x{n}", "mail" if n % 2 else "control") for n in range(120)]
    exposures = find_exposures(builder_of([*TOUCHES, *many, touch("m0", "control", number=1)]), "c", END, 14)
    assert len(exposures.one_ids) == 199
    assert [note.en for note in exposures.notes] == ["left out, in more than one variant: 1 customers"]


def test_a_kind_names_several_campaigns_and_a_name_none(builder_of, tmp_path):
    builder = builder_of(TOUCHES)
    with pytest.raises(UsageError, match="no campaign of the lake is called so.*'d'"):
        find_exposures(builder, "d", END, 14)
    two = [{"campaign_id": name, "kind": "mail", "start": CONTACT, "end": END} for name in ("c", "e")]
    tables = {"transactions": ORDERS, "touches": [*TOUCHES, touch("m0", "mail", campaign="e")], "campaigns": two}
    other = make_builder(write_lake(tmp_path / "other", tables), Settings())
    with pytest.raises(UsageError, match="one campaign is measured at a time.*c, e"):
        find_exposures(other, "kind=mail", END, 14)


def test_funnels_count_all_who_were_exposed_in_their_own_window(builder_of):
    events = [
        *(event(user, "view", CONTACT + timedelta(days=1)) for user in [*MAIL[:35], *CONTROL[:35]]),
        *(event(user, "cart", CONTACT + timedelta(days=2)) for user in [*MAIL[:32], *CONTROL[:12]]),
        *(event(user, "view", CONTACT - timedelta(days=1)) for user in USERS),
        *(event(user, "cart", CONTACT + timedelta(days=19)) for user in USERS),
    ]
    builder = builder_of(TOUCHES, events=events)
    exposures = find_exposures(builder, "c", END, 14)
    ratio = check_sample_ratio(exposed_experiment(exposures, "control"))
    found = compare_funnels(builder, exposures, ["view", "cart", "buy"], END, "control", ratio, daily=False)
    reached = {(one.step, one.variant): (one.reached, one.exposed) for one in found.effects}
    assert reached == {
        **{("view", arm): (35, 40) for arm in ("control", "mail")},
        ("cart", "control"): (12, 40),
        ("cart", "mail"): (32, 40),
        ("buy", "control"): (10, 40),
        ("buy", "mail"): (30, 40),
    }
    by_step = {one.step: one for one in found.effects if one.variant == "mail"}
    assert by_step["view"].difference.value == 0.0
    assert by_step["buy"].difference.value == pytest.approx(0.5)
    assert by_step["buy"].of_previous == pytest.approx(30 / 32)
    assert by_step["buy"].difference.p_value < by_step["buy"].p_holm < 0.001
    assert all(one.difference is None for one in found.effects if one.variant == "control")
    with pytest.raises(DataError, match="no customer of the campaign reached 'favourite'"):
        compare_funnels(builder, exposures, ["favourite", "buy"], END, "control", ratio)


def test_a_funnel_of_customers_drawn_with_different_probabilities_is_refused(builder_of):
    varied = [touch(user, "mail", propensity=0.4 + n / 400) for n, user in enumerate(MAIL)]
    builder = builder_of([*varied, *TOUCHES[40:]])
    exposures = find_exposures(builder, "c", END, 14)
    ratio = check_sample_ratio(exposed_experiment(exposures, "control"))
    with pytest.raises(DataError, match="drawn with different probabilities.*propensities from 0.4 to 0.5.*measure ab"):
        compare_funnels(builder, exposures, ["view", "buy"], END, "control", ratio)


def test_a_funnel_of_one_arm_is_refused(builder_of):
    builder = builder_of(TOUCHES[:40])
    exposures = find_exposures(builder, "c", END, 14)
    ratio = check_sample_ratio(exposed_experiment(exposures, "mail"))
    with pytest.raises(DataError, match="between two arms or more"):
        compare_funnels(builder, exposures, ["view", "buy"], END, "mail", ratio)
