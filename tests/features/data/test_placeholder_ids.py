"""Ids that are no ids: words for "no value", repeated digits, numbers whose digits a spreadsheet has dropped, wrappings."""

from __future__ import annotations

import duckdb
import pytest

from features.data.ingest import ingest
from features.data.placeholders import is_empty_identifier, is_placeholder, is_scientific
from features.data.sources.cells import unwrapped
from qianmian.errors import DataError
from qianmian.settings import Settings
from tests.features.data.exports import TRANSACTIONS, Export, warned


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


def holds(condition, **values):
    picked = ", ".join(f"? AS {name}" for name in values)
    return duckdb.execute(f"SELECT {condition} FROM (SELECT {picked})", list(values.values())).fetchone()[0]


def test_placeholder_customers_are_no_customer_and_are_counted_by_word(export):
    report = export.case("07-null-as-customer")
    assert report.tables["transactions"].flags["no_customer"] == 60
    assert (report.kept, report.quarantined) == (80, 0)
    assert export.query("SELECT count(DISTINCT source_user_id), count(*) FROM transactions") == [(20, 80)]
    assert export.query("SELECT count(DISTINCT one_id) FROM customers") == [(20,)]
    (message,) = warned(report, "placeholder_ids")
    assert all(f"10 × {word}" in message for word in ("0", "N/A", "NULL", "None", "\\N", "nan"))


def test_placeholder_identifiers_link_nobody(export):
    report = export.case("01-placeholder-identifiers")
    assert report.tables["identities"].flags["no_identifier"] == 25
    assert export.query("SELECT count(DISTINCT one_id), count(*) FROM customers") == [(25, 25)]
    (message,) = warned(report, "placeholder_ids")
    assert "8 × NULL" in message
    # the same file again changes nothing
    assert export.case("01-placeholder-identifiers").kept == 0


def test_a_real_identifier_still_links(export):
    rows = ("a,phone,13800138000", "b,phone,13800138000", "c,phone,13800138001", "d,email,ann@shop.example")
    export.ingest("\n".join(("u,t,v", *rows)), "{source_user_id: u, id_type: t, id_value: v}", "identities")
    assert export.query("SELECT count(DISTINCT one_id) FROM customers") == [(3,)]


@pytest.mark.parametrize(
    ("word", "placeholder"),
    [
        *(
            (word, True)
            for word in ("null", "NULL", " nan ", "None", "\\N", "#N/A", "n/a", "nil", "undefined", "-", "--")
        ),
        *((word, True) for word in ("Unknown", "无", "空", "未知", "暂无", "0", "", "not set", "(not set)")),
        *((word, True) for word in ("00", "00000000000", "-0", "0.00", "-1.0", "-999", "s/n", "xxx", "N.N.")),
        *((word, True) for word in ("[null]", "{NULL}", "<none>", '""', "null null", "None, None", "nan\u200e")),
        *((word, True) for word in ("#NAME?", "#DIV/0!", "#NUM!", "#SPILL!", "#ÜBERLAUF!", "#¡VALOR!", "#N/D", "####")),
        *((word, False) for word in ("1", "11", "2222", "123.0", "nancy", "N1", "c0", "Nullmann", "007", "0x1", "-12")),
        *((word, False) for word in ("#1001", "#A17", "null island", "[c1]", "#1", "1000000", "9999", "guest")),
    ],
)
def test_which_texts_are_no_customer(word, placeholder):
    assert holds(is_placeholder("source_user_id", "v"), v=word) is (placeholder and word != "")


@pytest.mark.parametrize(
    ("kind", "value", "empty"),
    [
        *(
            ("email", value, True)
            for value in ("none@none.com", "test@test.com", "no@email.com", "NoReply@shop.example")
        ),
        *(("email", value, True) for value in ("noemail@gmail.com", "null@null", "x@shop.invalid", "test@example.com")),
        *(("email", value, True) for value in ("guest@guest.com", "keine@keine.de", "123@123.com", "1@1.com")),
        *(
            ("email", value, True)
            for value in ("Test1@test.de", "test@shop.example", "invalid@shop.com", "guest@a.shop")
        ),
        *(("email", value, True) for value in ("sansemail@client.fr", "noemail+1@shop.com", "no-mail2@shop.com")),
        *(
            ("email", value, False)
            for value in ("guesthouse@shop.com", "ann@ann-shop.de", "7@shop.com", "testa@web.de")
        ),
        *(
            ("email", value, False)
            for value in ("ann@shop.example", "test.user@gmail.com", "no@company.no", "nan@mail.cn")
        ),
        *(("phone", value, True) for value in ("00000000000", "1111111", "+0 000 000", "99999999")),
        *(("phone", value, True) for value in ("+49 0000000", "13800000000", "+86 138 0000 0000", "049-0000000")),
        *(("phone", value, True) for value in ("1234567890", "0123456789", "12345678", "+49 123456789", "987654321")),
        *(("phone", value, False) for value in ("111111", "13800138000", "0171 1111112", "13812345678.0", "123456")),
        *(("phone", value, False) for value in ("+49 171 1234567", "+44 20 7946 0000", "6500000", "+1 415 555 0000")),
        *(("card", value, flag) for value, flag in (("1234567890123", True), ("10000000", False))),
        *(("card", value, flag) for value, flag in (("0000-0000-0000-0000", True), ("1111", False))),
        *((kind, "11111111", False) for kind in ("login", "cookie")),
        *((kind, "1.38001E+10", True) for kind in ("phone", "login", "cookie")),
    ],
)
def test_which_identifiers_are_nobodys(kind, value, empty):
    assert holds(is_empty_identifier("t", "v"), t=kind, v=value) is empty


@pytest.mark.parametrize(
    ("text", "scientific"),
    [
        *((text, True) for text in ("1.38001E+10", "1,38001E+10", "4.00638e+12", "1E+10", "1.38E10", "-1.2E+05")),
        *((text, False) for text in ("12E5", "6E10", "E+10", "1.38", "1e5a", "abcdef12e5", "138001E")),
    ],
)
def test_numbers_in_scientific_notation(text, scientific):
    assert holds(is_scientific("v"), v=text) is scientific


def test_ids_that_lost_their_digits_are_refused_with_the_fix(export):
    with pytest.raises(DataError, match=r"40 × order_id is a number in scientific notation.*export it again"):
        export.case("36-excel-ate-the-barcodes")
    assert not export.workspace.lake.joinpath("manifest.json").exists()


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("1.23457E+18,u1,s1,2024-01-01,1,10", "order_id is a number in scientific notation"),
        ("o2,1.38001E+10,s1,2024-01-01,1,10", "source_user_id is a number in scientific notation"),
        ("o2,u1,4.00638E+12,2024-01-01,1,10", "item_id is a number in scientific notation"),
        ("NULL,u1,s1,2024-01-01,1,10", "order_id is a placeholder"),
    ],
)
def test_a_row_whose_id_is_lost_is_quarantined(export, row, reason):
    report = export.orders("o1,u1,s1,2024-01-01,1,10", row).tables["transactions"]
    assert (report.kept, report.quarantined) == (1, 1)
    assert next(iter(report.reasons)).startswith(reason)


def test_placeholders_in_other_tables(export):
    report = export.ingest(
        "id,town\nu1,Ulm\nNULL,Bonn\n,Bern\nu2,Rome\n", "{source_user_id: id, city: town}", "profiles"
    )
    assert dict(report.tables["profiles"].reasons) == {
        "source_user_id is a placeholder such as NULL or N/A, not an id": 1,
        "source_user_id is missing": 1,
    }
    export.orders("o1,u1,None,2024-01-01,1,10", "o2,u1,s1,2024-01-02,1,10")
    assert export.query("SELECT order_id, item_id FROM transactions ORDER BY 1") == [("o1", None), ("o2", "s1")]


def test_ids_of_few_equal_digits_and_with_a_decimal_point_stay(export):
    export.orders(
        *(f"o{n},{cust},s1,2024-01-01,1,10" for n, cust in enumerate(("1", "11", "2222", "7777777", "123.0")))
    )
    found = export.query("SELECT source_user_id FROM transactions ORDER BY order_id")
    assert found == [("1",), ("11",), ("2222",), ("7777777",), ("123.0",)]


def test_null_words_in_numbers_and_times_are_missing_values(export):
    report = export.orders("o1,u1,s1,2024-01-01,#N/A,NULL", "o2,u1,s1,NULL,1,2", "o3,u1,s1,2024-01-01,nan,3")
    assert export.query("SELECT order_id, quantity, amount FROM transactions ORDER BY 1") == [
        ("o1", None, None),
        ("o3", None, 3.0),
    ]
    assert dict(report.tables["transactions"].reasons) == {"ts is missing": 1}
    assert warned(report, "null_words") == [
        "cells such as NULL, NaN or #N/A count as missing values: ts (1), quantity (2), amount (1)"
    ]


def test_null_words_in_attributes_are_missing_values(export):
    text = (
        "id,tier,town,mail,note\n1,NULL,#N/A,n/a,[null]\n2,gold,Rome,ann@shop.example,-\n3,nan,None,NULL,Nullarbor\n"
        "4,silver, \\N ,null,unknown\n"
    )
    columns = "{source_user_id: id, member_tier: tier, city: town, extra: mail, note: note}"
    report = export.ingest(text, columns, "profiles")
    found = export.query("SELECT source_user_id, member_tier, city, note FROM profiles ORDER BY 1")
    assert found == [
        ("1", None, None, None),
        ("2", "gold", "Rome", "-"),
        ("3", None, None, "Nullarbor"),
        ("4", "silver", None, "unknown"),
    ]
    assert warned(report, "null_words") == [
        "cells such as NULL, NaN or #N/A count as missing values: member_tier (2), city (3), extra (3), note (1)"
    ]
    # they are no values of a personal column either, which one address of one value makes it
    assert report.tables["profiles"].hashed == ("extra",)
    assert export.query("SELECT count(extra) FROM profiles") == [(1,)]
    fix = next(warning.fix for warning in report.warnings if warning.code == "null_words")
    case = fix.split("`")[1].replace("column", "town").replace("NA", "None").replace("Namibia", "Nonesuch")
    export.ingest(text, columns.replace("city: town", f'city: "{case}"'), "profiles")
    assert export.query("SELECT city FROM profiles WHERE source_user_id = '3'") == [("Nonesuch",)]


def test_a_word_in_the_text_of_an_order_stays(export):
    columns = TRANSACTIONS.replace("}", ", channel: shop, store_id: shop}")
    report = export.ingest("order,cust,sku,date,qty,paid,shop\no1,u1,s1,2024-01-01,1,10,None\n", columns)
    assert export.query("SELECT channel, store_id FROM transactions") == [("None", "None")]
    assert warned(report, "null_words") == []


def test_excels_wrappings_are_removed_from_ids_times_and_numbers(export):
    report = export.case("14-excel-wrapped-ids")
    assert export.query(
        "SELECT order_id, item_id, ts::VARCHAR, quantity, amount FROM transactions ORDER BY order_id"
    ) == [
        (f"12345678901234567{n}", "00412", f"2024-01-0{day} 02:00:00", 1.0, 10.0)
        for n, day in ((89, 5), (90, 6), (91, 7))
    ]
    assert export.query("SELECT DISTINCT trim(source_user_id) FROM transactions") == [("tb_ann",)]
    assert "order_id (3), source_user_id (1), item_id (3)" in warned(report, "wrapped_ids")[0]


@pytest.mark.parametrize("text", ["o'neill", "'t Hooft", " c1", "c1 ", "c1\u200b", "=SUM(A1)", "it's", ""])
def test_other_text_of_an_id_stays_as_it_is(text):
    assert holds(unwrapped("v"), v=text) == text


def test_a_strong_value_of_many_customers_links_nobody_and_is_named(export):
    columns = "{source_user_id: u, id_type: \"'login'\", id_value: v}"
    rows = [f"m{n},front-desk" for n in range(11)] + ["a,ann", "b,ann"]
    report = export.ingest("u,v\n" + "\n".join(rows) + "\n", columns, "identities")
    assert export.query("SELECT count(DISTINCT one_id) FROM customers") == [(12,)]
    (message,) = warned(report, "strong_values_of_many")
    assert message.startswith("1 value(s) of login are held by more than 10 records (up to 11)")
    assert "front-desk" not in message
    # declared as one person's, they are one customer
    other = Export(export.folder / "other")
    other.folder.mkdir()
    other.configure("identity: {id_types: [{type: login, max_customers: null}]}\n")
    other.ingest("u,v\n" + "\n".join(rows) + "\n", columns, "identities")
    assert other.query("SELECT count(DISTINCT one_id) FROM customers") == [(2,)]


def test_made_up_identifiers_link_nobody_and_are_not_shown(export):
    kinds = (
        ("email", "schmidt@schmidt.de"),
        ("email", "guest@a.shop"),
        ("phone", "13800000000"),
        ("phone", "+49 123456789"),
        ("phone", "#NAME?"),
    )
    rows = [f"{who}{n},{kind},{value}" for n, (kind, value) in enumerate(kinds) for who in "ab"]
    report = export.ingest("\n".join(("u,t,v", *rows)), "{source_user_id: u, id_type: t, id_value: v}", "identities")
    assert export.query("SELECT count(DISTINCT one_id) FROM customers") == [(10,)]
    (message,) = warned(report, "placeholder_ids")
    assert "4 × a made-up number, 4 × a made-up e-mail address, 2 × #NAME?" in message
    assert "schmidt" not in message


def test_guests_are_named_with_the_line_that_declares_them(export):
    guests = ("guest", "Gast", "GUEST", "invité", "Walk-in customer", "散客", "비회원", "ゲスト")
    rows = [
        f"o{n},{cust},s1,2024-01-01,1,10" for n, cust in enumerate((*guests, "Gaston", "guest7", "#NUM!", "{null}"))
    ]
    report = export.orders(*rows)
    (warning,) = [warning for warning in report.warnings if warning.code == "guest_ids"]
    assert warning.rows == len(guests)
    # they are customers until they are declared; error values and null words never are
    assert export.query("SELECT count(DISTINCT source_user_id) FROM transactions") == [(len(guests) + 2,)]
    line = warning.fix.split("`")[1]
    other = Export(export.folder / "other")
    other.folder.mkdir()
    source = other.source("\n".join(("order,cust,sku,date,qty,paid", *rows)), TRANSACTIONS)
    yaml = other.folder / "sources.yaml"
    yaml.write_text(f"{line}\n{yaml.read_text(encoding='utf-8')}", encoding="utf-8")
    report = ingest(other.workspace, type(source)(yaml), Settings())
    assert report.tables["transactions"].flags["no_customer"] == len(guests) + 2
    assert warned(report, "guest_ids") == []
    assert other.query("SELECT source_user_id FROM transactions WHERE source_user_id IS NOT NULL ORDER BY 1") == [
        ("Gaston",),
        ("guest7",),
    ]
