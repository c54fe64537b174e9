"""Numbers of exports: decimal comma, thousands, currency signs, accounting negatives; what can be read in two ways is refused."""

from __future__ import annotations

import duckdb
import pytest

from features.data.ingest import preview
from features.data.sources.files import FileSource
from features.data.sources.numbers import number
from qianmian.errors import DataError
from qianmian.settings import Settings
from tests.features.data.exports import CASES, Export, warned
from tests.features.data.test_order_lines import Shop

HEAD = "order,cust,sku,date,qty,paid"


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


def amounts(export):
    return [row[0] for row in export.query("SELECT amount FROM transactions ORDER BY order_id, line_no")]


def lines(*amounts, quantity="1"):
    """One semicolon-separated order line per amount."""
    rows = [f"o{n:02};u1;s1;2024-01-01;{quantity};{amount}" for n, amount in enumerate(amounts)]
    return "\n".join((HEAD.replace(",", ";"), *rows)) + "\n"


COLUMNS = "{order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid}"


def test_a_german_export_is_read_by_its_values(export):
    report = export.case("12-german-export")
    assert amounts(export) == [12.5, 1250.0, 1250.0, 25.0]
    assert "amount" in warned(report, "decimal_comma")[0]


def test_an_expression_that_drops_the_decimal_comma_is_refused(export):
    with pytest.raises(DataError, match=r"3 values .* 1.25 from `1.250`.*`amount: Betrag`.*decimal"):
        export.case("12-german-export", "as-docs-say.yaml")
    found = preview(export.workspace, FileSource(CASES / "12-german-export" / "as-docs-say.yaml"), Settings())
    assert "wrong by a power of ten" in found.errors[0]


@pytest.mark.parametrize("cast", ["", "::DOUBLE"])
def test_an_expression_that_converts_the_comma_is_accepted(export, cast):
    columns = COLUMNS.replace("paid}", f"\"replace(replace(paid, '.', ''), ',', '.'){cast}\"}}")
    export.ingest(lines("12,50", "1.250,00", "1.250", "25"), columns)
    assert amounts(export) == [12.5, 1250.0, 1250.0, 25.0]


def test_an_expression_that_drops_the_decimal_point_is_refused_also_with_a_cast(export):
    columns = COLUMNS.replace("paid}", "\"replace(paid, '.', '')::DOUBLE\"}")
    with pytest.raises(DataError, match="removes the decimal separator of paid"):
        export.ingest(lines("1,250.00", "12.50"), columns)


@pytest.mark.parametrize(
    ("texts", "values"),
    [
        (("1,250.00", "1,250", "12.5", "1,250,000"), [1250.0, 1250.0, 12.5, 1250000.0]),
        (("1.250,00", "1.250", "12,5", "1.250.000"), [1250.0, 1250.0, 12.5, 1250000.0]),
        (("1 250,00", "1\u00a0250,50", "1\u202f250", "0,125"), [1250.0, 1250.5, 1250.0, 0.125]),
        (("1'250.00", "1’250.50", "12.50", "0.125"), [1250.0, 1250.5, 12.5, 0.125]),
        (("€ 12,50", "12,50 €", "12,50 EUR", "EUR 3"), [12.5, 12.5, 12.5, 3.0]),
        (("￥12.50", "¥1,250.00", "１２．５０", "8元"), [12.5, 1250.0, 12.5, 8.0]),
        (("¥1,250", "¥12,500", "¥980"), [1250.0, 12500.0, 980.0]),
        (("1,250원", "₩12,500", "980"), [1250.0, 12500.0, 980.0]),
        (("1.250 JPY", "12.500 JPY", "980 JPY"), [1250.0, 12500.0, 980.0]),
        (("CHF 12.50", "Fr. 1'000.50", "Fr 3"), [12.5, 1000.5, 3.0]),
        (("$12.50", "12.50 USD", "US$3"), [12.5, 12.5, 3.0]),
        (("$1,250.00", "$.50", "$1,250", "$7"), [1250.0, 0.5, 1250.0, 7.0]),
        (("1,00,000.00", "12,34,567.5", "5", "6."), [100000.0, 1234567.5, 5.0, 6.0]),
        (("1e3", "1E-2", "+2.5", "007"), [1000.0, 0.01, 2.5, 7.0]),
        (("9,-", "1.250,–", "12,50", "7,--"), [9.0, 1250.0, 12.5, 7.0]),
        (("CHF 9.-", "1'250.–", "Fr. 12.50", "7.—"), [9.0, 1250.0, 12.5, 7.0]),
    ],
)
def test_the_values_of_a_column_tell_its_separator(export, texts, values):
    report = export.ingest(lines(*texts), COLUMNS)
    assert amounts(export) == values
    assert report.quarantined == 0


def test_negative_amounts_of_accounting_are_refunds(export):
    export.ingest(
        lines("(12.50)", "12.50-", "-12.50", "−12.50", "-$12.50", "$-12.50", "△12.50", "▲ 12.50", quantity="-1"),
        COLUMNS,
    )
    assert export.query("SELECT DISTINCT quantity, amount, status FROM transactions") == [(1.0, 12.5, "refunded")]


@pytest.mark.parametrize("texts", [("1.250", "25"), ("1,250", "25"), ("1,250", "1.250", "3")])
def test_a_column_that_can_be_read_in_two_ways_is_refused_with_the_line_to_add(export, texts):
    with pytest.raises(DataError, match=r'can be read in two ways.*`decimal: ","`.*`decimal: "\."`'):
        export.ingest(lines(*texts), COLUMNS)
    assert not export.workspace.lake.joinpath("manifest.json").exists()


@pytest.mark.parametrize(("decimal", "values"), [(",", [1250.0, 25.0]), (".", [1.25, 25.0])])
def test_the_declared_separator_decides(export, decimal, values):
    export.ingest(lines("1.250", "25"), COLUMNS, keys=f'    decimal: "{decimal}"\n')
    assert amounts(export) == values


def test_a_mixed_column_is_refused_and_with_a_declaration_its_other_rows_are_rejected(export):
    with pytest.raises(DataError, match="decimal comma and numbers with a decimal point"):
        export.ingest(lines("12,50", "12.50", "3"), COLUMNS)
    report = export.ingest(lines("12,50", "12.50", "3"), COLUMNS, keys='    decimal: ","\n').tables["transactions"]
    assert dict(report.reasons) == {"amount is not a finite number": 1}
    assert amounts(export) == [12.5, 3.0]


def test_one_stray_comma_among_many_points_rejects_its_row_only(export):
    report = export.ingest(lines(*["12.50"] * 150, "12,50"), COLUMNS).tables["transactions"]
    assert (report.kept, dict(report.reasons)) == (150, {"amount is not a finite number": 1})


def test_numbers_inside_an_expression(export):
    head, columns = "order;cust;qty;price", "{order_id: order, source_user_id: cust, amount: qty * price}"
    export.ingest(f"{head}\no1;u1;2;1.250,00\no2;u1;3;0,50\no3;u1;1;€ 4\no4;u1;1;1.250\no5;u1;#N/A;1,5\n", columns)
    assert amounts(export) == [2500.0, 1.5, 4.0, 1250.0, None]
    with pytest.raises(DataError, match="price has numbers that can be read in two ways"):
        export.ingest(f"{head}\no6;u1;2;1.250\n", columns)
    report = export.ingest(f"{head}\no6;u1;2;1.250\no7;u1;2;x\n", columns, keys='    decimal: "."\n')
    assert export.query("SELECT amount FROM transactions WHERE order_id = 'o6'") == [(2.5,)]
    assert dict(report.tables["transactions"].reasons) == {"price is not a number (in qty * price)": 1}


def test_line_numbers_are_whole_numbers_in_either_format(export):
    columns = "{order_id: order, line_no: line, source_user_id: cust}"
    report = export.ingest("order;line;cust\no1;1,0;u1\no1;2,5;u1\no1;1.250,0;u1\n", columns)
    assert export.query("SELECT line_no FROM transactions ORDER BY 1") == [(1,), (1250,)]
    assert dict(report.tables["transactions"].reasons) == {"line_no is not a whole number": 1}


@pytest.mark.parametrize(
    "text", ["12 50", "12 PCS", "1.2.3", "1,2,3", "12.50 250", "$", "abc", "1-2", "(", "12%", "1.25,0.5"]
)
def test_what_is_no_number(text):
    for decimal in ("'.'", "','"):
        assert duckdb.execute(f"SELECT {number('v', decimal)} FROM (SELECT ? AS v)", [text]).fetchone() == (None,)


# ---- currencies ----------------------------------------------------------------------------------------------------


def test_a_column_with_two_currencies_is_named(export):
    report = export.case("32-two-currencies")
    (message,) = warned(report, "several_currencies")
    assert "currency names several currencies (EUR, JPY)" in message
    (fix,) = (warning.fix for warning in report.warnings if warning.code == "several_currencies")
    assert "currency: {column: currency, to: EUR, rates: {JPY: …}}" in fix


@pytest.mark.parametrize(
    ("column", "values", "found"),
    [
        ("Order Currency Code", ("JPY", "EUR"), "EUR, JPY"),
        ("Bestellwährung", ("eur", "CHF"), "CHF, EUR"),
        ("交易币种", ("美元", "人民币"), "CNY, USD"),
        ("unit", ("€", "US$"), "EUR, USD"),
        ("currency", ("XOF", "points"), "POINTS, XOF"),
    ],
)
def test_a_column_of_currencies_is_known_by_its_values(export, column, values, found):
    rows = [f"o{n},c{n},s1,2024-01-0{n},1,10,{values[n % 2]}" for n in range(1, 9)]
    head = f"order,cust,sku,date,qty,paid,{column}"
    (warning,) = (
        warning for warning in export.orders(*rows, head=head).warnings if warning.code == "several_currencies"
    )
    assert f"{column} names several currencies ({found})" in warning.message
    # the line it gives, with a rate, converts the amounts
    line = warning.fix.split("`")[3].replace("…", "0.5")
    other = Export(export.folder / "other")
    other.folder.mkdir()
    report = other.orders(*rows, head=head, keys=f"    {line}\n")
    assert warned(report, "several_currencies") == []
    assert sorted(amounts(other)) == [5.0] * 4 + [10.0] * 4


@pytest.mark.parametrize("values", [("EUR", "EUR"), ("EUR", "gift"), ("CZ", "AT"), ("12", "15")])
def test_other_columns_are_no_currencies(export, values):
    rows = [f"o{n},c{n},s1,2024-01-0{n},1,10,{values[n % 2]}" for n in range(1, 9)]
    assert warned(export.orders(*rows, head="order,cust,sku,date,qty,paid,kind"), "several_currencies") == []


MONEY = "order,cust,sku,date,qty,paid,currency"
TWO = ("o1,c1,s1,2024-01-01,1,10,EUR", "o2,c1,s1,2024-01-02,1,1600,jpy")


def test_amounts_are_converted_with_their_rates(export):
    keys = "    currency: {column: currency, to: EUR, rates: {JPY: 0.00625}}\n"
    report = export.orders(*TWO, "o3,c1,s1,2024-01-02,1,5,XXX", "o4,c1,s1,2024-01-02,1,5,", head=MONEY, keys=keys)
    assert amounts(export) == [10.0, 10.0]
    assert warned(report, "several_currencies") == []
    assert dict(report.tables["transactions"].reasons) == {
        "amount is not a finite number, or its currency is not in currency.rates": 2
    }


def test_several_currencies_without_rates_are_refused(export):
    with pytest.raises(DataError, match=r"several currencies.*EUR, JPY.*rates"):
        export.orders(*TWO, head=MONEY, keys="    currency: {column: currency, to: EUR}\n")
    with pytest.raises(DataError, match=r"not in the declared currency.*JPY"):
        export.orders(TWO[1], head=MONEY, keys="    currency: {column: currency, to: EUR}\n")
    with pytest.raises(DataError, match=r"several currencies.*EUR, USD"):
        export.ingest(lines("€ 12.50", "12.50 USD"), COLUMNS)
    assert not export.workspace.lake.joinpath("manifest.json").exists()


def test_signs_inside_the_amounts_have_rates_too(export):
    keys = '    currency: {to: EUR, rates: {"$": 0.5, GBP: 2}}\n'
    export.ingest(lines("€ 12.50", "$12.50", "£3.00"), COLUMNS, keys=keys)
    assert amounts(export) == [12.5, 6.25, 6.0]


def test_one_currency_or_a_declared_one_needs_nothing(export):
    assert warned(export.orders(TWO[0], head=MONEY), "several_currencies") == []
    assert warned(export.orders(*TWO, head=MONEY, keys="    currency: EUR\n"), "several_currencies") == []


def test_prices_and_event_values_are_money_too(export):
    keys = "    currency: {column: cur, to: EUR, rates: {USD: 0.5}}\n"
    export.ingest("id,price,cur\ns1,4,USD\n", "{item_id: id, price: price}", "items", keys)
    export.ingest(
        "who,when,what,worth,cur\nu1,2024-01-01,cart,4,USD\n",
        "{source_user_id: who, ts: when, event_type: what, value: worth}",
        "events",
        keys,
    )
    assert export.query("SELECT price FROM items") == export.query("SELECT value FROM events") == [(2.0,)]


def paid(order, *amounts):
    return [f'{order},c{n},x,2024-01-01,1,"{amount}"' for n, amount in enumerate(amounts)]


def test_files_of_one_glob_with_other_separators_are_read_each_by_its_own_values(tmp_path):
    shop = Shop(tmp_path)
    german = paid("b", "1.250", "12,50", "7")
    report = shop.read(paid("a", *["12.50"] * 300, "1,250"), german, paid("c", "3"))
    query = "SELECT order_id, sum(amount), count(*) FROM transactions GROUP BY ALL ORDER BY ALL"
    assert shop.rows(query) == [("a", 300 * 12.5 + 1250, 301), ("b", 1250 + 12.5 + 7, 3), ("c", 3.0, 1)]
    assert "decimal comma in 001.csv, and a decimal point in the other files" in warned(report, "decimal_comma")[0]
    again = shop.read(german).tables["transactions"]  # alone it is read in the same way
    assert (again.kept, again.duplicates) == (0, 3)


@pytest.mark.parametrize(
    "german",
    [
        pytest.param([paid("b", "1.250", "12,50", "12.50")], id="a file with both"),
        pytest.param([paid("b", "12,50"), paid("c", "1.250")], id="a file that tells nothing"),
    ],
)
def test_a_glob_whose_files_differ_is_refused_if_one_is_not_clear(tmp_path, german):
    with pytest.raises(DataError, match=r"decimal comma and numbers with a decimal point.*the comma is in 001\.csv"):
        Shop(tmp_path).read(paid("a", *["12.50"] * 300), *german)


@pytest.mark.parametrize("amount", ["qty * paid", "replace(paid, '.', '')"])
def test_files_with_other_separators_are_refused_inside_an_expression(tmp_path, amount):
    columns = COLUMNS.strip("{}").replace("amount: paid", f'amount: "{amount}"')
    with pytest.raises(DataError, match="decimal comma and numbers with a decimal point"):
        Shop(tmp_path).read(paid("a", "12.50"), paid("b", "12,50"), columns=columns)
