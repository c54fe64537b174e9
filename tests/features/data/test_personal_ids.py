"""Customer ids that are personal data are refused by the name of their column or a form that nothing else has."""

from __future__ import annotations

import duckdb
import pytest

from features.data.ingest import ingest
from features.data.sources.files import FileSource
from qianmian.errors import DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.features.data.exports import Export


def orders(column: str, ids: list[str]) -> str:
    lines = (f"o{n}\t{cust}\ts1\t2024-01-01\t1\t10" for n, cust in enumerate(ids))
    return "\n".join((f"order\t{column}\tsku\tdate\tqty\tpaid", *lines)) + "\n"


def read(folder, column, ids):
    columns = f'{{order_id: order, source_user_id: "{column}", item_id: sku, ts: date, quantity: qty, amount: paid}}'
    return Export(folder).ingest(orders(column.replace('\\"', ""), ids), columns)


# written so that nothing else could be meant, under a name that tells nothing
UNMISTAKABLE = {
    "brazil": [f"(11) 9{n}988-790{n}" for n in range(6)],
    "america": [f"({n}15) 517-562{n}" for n in range(2, 8)],
    "dashes": [f"415-39{n}-77{n}8" for n in range(6)],
    "russia": [f"8 (997) 41{n}-92-63" for n in range(6)],
    "france": [f"06.59.38.17.8{n}" for n in range(6)],
    "germany": [f"0171/289402{n}" for n in range(6)],
    "japan": [f"090-6039-451{n}" for n in range(6)],
    "plus": [f"tel: +49 171 289402{n}" for n in range(6)],
    "cpf": ["529.982.247-25", "111.444.777-35", "390.533.447-05"],
    "cpf digits": ["52998224725", "11144477735", "39053344705"],
    "codice fiscale": ["RSSMRA85T10A562S", "VRDGPP13R10B293P", "BNCLRA70A41H501U"],
    "ssn": ["393-88-2274", "283-61-2518", "078-05-1120"],
    "mail": [f"Ann <ann{n}@post.org>" for n in range(6)],
    "mailto": [f"mailto:ann{n}@post.org" for n in range(6)],
    "two mails": [f"ann{n}@post.org;bob@post.org" for n in range(6)],
}


@pytest.mark.parametrize("kind", UNMISTAKABLE)
def test_ids_in_the_form_of_personal_data_are_refused(tmp_path, kind):
    with pytest.raises(DataError, match="source_user_id is (personal data|an e-mail address or a telephone number)"):
        read(tmp_path, "cust", UNMISTAKABLE[kind])
    (file,) = (tmp_path / "workspace" / "quarantine").rglob("*.parquet")
    rows = " ".join(row for (row,) in duckdb.sql(f"SELECT row FROM '{file}'").fetchall())
    assert not any(value in rows for value in UNMISTAKABLE[kind])  # nor are they in the quarantine


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        ("Billing Name", ["Anna Lee", "Bob O'Hara", "Cem"]),
        ("收货人姓名", ["张三0", "李四1", "王五2"]),
        ("Kundenname", ["Meier, Anna", "Roth", "Özil"]),
        ("Telefon", ["6912345", "697397435", "0304567890"]),
        ("tel. kom.", ["601 888 742", "603 378 309", "602 364 544"]),
        ("adresse", ["Musterweg 1", "12 rue Verte", "Am Hang 3, Bonn"]),
        ("住所", ["港区赤坂1", "中央区銀座2", "渋谷区神南3"]),
        ("Steuer-ID", ["02123456780", "02 123 456 781", "02123456782"]),
        ("passport_no", ["C01X00T47", "P12345678", "L8988901"]),
        ('lower(trim(\\"Billing Name\\"))', ["Anna Lee", "Bob O'Hara", "Cem"]),
    ],
)
def test_ids_are_refused_if_their_column_is_called_personal_and_they_look_so(tmp_path, column, ids):
    if column.startswith("lower"):
        columns = (
            f'{{order_id: order, source_user_id: "{column}", item_id: sku, ts: date, quantity: qty, amount: paid}}'
        )
        with pytest.raises(DataError, match="source_user_id is personal data"):
            Export(tmp_path).ingest(orders("Billing Name", ids), columns)
        return
    with pytest.raises(DataError, match="source_user_id is personal data"):
        read(tmp_path, column, ids)


@pytest.mark.parametrize(
    ("column", "ids"),
    [
        ("household", ["1", "11", "2222"]),
        ("cust", ["9823443655", "4155175624", "3601776509"]),
        ("cust", ["697397435", "617187252", "605094034"]),
        ("cust", ["13800000001", "13800000002", "13800000003"]),
        ("cust", ["112-1234567-1234567", "113-7654321-7654321", "114-1111111-2222222"]),
        ("cust", ["C-001-234", "C-001-235", "12-345-678"]),
        ("cust", ["12345678901", "52998224726", "98765432101"]),
        ("cust", ["ab@cd", "x@1", "u@home"]),
        ("Customer Name", ["CUST0001", "CUST0002", "CUST0003"]),
        ("email", ["9f86d081884c7d65", "60303ae22b998861", "fd61a03af4f77d87"]),
        ("买家会员名", ["小鱼爱喝茶", "lin_0571", "王小明2008"]),
        ("买家昵称", ["小鱼爱喝茶", "lin_0571", "王小明"]),
        ("loyalty card", ["2600000001", "2600000002", "2600000003"]),
        ("username", ["anna", "bob", "cem"]),
    ],
)
def test_customer_numbers_and_logins_are_kept(tmp_path, column, ids):
    report = read(tmp_path, column, ids)
    assert (report.kept, report.quarantined) == (len(ids), 0)


def test_a_hash_of_a_name_is_a_customer_id(tmp_path):
    (tmp_path / "export.csv").write_text(orders("Billing Name", ["Anna Lee", "Bob O'Hara"]), encoding="utf-8")
    (tmp_path / "sources.yaml").write_text(
        "source: shop\ntimezone: UTC\ntables:\n  transactions:\n    path: export.csv\n    columns:\n"
        '      order_id: order\n      source_user_id: "sha256(\'salt\' || \\"Billing Name\\")"\n'
        "      item_id: sku\n      ts: date\n      quantity: qty\n      amount: paid\n",
        encoding="utf-8",
    )
    report = ingest(Workspace(tmp_path / "workspace"), FileSource(tmp_path / "sources.yaml"), Settings())
    assert (report.kept, report.quarantined) == (2, 0)
