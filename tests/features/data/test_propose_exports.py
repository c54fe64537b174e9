"""`qianmian ingest init` for exports of shop systems in several languages: right values after at most two edits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from features.data.ingest import ingest
from features.data.lake import Lake
from features.data.sources.files import FileSource
from features.data.sources.propose import propose, read_sample
from qianmian.errors import ConfigError, DataError
from qianmian.settings import Settings
from qianmian.workspace import Workspace

MAX_EDITS = 2


def proposed(folder: Path, content: str | bytes, name: str = "export.csv") -> str:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    text, _ = propose([read_sample(folder / name)], folder)
    (folder / "sources.yaml").write_text(text, encoding="utf-8")
    return text


def rows(folder: Path, columns: str, table: str = "transactions", edits: tuple[str, ...] = ()) -> list[tuple[Any, ...]]:
    """Ingest a proposal after edits: `key: value` replaces the line of the key, and `key` removes it."""
    config = folder / "sources.yaml"
    text = config.read_text(encoding="utf-8")
    for edit in edits:
        key, _, value = edit.partition(": ")
        text, found = re.subn(rf"^( *){key}:.*\n", rf"\g<1>{edit}\n" if value else "", text, flags=re.MULTILINE)
        assert found == 1
    config.write_text(text, encoding="utf-8")
    workspace = Workspace(folder / "workspace")
    ingest(workspace, FileSource(config), Settings())
    return Lake(workspace).connect().con.execute(f"SELECT {columns} FROM {table} ORDER BY ALL").fetchall()


WOOCOMMERCE = """\
Order Number,Order Status,Order Date,Email (Billing),Customer User ID,Order Total Amount,SKU,Quantity (- Refund),Item Cost
501,Completed,2024-01-05 15:04,ann@example.org,11,39.90,MUG-1,2,10.00
501,Completed,2024-01-05 15:04,ann@example.org,11,39.90,TEA-2,1,15.00
502,Failed,2024-01-06 09:00,bob@example.org,12,14.90,MUG-1,1,10.00
"""
SETTLEMENT = """\
"Includes Amazon Marketplace and Webstore transactions"
"All amounts in USD, unless specified"
"date/time","settlement id","type","order id","sku","description","quantity","total"
"Jan 1, 2024 12:03:04 AM PST","1900","Order","111-1","PAN-10","Pan","2","1,050.00"
"Jan 20, 2024 1:03:04 PM PST","1900","Refund","111-1","PAN-10","Pan","1","-500.00"
"Jul 3, 2024 1:03:04 PM PDT","1900","Order","111-2","PAN-12","Pan","1","20.00"
"""
STRIPE = """\
id,Created date (UTC),Amount,Currency,Customer ID,Customer Email,Status
ch_1,2024-01-05 15:04:05,12.50,gbp,cus_A,ann@example.org,Paid
ch_2,2024-01-06 15:04:05,"1,250.00",gbp,cus_B,bob@example.org,Paid
ch_5,2024-01-08 15:04:09,99.00,gbp,cus_B,bob@example.org,Failed
"""
SQUARE = """\
Date,Time,Item,Qty,SKU,Gross Sales,Net Sales,Transaction ID,Event Type,Customer ID
2024-01-05,15:04:05,Latte,1.0,SQ1,$5.00,$4.00,TX1,Payment,C1
2024-01-06,09:04:05,Bun,-1.0,SQ2,-$3.00,-$3.00,TX2,Refund,C1
"""
YOUZAN = """\
订单号,订单状态,下单时间,买家昵称,商品名称,规格编码,商品数量,商品实际成交金额(元),退款状态
E1,交易完成,2024-01-05 15:04:05,小明,面包,BR01,2,24.00,
E2,交易关闭,2024-01-05 16:04:05,小红,面包,BR01,1,12.00,全额退款
"""
JD = """\
订单号,商品ID,订购数量,下单时间,京东价,订单金额,订单状态,下单帐号
290001,100012,1,2024-01-05 15:04:05,19.90,39.80,完成,jd_ann
290001,100013,1,2024-01-05 15:04:05,19.90,39.80,完成,jd_ann
"""
RAKUTEN = """\
注文番号,ステータス,注文日時,商品管理番号,個数,単価,会員番号
1-001,発送済,2024/01/05 15:04:05,tea-01,2,"1,250",m1
1-002,キャンセル,2024/01/06 15:04:05,tea-02,1,980,m2
"""
MERCADO = """\
Vendas de janeiro;;;;;;

N.º de venda;Data da venda;Estado;Unidades;Receita por produtos (BRL);SKU;Comprador
2001;5 de janeiro de 2024 15:04 hs.;Entregue;2;1.250,00;CAM-1;joao9
2003;16 de março de 2024 09:04 hs.;Cancelada;1;R$ 12,50;CAM-2;ana7
"""
POLISH = """\
Zamówienie;Klient;Data;Indeks;Ilość;Wartość;Płatność
Z1;kl1;05.01.2024 15:04;SŁ-1;2;1 250,50 zł;opłacone
Z2;kl2;16.01.2024 15:04;ŻÓ-2;1;12,50 zł;opłacone
"""
KOREAN = """\
주문번호,회원번호,주문일시,상품코드,수량,결제금액
K1,m1,2024. 1. 5. 오후 3:04:05,P1,2,"1,250원"
K2,m2,2024. 1. 6. 오전 12:04:05,P1,1,"12,500원"
"""
DUTCH = "Bestelnummer;Klantnummer;Besteldatum;Artikelcode;Aantal;Bedrag\nB1;k1;31-12-2023;T1;2;12,50\n"
ITALIAN = "Numero ordine;Cliente;Data ordine;Codice articolo;Quantità;Importo\nO1;c1;31/12/2023 10:00;T1;2;12,50\n"
RUSSIAN = "Номер заказа;Клиент;Дата заказа;Артикул;Количество;Сумма\nЗ1;к1;31.12.2023 10:00;Т1;2;12,50\n"
SAP = """\
05.02.2024                Dynamic List Display                1

------------------------------------------------------
| Sales Doc. | Sold-to | Material | Doc. Date  | Qty | Net value   |
------------------------------------------------------
| 0090000001 | 0000101 | M-01     | 05.01.2024 | 2   |  1.250,00   |
| 0090000003 | 0000101 | M-01     | 17.01.2024 | 1-  |   625,00-   |
"""
GA4 = """\
event_date,event_timestamp,event_name,user_pseudo_id,user_id,item_id
20240105,1704467045123456,view_item,1000000001.1704067200,,SKU-1
20240105,1704467145123456,add_to_cart,1000000001.1704067200,,SKU-1
20240105,1704467245123456,purchase,1000000001.1704067200,u1,SKU-1
"""


@pytest.mark.parametrize(
    ("content", "edits", "columns", "expected"),
    [
        pytest.param(
            WOOCOMMERCE,
            (),
            "order_id, source_user_id, amount, status",
            [("501", "11", 15.0, "paid"), ("501", "11", 20.0, "paid"), ("502", "12", 10.0, "cancelled")],
            id="price times quantity, not the total of the order on each line",
        ),
        pytest.param(
            SETTLEMENT,
            ("source_user_id",),
            "order_id, ts::VARCHAR, amount, status",
            [
                ("111-1", "2024-01-01 08:03:04", 1050.0, "paid"),
                ("111-1", "2024-01-20 21:03:04", 500.0, "refunded"),
                ("111-2", "2024-07-03 20:03:04", 20.0, "paid"),
            ],
            id="preface, zones with a name, refunds by the type of the booking",
        ),
        pytest.param(
            STRIPE,
            ("item_id",),
            "order_id, source_user_id, ts::VARCHAR, amount, status",
            [
                ("ch_1", "cus_A", "2024-01-05 15:04:05", 12.5, "paid"),
                ("ch_2", "cus_B", "2024-01-06 15:04:05", 1250.0, "paid"),
                ("ch_5", "cus_B", "2024-01-08 15:04:09", 99.0, "cancelled"),
            ],
            id="payments without items are no profiles",
        ),
        pytest.param(
            SQUARE,
            ("timezone: America/New_York",),
            "order_id, item_id, ts::VARCHAR, amount, status",
            [
                ("TX1", "SQ1", "2024-01-05 20:04:05", 4.0, "paid"),
                ("TX2", "SQ2", "2024-01-06 14:04:05", 3.0, "refunded"),
            ],
            id="clock times in a column of their own, payments and refunds are no events",
        ),
        pytest.param(
            YOUZAN,
            (),
            "order_id, source_user_id, item_id, quantity, amount, status",
            [("E1", "小明", "BR01", 2.0, 24.0, "paid"), ("E2", "小红", "BR01", 1.0, 12.0, "cancelled")],
            id="unit in brackets",
        ),
        pytest.param(
            JD.encode("gb18030"),
            (),
            "item_id, source_user_id, amount",
            [("100012", "jd_ann", 19.9), ("100013", "jd_ann", 19.9)],
            id="GBK, price times quantity",
        ),
        pytest.param(
            RAKUTEN.encode("cp932"),
            (),
            "order_id, source_user_id, ts::VARCHAR, item_id, amount, status",
            [
                ("1-001", "m1", "2024-01-05 06:04:05", "tea-01", 2500.0, "paid"),
                ("1-002", "m2", "2024-01-06 06:04:05", "tea-02", 980.0, "cancelled"),
            ],
            id="Shift JIS",
        ),
        pytest.param(
            MERCADO,
            ("timezone: America/Sao_Paulo",),
            "order_id, source_user_id, ts::VARCHAR, quantity, amount",
            [
                ("2001", "joao9", "2024-01-05 18:04:00", 2.0, 1250.0),
                ("2003", "ana7", "2024-03-16 12:04:00", 1.0, 12.5),
            ],
            id="preface as wide as the table, months in Portuguese",
        ),
        pytest.param(
            POLISH.encode("cp1250"),
            (),
            "order_id, source_user_id, ts::VARCHAR, item_id, amount",
            [
                ("Z1", "kl1", "2024-01-05 14:04:00", "SŁ-1", 1250.5),
                ("Z2", "kl2", "2024-01-16 14:04:00", "ŻÓ-2", 12.5),
            ],
            id="Windows-1250",
        ),
        pytest.param(
            KOREAN.encode("cp949"),
            (),
            "order_id, source_user_id, ts::VARCHAR, quantity, amount",
            [("K1", "m1", "2024-01-05 06:04:05", 2.0, 1250.0), ("K2", "m2", "2024-01-05 15:04:05", 1.0, 12500.0)],
            id="EUC-KR, halves of a day in Korean",
        ),
        pytest.param(DUTCH, (), "order_id, source_user_id, item_id, amount", [("B1", "k1", "T1", 12.5)], id="Dutch"),
        pytest.param(
            ITALIAN, (), "source_user_id, ts::VARCHAR, amount", [("c1", "2023-12-31 09:00:00", 12.5)], id="Italian"
        ),
        pytest.param(
            RUSSIAN.encode("cp1251"),
            (),
            "order_id, ts::VARCHAR, amount",
            [("З1", "2023-12-31 07:00:00", 12.5)],
            id="Windows-1251",
        ),
        pytest.param(
            SAP,
            (),
            "order_id, source_user_id, ts::VARCHAR, amount, status",
            [
                ("0090000001", "0000101", "2024-01-05 00:00:00", 1250.0, "paid"),
                ("0090000003", "0000101", "2024-01-17 00:00:00", 625.0, "refunded"),
            ],
            id="printed list: preface, blanks around ids",
        ),
        pytest.param(
            "order,cust,sku,date,qty,paid\n1,1001.0,501.0,2024-01-05,1.0,10.0\n2,,502.0,2024-01-06,1.0,10.0\n",
            (),
            "source_user_id, item_id",
            [("1001", "501"), (None, "502")],
            id="ids that a program wrote as numbers",
        ),
    ],
)
def test_an_export_of_orders(
    content: str | bytes, edits: tuple[str, ...], columns: str, expected: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    proposed(tmp_path, content)
    assert len(edits) <= MAX_EDITS
    assert rows(tmp_path, columns, edits=edits) == expected


def test_an_export_of_events(tmp_path: Path) -> None:
    proposed(tmp_path, GA4)
    found = rows(tmp_path, "event_type, source_user_id, ts::VARCHAR", "events")
    assert found == [
        ("cart", "1000000001.1704067200", "2024-01-05 15:05:45.123456"),
        ("purchase", "1000000001.1704067200", "2024-01-05 15:07:25.123456"),
        ("view", "1000000001.1704067200", "2024-01-05 15:04:05.123456"),
    ]


def test_consents_in_the_words_of_a_mailing_system(tmp_path: Path) -> None:
    proposed(
        tmp_path,
        "Customer ID,Email Marketing Consent,SMS Marketing Consent,City\n"
        "k1,SUBSCRIBED,NEVER_SUBSCRIBED,Bath\nk2,UNSUBSCRIBED,SUBSCRIBED,Leeds\nk3,,UNSUBSCRIBED,York\n",
    )
    found = rows(tmp_path, "source_user_id, consent_email, consent_sms", "profiles")
    assert found == [("k1", True, False), ("k2", False, True), ("k3", None, False)]


@pytest.mark.parametrize(
    ("content", "question"),
    [
        ("Receipt,Type,Date,Customer,SKU,Total\n1,Sale,2024-01-05,c,A,2\n2,Return,2024-01-05,c,A,2\n3,X,2024-01-05,c,A,2\n", "what does X mean"),
        ("order,cust,sku,date,total\n1,c,a,2024-01-05,30\n1,c,b,2024-01-05,30\n2,c,a,2024-01-05,20\n", "the same on all lines"),
        ("id,customer_id,sku,date,amount\n1,c,a,2024-01-05,1251\n2,c,b,2024-01-05,1399\n", "are these cents"),
        ("order,cust,sku,date,paid,Währung\n1,c,a,2024-01-05,1.5,EUR\n2,c,b,2024-01-05,1.5,CHF\n", "the amounts are in CHF, EUR"),
        ("order,cust,sku,date,paid\n1,c,a,2024-01-05,\"1,250\"\n", "does the other sign stand between thousands"),
        ("Order,Name,Date,Date\n1,a,2024-01-05,2024-01-06\n", "several columns are named date"),
        ("colour,size\nred,5\n", "is this transactions, events"),
        ("订单号,订单状态,下单时间,金额,售后状态,买家\nE1,已完成,2024-01-05,1,退款成功,a\n", "售后状态 says 退款成功"),
        ("commande;café\n1;crème\n".encode("cp1252"), "Otherwise windows-1250"),
    ],
)  # fmt: skip
def test_what_the_values_leave_open_is_asked(content: str | bytes, question: str, tmp_path: Path) -> None:
    assert question in proposed(tmp_path, content)


def test_a_question_without_an_answer_is_named_by_ingest(tmp_path: Path) -> None:
    proposed(tmp_path, "order,sku,date,paid,Kontakt\n1,a,2024-01-05,1.5,x\n")
    with pytest.raises(
        ConfigError, match=r'this question is not answered: which column is the source_user_id.*"Kontakt"'
    ):
        FileSource(tmp_path / "sources.yaml")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"PK\x03\x04\x14\0\x06\0\x08\0[Content_Types].xml", "an Excel workbook"),
        (b"\x1f\x8b\x08\0aaaa", r"compressed with gzip: give its name the ending \.csv\.gz"),
        (b"<!DOCTYPE html><html><table>", "a web page"),
        (b'\xef\xbb\xbf[\n {"order": "o1"}]', "JSON"),
        (b'{"order": "o1", "cust": "a"}\n', "JSON"),
        (b"%PDF-1.4\n", "a PDF document"),
        (b"PAR1\0\0", r"a Parquet file: give its name the ending \.parquet"),
    ],
)
def test_a_file_that_is_no_csv_is_named_by_its_first_bytes(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "orders.csv").write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_sample(tmp_path / "orders.csv")
    (tmp_path / "sources.yaml").write_text(
        "source: shop\ntimezone: UTC\ntables:\n  transactions:\n    path: orders.csv\n    columns: {order_id: order}\n"
    )
    with pytest.raises(ConfigError, match=message) as caught:
        FileSource(tmp_path / "sources.yaml")
    assert len(caught.value.problems) == 1


@pytest.mark.parametrize("mark", ["\ufeff\ufeff", "ï»¿", "\ufeffï»¿"])
def test_a_byte_order_mark_that_was_written_twice_or_as_text_is_no_part_of_the_first_name(
    mark: str, tmp_path: Path
) -> None:
    text = proposed(tmp_path, f'{mark}"order, no",cust,sku,date,paid\n1,a,ä,2024-01-05,1.5\n')
    assert "encoding" not in text
    assert rows(tmp_path, "order_id, item_id", edits=('order_id: "order, no"',)) == [("1", "ä")]
