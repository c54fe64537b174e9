"""Contact and demand in `/v1/predictions`: what the answers say, by models that are put beside the champions."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy import sparse

from features.event_log import open_log
from features.event_log.rows import encode, make_row
from models.bundle import ModelBundle
from models.classify.demand import RULE, DemandClassifier
from models.contact import N_CELLS, ContactPreferences
from models.pooled_patterns import CUSTOMER, PooledPatterns, Responses
from qianmian.schema import DEMAND_TYPES
from serving.champions import Champion, Champions
from serving.endpoints import ENDPOINTS
from serving.endpoints.predictions import ENDPOINT
from serving.events.live import LiveEvents
from serving.profile_models import refuse_other_timezones
from serving.scoring.predictions import score_predictions
from tests.waiting import until

NOW, AS_OF = datetime(2024, 8, 3), datetime(2024, 1, 1)
CHANNELS = ("email", "push")
LOOKS = ("viewed_price_level_mean", "content_event_share")


@pytest.fixture(scope="module")
def all_champions(champions) -> Champions:
    """The champions, with a model of contacts that knows all customers but one, and a model of demand types."""
    rng, profiles = np.random.default_rng(0), champions.customers
    one_ids = np.array(list(profiles.one_ids)[1:])
    times, channels = (
        Responses(sparse.csr_matrix(rng.poisson(1.0, (len(one_ids), cells)).astype(np.float32)))
        for cells in (N_CELLS, len(CHANNELS))
    )
    nobody = np.full(len(one_ids), -1, dtype=np.int64)
    contact = ContactPreferences(
        CHANNELS, *(PooledPatterns(CUSTOMER, customer_strength=1.0).fit(data, nobody) for data in (times, channels))
    )
    spec = profiles.spec.select(LOOKS)
    X = rng.normal(size=(200, len(LOOKS))).astype(np.float32)
    demand = DemandClassifier(RULE, LOOKS).fit(X, np.array(DEMAND_TYPES)[rng.integers(0, 4, 200)])
    models = {
        "contact": Champion("contact", "1", ModelBundle("contact", contact, AS_OF, user_ids=one_ids)),
        "demand": Champion("demand", "1", ModelBundle("demand", demand, AS_OF, spec)),
    }
    return replace(champions, models={**champions.models, **models})


@pytest.fixture(scope="module")
def scores(all_champions):
    """The row of each customer, with the place of the customer in the profiles."""
    profiles = all_champions.customers
    user_ids = profiles.table["user_id"].to_pylist()[:200]
    sources = profiles.table["user_source"].to_pylist()[:200]
    found = {}
    for source in set(sources):
        places = [place for place, one in enumerate(sources) if one == source]
        request = {"user_ids": [user_ids[place] for place in places], "user_source": source}
        answer = ENDPOINT.respond(all_champions, ENDPOINT.request.model_validate(request), NOW)
        ENDPOINT.response.model_validate(answer)
        found |= dict(zip(places, answer["scores"], strict=True))
    return found


def test_every_customer_has_a_time_and_an_unknown_one_that_of_all(scores):
    assert all(row["best_contact_time"]["day"] for row in scores.values())
    assert scores[0]["best_contact_time"]["basis"] == "all"
    assert {row["best_contact_time"]["basis"] for place, row in scores.items() if place} == {"customer"}


def test_no_channel_is_one_that_the_customer_refused(scores, all_champions):
    tags, refusals = all_champions.customers.tags, 0
    for place, row in scores.items():
        refused = {name for name in CHANNELS if tags[f"consent_{name}"][place] is False}
        ranked = [one["channel"] for one in row["ranked_channel_affinity"]]
        assert set(ranked) == set(CHANNELS) - refused
        shares = [one["share"] for one in row["ranked_channel_affinity"]]
        assert shares == sorted(shares, reverse=True)
        refusals += len(refused)
    assert refusals


def test_a_withdrawal_by_an_event_counts_at_once(all_champions, tmp_path):
    profiles = all_champions.customers
    place = profiles.tags["consent_email"].index(True)
    source, user = (profiles.table[name][place].as_py() for name in ("user_source", "user_id"))

    def channels(champions):
        request = {"user_ids": [user], "user_source": source, "predictions": ["contact"]}
        (row,) = ENDPOINT.respond(champions, ENDPOINT.request.model_validate(request), NOW)["scores"]
        return [one["channel"] for one in row["ranked_channel_affinity"]]

    assert "email" in channels(all_champions)
    log = open_log(tmp_path / "events.db")
    moment = profiles.as_of + timedelta(hours=1)
    values = {"source": source, "source_user_id": user, "ts": moment, "channel": "email", "granted": False}
    values["event_type"] = "consent"
    log.append([encode(make_row("withdrawn", values))])
    events = LiveEvents(lambda: log)
    events.start()
    try:
        events.wait(60)
        following = replace(all_champions, events=events)
        assert following.live.consents(profiles.one_ids[place]) == {"consent_email": False}
        assert "email" not in channels(following)
    finally:
        events.close()


def test_purchases_come_before_the_model_of_newcomers(scores, all_champions):
    tag = all_champions.customers.tags["demand_type"]
    for place, row in scores.items():
        if tag[place] is not None:
            assert (row["demand_type"], row["demand_type_source"]) == (tag[place], "purchases")
            assert row["demand_type_probability"] is None
        elif row["demand_type"] is None:
            assert "too few" in row["no_score_reasons"]["demand"]
        else:
            assert row["demand_type_source"] == "first_sessions"
            assert 0.25 <= row["demand_type_probability"] <= 1.0
    assert {row["demand_type_source"] for row in scores.values()} >= {"first_sessions"}


def test_the_file_says_the_same(scores, all_champions):
    table = score_predictions(all_champions, names=("contact", "demand")).table().slice(0, 200).to_pylist()
    for place, row in scores.items():
        for name in ("best_contact_time", "ranked_channel_affinity", "demand_type", "demand_type_probability"):
            assert table[place][name] == row[name]


def test_a_consent_that_was_withdrawn_by_an_event_counts_at_once(all_champions, scores, tmp_path):
    profiles, place = all_champions.customers, next(place for place, row in scores.items() if len(row["ranked_channel_affinity"]) == 2)  # fmt: skip
    user, source = (profiles.table[name][place].as_py() for name in ("user_id", "user_source"))
    log = open_log(tmp_path / "events.db")
    events = LiveEvents(lambda: log)
    events.start()
    events.wait(30)
    told = {"ts": NOW, "event_type": "consent", "channel": "email", "granted": False}
    log.append([encode(make_row("e1", {**told, "source": source, "source_user_id": user}))])
    until(lambda: events._last)
    served = replace(all_champions, events=events)

    def call(route, body):
        return ENDPOINTS[route].respond(served, ENDPOINTS[route].request.model_validate(body), NOW)

    one = {"user_id": user, "user_source": source}
    assert call("/profile", one)["tags"]["basic"]["consent_email"]["value"] is False
    (row,) = call("/predictions", {"user_ids": [user], "user_source": source})["scores"]
    assert [one["channel"] for one in row["ranked_channel_affinity"]] == ["push"]
    events.close()


def test_a_channel_is_that_of_a_consent_however_it_is_written(all_champions, scores):
    bundle = all_champions.require("contact").bundle
    model = ContactPreferences(("E-Mail", "PUSH"), bundle.model.times, bundle.model.channels)
    champion = Champion("contact", "1", replace(bundle, model=model))
    renamed = replace(all_champions, models={**all_champions.models, "contact": champion})
    table = score_predictions(renamed, names=("contact",)).table()
    for place, row in scores.items():
        ranked = [one["channel"].lower().replace("-", "") for one in table["ranked_channel_affinity"][place].as_py()]
        assert ranked == [one["channel"] for one in row["ranked_channel_affinity"]]


def test_times_of_another_time_zone_are_not_served(all_champions):
    bundle, profiles = all_champions.require("contact").bundle, all_champions.customers
    for zone, refused in ((profiles.spec.timezone, set()), ("Asia/Tokyo", {"contact"})):
        models = {"contact": Champion("contact", "1", replace(bundle, facts={"timezone": zone}))}
        failures = {}
        refuse_other_timezones(models, profiles, failures)
        assert failures.keys() == refused
        assert models.keys() == {"contact"} - refused
