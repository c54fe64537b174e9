"""Personal attributes in clear: known by their names in many languages and by their values; what stays readable is listed."""

from __future__ import annotations

from datetime import datetime

import pytest

from features.compute.builder import Builder
from features.data.lake import Lake
from features.data.personal_names import personal_data_type
from features.data.privacy import hash_value
from qianmian.errors import DataError
from qianmian.settings import Settings
from tests.features.data.exports import Export


@pytest.fixture
def export(tmp_path):
    return Export(tmp_path)


@pytest.mark.parametrize(
    ("kind", "names"),
    [
        ("name", "vorname Nachname prénom nom nombre apellido apellidos cognome voornaam achternaam sobrenome imię"),
        ("name", "姓名 收货人 收件人 联系人 昵称 氏名 이름 имя фамилия customer_name Kundenname nick"),
        ("phone", "telefon Telefonnr Handy Mobilfunknummer téléphone teléfono movil telefoon 手机号 联系方式 联系电话"),
        ("phone", "電話番号 携帯 휴대폰 телефон Kundentelefon mobile_2"),
        ("address", "Strasse Straße anschrift Rechnungsanschrift Hausnr adresse dirección indirizzo endereço straat"),
        ("address", "收件地址 收货地址 住所 주소 адрес rue calle"),
        ("email", "correo correo_electronico courriel E-Mail-Adresse Mailadresse 邮箱 电子邮箱 メールアドレス 이메일"),
        ("login", "微信号 微信 QQ号 qq wechat_id 旺旺 支付宝账号 Benutzername"),
        ("document", "身份证 身份证号 Ausweisnummer dni cpf 护照号 bsn"),
        ("card", "Kreditkarte tarjeta card_no"),
    ],
)
def test_names_of_personal_columns(kind, names):
    assert {name: personal_data_type(name) for name in names.split()} == dict.fromkeys(names.split(), kind)


OTHERS = (
    "city Ort Stadt ville ciudad 城市 PLZ consent email_opt_in einwilligung_email telefon_erlaubt nombre_pedidos "
    "anzahl_bestellungen dni_od_zakupu 手机品牌 手机型号 是否关注微信 邮箱订阅 会员等级 phone_model mobile_app_user brand_name "
    "product_name member_tier nie_gekauft street_type generation strategy kids title Anrede gender 性别 segment"
)


@pytest.mark.parametrize("name", OTHERS.split())
def test_names_of_other_columns(name):
    assert personal_data_type(name) is None


@pytest.mark.parametrize(
    ("yaml", "hashed", "city"),
    [
        ("sources.yaml", ("nachname", "strasse", "telefon", "vorname"), "Bonn"),
        ("cn.yaml", ("微信号", "收件地址", "收货人", "联系方式"), "上海"),
    ],
)
def test_columns_in_other_languages_are_stored_as_hashes(export, yaml, hashed, city):
    report = export.case("29-personal-columns-in-other-languages", yaml)
    assert report.tables["profiles"].hashed == hashed
    assert report.tables["profiles"].readable == ()
    columns = ", ".join(f'"{name}"' for name in hashed)
    (row,) = export.query(f"SELECT city, {columns} FROM profiles")
    assert row[0] == city
    assert all(value.startswith("h1:") for value in row[1:])


VALUES = {
    "email": ("ann@shop.example", "bob@post.example", "n/a"),
    "phone": ("13800138000", "0171 2345678", "+44 7700 900123"),
    "document": ("11010519491231002X", "DE89 3704 0044 0532 0130 00", "440524198801010011"),
    "card": ("4111 1111 1111 1111", "5555555555554444", "6200000000000005"),
    "address": ("Hauptstr. 1", "12 Larkspur Street", "浦东新区世纪大道100号"),
}


@pytest.mark.parametrize("kind", VALUES)
def test_values_that_are_personal_are_hashed_whatever_the_name_of_their_column(export, kind):
    rows = "\n".join(f"u{n};{value};fine" for n, value in enumerate(VALUES[kind]))
    report = export.ingest(f"id;extra;mood\n{rows}\n", "{source_user_id: id, extra: extra, mood: mood}", "profiles")
    assert (report.tables["profiles"].hashed, report.tables["profiles"].readable) == (("extra",), ("mood",))
    found = dict(export.query("SELECT source_user_id, extra FROM profiles"))
    assert found["u0"] == hash_value(export.workspace, Settings(), "email", VALUES[kind][0]) or kind != "email"
    assert (found["u2"] is None) == (kind == "email")  # n/a is no value
    assert all(value.startswith("h1:") for value in found.values() if value)
    # a later file with other values in this column does not show them
    export.ingest("id;extra;mood\nu9;call later;fine\n", "{source_user_id: id, extra: extra, mood: mood}", "profiles")
    assert export.query("SELECT extra FROM profiles WHERE source_user_id = 'u9'")[0][0].startswith("h1:")


@pytest.mark.parametrize(
    "values",
    [
        ("10001", "10002", "20240105"),
        ("4111111111111112", "1234567890123456", "5"),  # no check digit
        ("110105194912310021", "123456789012345678", "5"),
        ("Wegberg", "St. Ives", "Platzhirsch"),
        ("often writes to ann@shop.example", "likes red", "has a dog"),
        ("gold", "silver", "13800138000"),
    ],
)
def test_other_values_stay_readable(export, values):
    rows = "\n".join(f"u{n};{value}" for n, value in enumerate(values))
    report = export.ingest(f"id;extra\n{rows}\n", "{source_user_id: id, extra: extra}", "profiles")
    assert report.tables["profiles"].readable == ("extra",)
    assert [row[0] for row in export.query("SELECT extra FROM profiles ORDER BY source_user_id")] == list(values)


def test_an_attribute_is_private_or_readable_as_declared(export):
    text = "id;hobby;telefon;kids\nu1;chess;13800138000;2\n"
    columns = "{source_user_id: id, hobby: hobby, telefon: telefon, kids: kids}"
    keys = "    private: [hobby]\n    readable: [telefon]\n"
    found = export.preview(text, columns, "profiles", keys).tables["profiles"]
    report = export.ingest(text, columns, "profiles", keys).tables["profiles"]
    assert (found.hashed, found.readable) == (report.hashed, report.readable) == (("hobby",), ("kids", "telefon"))
    (row,) = export.query("SELECT hobby, telefon, kids FROM profiles")
    assert row[0].startswith("h1:")
    assert row[1:] == ("13800138000", "2")
    with pytest.raises(DataError, match=r"profiles.private names a column that is no mapped attribute.*shoe_size"):
        export.ingest(text, columns, "profiles", "    private: [shoe_size]\n")


def test_an_attribute_hashed_by_its_values_is_no_feature(export):
    export.ingest(
        "id;extra;mood;joined\nu1;ann@shop.example;fine;2024-01-01\nu2;bob@shop.example;bad;2024-01-01\n",
        "{source_user_id: id, extra: extra, mood: mood, registered_at: joined}",
        "profiles",
    )
    names = {feature.name for feature in Builder(Lake(export.workspace), ()).attributes()}
    assert any(name.endswith("mood") for name in names)
    assert not any(name.endswith("extra") for name in names)
    assert datetime(2024, 1, 1) == export.query("SELECT max(registered_at) FROM profiles")[0][0]
