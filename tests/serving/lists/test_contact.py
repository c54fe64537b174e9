"""Whom to contact: the first reason that applies counts, and every customer is counted once."""

from __future__ import annotations

import numpy as np

from qianmian.model_settings import ListsSettings
from serving.scoring.lists.contact import CONTACT, NOT_CONTACTED, contacts_of

ROWS = [  # reason for no score, band, e-mail, SMS, days since the last contact, left, code, English
    (None, "high", True, None, 30.0, 0.1, CONTACT, "allowed: e-mail"),
    (None, "high", None, None, 30.0, 0.1, CONTACT, "no consent on record: check before writing"),
    (None, "high", False, True, 30.0, 0.1, CONTACT, "allowed: SMS"),
    (None, "high", False, False, 1.0, 0.99, "no_consent", "no consent for any channel"),
    (None, "high", False, None, 30.0, 0.1, "no_consent", "no consent for any channel"),
    (None, "low", True, True, 3.9, 0.99, "recently_contacted", "contacted 3 days ago"),
    (None, "high", True, True, 0.5, 0.1, "recently_contacted", "contacted less than a day ago"),
    (None, "low", True, True, 7.0, 0.9, "unlikely_to_return", "unlikely to return"),
    (None, "low", True, True, 9999.0, np.nan, "low_risk", "low risk: likely to order anyway"),
    ("never bought", None, False, False, 1.0, np.nan, "never_bought", "never bought"),
    ("no purchase in the last 56 days", None, True, True, 1.0, 0.95, "not_active", "no purchase in the last 56 days"),
    ("shared account: 38% of all order lines", None, True, True, 1.0, 0.9, "shared_account", "shared account: 38% of all order lines"),
]  # fmt: skip


def contacts(**changed):
    reasons, bands, email, sms, days, left, codes, words = (list(column) for column in zip(*ROWS, strict=True))
    given = {
        "no_score_reasons": reasons,
        "bands": bands,
        "consents": {"email": email, "sms": sms},
        "contacted_days": np.array(days, dtype=np.float32),
        "left": np.array(left),
        "settings": ListsSettings(),
    } | changed
    return contacts_of(**given), codes, words


def test_the_first_reason_that_applies_counts():
    found, codes, words = contacts()
    assert found.codes.tolist() == codes
    assert [found.words(row, "en") for row in range(len(ROWS))] == words
    assert found.words(9, "zh") == "从未购买"
    assert found.words(5, "zh") == "3 天前触达过"


def test_the_counts_add_up_to_all_customers():
    counts = contacts()[0].counts
    assert sum(counts.values()) == len(ROWS)
    assert set(counts) <= {CONTACT, *NOT_CONTACTED}


def test_without_consents_contacts_and_a_model_of_who_left_only_the_risk_counts():
    found, _, _ = contacts(consents={}, contacted_days=None, left=None)
    assert found.counts == {CONTACT: 6, "shared_account": 1, "never_bought": 1, "not_active": 1, "low_risk": 3}


def test_nobody_is_contacted_where_all_refuse():
    found, _, _ = contacts(consents={"push": [False] * len(ROWS)})
    assert CONTACT not in found.counts


def test_no_pause_contacts_who_was_contacted_today():
    found, _, _ = contacts(settings=ListsSettings(contact_pause_days=0))
    assert "recently_contacted" not in found.counts
