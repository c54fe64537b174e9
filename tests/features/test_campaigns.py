"""Campaigns of the lake: which there are, who was contacted and held out, and what is told of a wrong name."""

from __future__ import annotations

from datetime import datetime, timedelta

import numpy as np
import pytest

from features.campaigns import arms_of, campaigns_of, find_campaigns
from features.definitions.building import make_builder
from qianmian.errors import DataError, UsageError
from qianmian.settings import Settings

BEGIN = datetime(2024, 3, 1, 9)
END = datetime(2024, 6, 1)  # the cutoff, after all touches


def touch(campaign, user, hours=0.0, variant=None, propensity=None):
    return {
        "source": "shop",
        "touch_id": f"{campaign}-{user}-{hours}",
        "campaign_id": campaign,
        "source_user_id": user,
        "ts": BEGIN + timedelta(hours=hours),
        "variant": variant,
        "propensity": propensity,
    }


@pytest.fixture(scope="module")
def builder(lake_of):
    start = datetime(2024, 3, 1)
    lake = lake_of(
        {
            "campaigns": [
                {
                    "campaign_id": "spring",
                    "kind": "Type A",
                    "channel": "push",
                    "start": start,
                    "end": start + timedelta(7),
                },
                {"campaign_id": "nobody", "kind": "Type B"},
            ],
            "touches": [
                *(touch("spring", f"t{n}", n, "mail", 0.7) for n in range(3)),
                *(touch("spring", f"c{n}", 5, "Control", 0.3) for n in range(2)),
                touch("spring", "late", 40, "mail", 0.7),
                touch("spring", "both", 1, "mail", 0.7),
                touch("spring", "both", 2, "control", 0.3),
                *(touch("plain", f"t{n}", 100) for n in range(2)),
            ],
        }
    )
    return make_builder(lake, Settings())


def of(builder, *users):
    customers = builder.backend.table("customers").to_pyarrow().to_pylist()
    one_ids = {row["source_user_id"]: row["one_id"] for row in customers}
    return {one_ids[user] for user in users}


def test_what_campaigns_there_are(builder):
    spring, plain = campaigns_of(builder, END)
    assert str(spring) == "spring (Type A): 5 contacted, 2 held out"
    assert (spring.days, spring.first_contact, spring.is_randomised) == (7, BEGIN, True)
    assert (plain.kind, plain.days, plain.is_randomised) == (None, None, False)
    assert plain.contacted == 2


def test_arms_of_a_randomised_campaign(builder):
    """Outcomes begin when the last of the first day has been contacted; who came later or twice is left out."""
    arms = arms_of(builder, campaigns_of(builder, END)[0], END)
    assert set(arms.contacted) == of(builder, "t0", "t1", "t2")
    assert set(arms.held_out) == of(builder, "c0", "c1")
    assert (arms.as_of, arms.outcome_from) == (BEGIN, BEGIN + timedelta(hours=5))
    assert (arms.late, arms.both, arms.others) == (1, 1, frozenset(of(builder, "late", "both")))
    np.testing.assert_allclose(arms.propensity, 0.7)  # of being contacted, also for who was held out


def test_arms_without_control(builder):
    arms = arms_of(builder, campaigns_of(builder, END)[1], END)
    assert set(arms.contacted) == of(builder, "t0", "t1")
    assert len(arms.held_out) == 0
    assert arms.propensity is None


def test_no_touch_at_or_after_the_cutoff_is_read(builder):
    """Later contacts neither count nor leave a customer out of an arm; of a later campaign its beginning is told."""
    cutoff = BEGIN + timedelta(hours=2)  # of `both` the contact is read, and not the control variant
    spring = next(one for one in campaigns_of(builder, cutoff) if one.campaign_id == "spring")
    plain = next(one for one in campaigns_of(builder, cutoff) if one.campaign_id == "plain")
    assert (spring.contacted, spring.held_out) == (3, 0)
    assert (plain.contacted, plain.first_contact) == (0, BEGIN + timedelta(hours=100))
    arms = arms_of(builder, spring, cutoff)
    assert set(arms.contacted) == of(builder, "t0", "t1", "both")
    assert (arms.late, arms.both, arms.others) == (0, 0, frozenset())
    assert len(arms_of(builder, plain, cutoff).contacted) == 0


def test_campaigns_by_id_and_kind(builder):
    campaigns = campaigns_of(builder, END)
    named = find_campaigns(campaigns, ["plain", "kind=typea", "spring"])
    assert [one.campaign_id for one in named] == ["spring", "plain"]
    with pytest.raises(
        UsageError, match=r"no campaign of the lake is called so \(did you mean spring\?\).*plain, spring"
    ):
        find_campaigns(campaigns, ["sprin"])
    with pytest.raises(UsageError, match=r"did you mean Type A"):
        find_campaigns(campaigns, ["kind=Type C"])


def test_a_lake_without_contacts(lake_of):
    lake = lake_of(
        {"events": [{"source": "s", "event_id": "1", "source_user_id": "u", "event_type": "view", "ts": BEGIN}]}
    )
    with pytest.raises(DataError, match="no campaign contacts"):
        campaigns_of(make_builder(lake, Settings()), END)
