"""Telephone numbers: the spellings of one number are one hash where the country is told, and no number gains a digit."""

from __future__ import annotations

import duckdb
import pytest

from features.data.phones import normalized_phone
from features.data.pii_key import PiiKey
from features.data.privacy import PersonalDataHasher, hash_value
from qianmian.config import load_settings
from qianmian.errors import ConfigError, DataError
from qianmian.settings import ID_TYPES, Settings
from tests.features.data.exports import Export, warned


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


def test_one_number_in_five_spellings_is_one_customer_where_the_country_is_told(export):
    export.configure("identity: {phone_country: 86}\n")
    report = export.case("38-one-phone-four-spellings")
    assert export.query("SELECT count(DISTINCT one_id) FROM customers") == [(1,)]
    assert warned(report, "phones_without_country") == []
    settings = load_settings(export.workspace.config_file)
    assert export.query("SELECT DISTINCT id_value FROM identities") == [
        (hash_value(export.workspace, settings, "phone", "0086 138-0013-8000"),)
    ]


def test_without_a_country_national_numbers_agree_and_a_warning_says_how(export):
    report = export.case("38-one-phone-four-spellings")
    same = export.query("SELECT count(DISTINCT id_value) FROM identities WHERE source_user_id IN ('a', 'd', 'e')")
    assert same == [(1,)]
    assert export.query("SELECT count(DISTINCT one_id) FROM customers") == [(3,)]
    (message,) = warned(report, "phones_without_country")
    assert message.startswith("4 telephone numbers have no calling code")


@pytest.mark.parametrize(
    ("country", "text", "number"),
    [
        ("86", "138 0013 8000", "+8613800138000"),
        ("86", "+86-138-0013-8000", "+8613800138000"),
        ("86", "0086 13800138000", "+8613800138000"),
        ("86", "010 6500 1234", "+861065001234"),
        ("49", "0171/2345678", "+491712345678"),
        ("49", "+49 (0)171 2345678", "+491712345678"),
        ("49", "49 171 2345678", "+491712345678"),
        ("44", "07700 900123", "+447700900123"),
        ("1", "(415) 555-0100", "+14155550100"),
        ("1", "1-415-555-0100", "+14155550100"),
        ("39", "06 1234 5678", "+390612345678"),
        ("39", "391 234 5678", "+393912345678"),
        ("7", "8 912 345-67-89", "+79123456789"),
        ("65", "6512 3456", "+6565123456"),
        ("86", "+44 7700 900123", "+447700900123"),
        ("86", "--", ""),
    ],
)
def test_a_number_with_the_country_told(country, text, number):
    assert duckdb.execute(f"SELECT {normalized_phone('v', country)} FROM (SELECT ? AS v)", [text]).fetchone() == (
        number,
    )


def test_hashes_of_earlier_workspaces_are_unchanged_without_a_country():
    """The hashes of an earlier version, for the key of this test."""
    personal = PersonalDataHasher(PiiKey.of("a key for the test"), ID_TYPES)
    known = {
        "13800138000": "13800138000",
        "+44 (0)7700 900-461": "+447700900461",
        "0044 7700 900461": "+447700900461",
        "0171 2345678": "01712345678",
        "8613800138000": "8613800138000",
    }
    with duckdb.connect() as connection:
        personal.set_key_variables(connection)
        for text, normalised in known.items():
            stored = connection.execute(
                f"SELECT {personal.identifier('t', 'v')} FROM (SELECT 'phone' AS t, ? AS v)", [text]
            ).fetchone()
            inner = f"sha256(getvariable('pii_inner') || 'phone' || chr(31) || '{normalised}')"
            expected = connection.execute(f"SELECT 'h1:' || substr(sha256(getvariable('pii_outer') || {inner}), 1, 32)")
            assert stored == expected.fetchone(), text


def test_the_country_is_a_calling_code():
    assert Settings.model_validate({"identity": {"phone_country": 49}}).identity.phone_country == "49"


@pytest.mark.parametrize("text", ["CN", '"+86"', "0"])
def test_another_country_is_refused(export, text):
    export.configure(f"identity: {{phone_country: {text}}}\n")
    with pytest.raises(ConfigError, match="phone_country"):
        load_settings(export.workspace.config_file)


# ---- telephone numbers as customer ids -------------------------------------------------------------------------------

CHINESE = ("13800138000", "15912345678", "18677001234", "13911112222", "17700001111")
GERMAN = ("0171 2345678", "0151/23456789", "0160-1234567")


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        ("cust", CHINESE),
        ("cust", tuple(f"86{number}" for number in CHINESE)),
        ("cust", GERMAN),
        ("cust", ("07700900123", "07911123456", "07400123123")),
        ("手机号", CHINESE[:1]),
        ("Telefon", ("030 1234567", "0221 987654")),
        ("mobile", ("612345678", "699887766")),
        ("cust", ("+8613800138000", "ann@shop.example", "+491712345678")),
        ("cust", ("11010519491231002X", "440524198801010011")),
    ],
)
def test_customer_ids_that_are_telephone_numbers_are_refused(export, column, ids):
    rows = "\n".join(f"o{n};{number};s1;2024-01-01;1;10" for n, number in enumerate(ids))
    columns = "{order_id: order, source_user_id: " + column + ", item_id: sku, ts: date, quantity: qty, amount: paid}"
    with pytest.raises(DataError, match=r"source_user_id is .*telephone.*map the customer number") as refused:
        export.ingest(f"order;{column};sku;date;qty;paid\n{rows}\n", columns)
    assert not [number for number in ids if number in str(refused.value)]
    text = "".join(
        str(duckdb.sql(f"SELECT * FROM '{file}'")) for file in export.workspace.quarantine.rglob("*.parquet")
    )
    assert not [number for number in ids if number in text]


@pytest.mark.parametrize(
    "ids",
    [
        tuple(str(13800000000 + n) for n in range(20)),  # numbers given out one after the other
        tuple(f"{n:011}" for n in range(20)),
        ("10001", "10002", "13800138000"),
        ("20240105000001", "20240105000002"),
        ("4006381333931", "4006381333948"),
    ],
)
def test_customer_numbers_that_look_a_little_like_telephone_numbers_stay(export, ids):
    report = export.orders(*(f"o{n},{number},s1,2024-01-01,1,10" for n, number in enumerate(ids)))
    assert (report.kept, report.quarantined) == (len(ids), 0)
