"""`ContactPreferences`: what it says about customers, and that it can be saved and a customer taken out."""

from __future__ import annotations

from datetime import datetime

import numpy as np
import pytest
from scipy import sparse

from models.bundle import ModelBundle
from models.contact import CELLS, N_CELLS, ContactPreferences, cell_of
from models.erasing import erase_users
from models.pooled_patterns import CUSTOMER, PooledPatterns, Responses

USERS = np.array(["u1", "u2", "u3", "u4"])
MONDAY_EVENING, SUNDAY_NIGHT = CELLS.index(("monday", "evening")), CELLS.index(("sunday", "night"))


@pytest.fixture(scope="module")
def model() -> ContactPreferences:
    times = np.zeros((4, N_CELLS), dtype=np.float32)
    times[[0, 1, 2], [MONDAY_EVENING, SUNDAY_NIGHT, MONDAY_EVENING]] = 30
    sends = np.full((4, 2), 50, dtype=np.float32)
    opens = np.array([[40, 1], [1, 40], [10, 10], [0, 0]], dtype=np.float32)
    codes = np.array([0, 1, 0, -1])
    by_channel = Responses(sparse.csr_matrix(opens), sparse.csr_matrix(sends))
    return ContactPreferences(
        ("email", "sms"),
        PooledPatterns(CUSTOMER, True, 5.0, 2.0).fit(Responses(sparse.csr_matrix(times)), codes),
        PooledPatterns(CUSTOMER, False, customer_strength=2.0).fit(by_channel, codes),
    )


def test_cells_are_days_and_slots():
    assert N_CELLS == 35
    hours = np.array([0, 5, 6, 10, 11, 13, 14, 17, 18, 23, np.nan])
    found = cell_of(np.ones(len(hours)), hours)
    names = [CELLS[place] if place >= 0 else None for place in found]
    slots = ["night", "night", "morning", "morning", "midday", "midday", "afternoon", "afternoon", "evening", "evening"]
    assert names == [*(("tuesday", slot) for slot in slots), None]


def test_each_customer_has_a_best_time_and_channels_in_order(model):
    found = model.predict(np.array([0, 1, -1]))
    first, second, unknown = model.best_times(found)
    assert (first["day"], first["slot"], first["hours"], first["basis"]) == (
        "monday",
        "evening",
        "18:00-24:00",
        "customer",
    )
    assert (second["day"], second["slot"]) == ("sunday", "night")
    assert unknown["basis"] == "all"
    channels = [[one["channel"] for one in ranked] for ranked in model.ranked_channels(found)]
    assert channels[:2] == [["email", "sms"], ["sms", "email"]]


def test_a_refused_channel_is_left_out(model):
    found = model.predict(np.array([0, 1]))
    ranked = model.ranked_channels(found, np.array([[True, False], [True, True]]))
    assert [[one["channel"] for one in channels] for channels in ranked] == [["sms"], []]


def test_a_model_without_channels_or_times_says_nothing_of_them(model):
    found = ContactPreferences((), None, model.channels).predict(np.array([0]))
    assert ContactPreferences((), None, model.channels).best_times(found) == [None]
    without = ContactPreferences((), model.times, None)
    assert without.ranked_channels(without.predict(np.array([0, 1]))) == [[], []]


def test_a_saved_model_says_the_same(model, tmp_path):
    model.save(tmp_path)
    loaded, rows = ContactPreferences.load(tmp_path), np.array([3, 0, -1, 2])
    for got, expected in zip(vars(loaded.predict(rows)).values(), vars(model.predict(rows)).values(), strict=True):
        np.testing.assert_array_equal(got, expected)


def test_a_customer_can_be_taken_out_of_the_bundle(model, tmp_path):
    ModelBundle("contact", model, datetime(2025, 1, 1), user_ids=USERS, facts={}).save(tmp_path / "bundle")
    assert erase_users(tmp_path / "bundle", ["u2"]) == 1
    left = ModelBundle.load(tmp_path / "bundle")
    assert left.user_ids.tolist() == ["u1", "u3", "u4"]
    before, after = model.predict(np.array([0, 2, 3])), left.model.predict(np.array([0, 1, 2]))
    for got, expected in zip(vars(after).values(), vars(before).values(), strict=True):
        np.testing.assert_array_equal(got, expected)
