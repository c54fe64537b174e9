"""Truth values, discounts and dates that are rejected: the warning has a value and the line that reads them."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from features.data.ingest import IngestReport
from qianmian.errors import DataError
from tests.features.data.exports import TRANSACTIONS, Export

PEOPLE = "{source_user_id: id, consent_email: mail, birth_date: born}"


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


def people(*rows: str) -> str:
    return "\n".join(["id,mail,born", *rows]) + "\n"


def warned(report: IngestReport, code: str) -> list[str]:
    """Messages and fixes of the warnings with this code."""
    return [f"{warning.message}. Fix: {warning.fix}" for warning in report.warnings if warning.code == code]


def proposed(warning: str, key: str) -> dict[str, Any]:
    """The mapping of one column that a warning proposes."""
    (line,) = [part for part in warning.split("`") if part.startswith(f"{key}: ")]
    return dict(yaml.safe_load(line))


def mended(warning: str, key: str, columns: str) -> str:
    mapping = yaml.safe_load(columns) | proposed(warning, key)
    return yaml.safe_dump(mapping, default_flow_style=True, allow_unicode=True, width=1000).strip()


def test_words_of_consent_are_named_and_the_proposed_line_reads_them(export):
    text = people("1,ja,", "2,Nein,", "3,yes,", "4,,", "5,UNSUBSCRIBED,", "6,0,")
    report = export.ingest(text, PEOPLE, "profiles")
    assert report.tables["profiles"].quarantined == 3
    (warning,) = warned(report, "unread_words")
    assert "3 rows are rejected, because consent_email is not true or false, such as ja, nein" in warning
    export.ingest(text, mended(warning, "consent_email", PEOPLE), "profiles")
    found = export.query("SELECT source_user_id, consent_email FROM profiles ORDER BY 1")
    assert found == [("1", True), ("2", False), ("3", True), ("4", None), ("5", False), ("6", False)]


def test_unknown_words_are_asked_for_and_personal_data_are_not_shown(export):
    (warning,) = warned(
        export.ingest(
            people("1,ja,", "2,vielleicht,", "3,ann@ann.org,", "4,yes,", "5,1,", "6,NULL,"), PEOPLE, "profiles"
        ),
        "unread_words",
    )
    assert "vielleicht" in warning
    assert "ann" not in warning
    assert "null" not in warning
    assert proposed(warning, "consent_email")["consent_email"].count("WHEN") == 3


def test_a_refused_table_says_how_its_words_are_read(export):
    with pytest.raises(
        DataError, match=r"not true or false, such as denied.*consent_email: CASE lower\(trim\(mail\)\)"
    ):
        export.ingest(people("1,granted,", "2,denied,"), PEOPLE, "profiles")


def test_negative_discounts_are_named_and_the_proposed_line_reads_them(export):
    columns = TRANSACTIONS.replace("}", ", discount: Off Price}")
    head = "order,cust,sku,date,qty,paid,Off Price"
    rows = ["o1,a,x,2024-01-05,1,9,-2.50", "o2,a,x,2024-01-06,1,9,0", "o3,a,x,2024-01-07,1,9,"]
    text = "\n".join([head, *rows]) + "\n"
    (warning,) = warned(export.ingest(text, columns), "unread_words")
    assert "1 rows are rejected, because discount is negative, such as -2.5" in warning
    export.ingest(text, mended(warning, "discount", columns))
    assert export.query("SELECT order_id, discount FROM transactions ORDER BY 1") == [
        ("o1", 2.5),
        ("o2", 0.0),
        ("o3", None),
    ]


def test_dates_of_zeros_are_named_and_the_proposed_line_reads_them(export):
    text = people("1,,0000-00-00", "2,,1990-05-06")
    (warning,) = warned(export.ingest(text, PEOPLE, "profiles"), "unread_time_formats")
    assert "nullif(born, '0000-00-00')" in warning
    export.ingest(text, PEOPLE.replace("birth_date: born", "birth_date: \"nullif(born, '0000-00-00')\""), "profiles")
    assert export.query("SELECT source_user_id, birth_date::VARCHAR FROM profiles ORDER BY 1") == [
        ("1", None),
        ("2", "1990-05-06"),
    ]
