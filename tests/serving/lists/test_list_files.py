"""Lists as files: headings and values of each language, spreadsheets that compute nothing, names that are wrong."""

from __future__ import annotations

from datetime import date, datetime

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.erasure.customer import ErasedCustomer
from features.erasure.files import erase_rows
from features.profiles.tags.chinese import CHINESE
from qianmian.errors import UsageError
from serving import responses
from serving.predictions import PREDICTIONS, demand, propensity
from serving.scoring.lists.columns import COLUMNS, choose, column_of
from serving.scoring.lists.files import PeopleList, write_list
from serving.scoring.lists.tables import CHINESE_COLUMN, list_of_table
from serving.scoring.lists.words import PREDICTION_NAMES, no_score_words

VALUES = {
    "user_id": ["=1+1", "@me", "7"],
    "churn_probability": [0.1234, 0.5, None],
    "value_at_risk": [1234.5, -3.0, float("nan")],
    "risk_band": ["low", "high", None],
    "lifecycle_stage": ["at_risk", "loyal", "prospect"],
    "next_stage": [{"active": 0.25, "loyal": 0.75}, None, None],
    "reason_1": ["no order for 41 days; usually every 17", "-5%", None],
    "no_score_reason": [None, None, "no purchase in the last 56 days"],
    "next_order_date": ["2018-01-28", None, None],
    "as_of": [datetime(2018, 1, 2)] * 3,
    "one_id": ["c1", "c2", "c3"],
}
ENGLISH = """\
Customer,Churn probability,Value at risk,Risk,Stage,Next stage,Reason 1,No score because,Expected next order,As of,OneID
'=1+1,12.3%,1234.50,low,at risk,loyal 75% · active 25%,no order for 41 days; usually every 17,,28 January 2018,2 January 2018,c1
'@me,50.0%,-3.00,high,loyal,,'-5%,,,2 January 2018,c2
7,,,,prospect,,,no purchase in the last 56 days,,2 January 2018,c3
"""
CHINESE_TEXT = """\
客户编号,流失概率,预计流失金额,流失风险,生命周期阶段,下一阶段,原因一,无评分原因,预计下次下单,数据截至,OneID
'=1+1,12.3%,1234.50,低,流失预警,忠诚客户 75%；活跃客户 25%,no order for 41 days; usually every 17,,2018年1月28日,2018年1月2日,c1
'@me,50.0%,-3.00,高,忠诚客户,,'-5%,,,2018年1月2日,c2
7,,,,潜在客户,,,近 56 天没有购买,,2018年1月2日,c3
"""


def people(lang="en", values=VALUES):
    return PeopleList([column_of(key, {}) for key in values], values, lang)


@pytest.mark.parametrize(("lang", "text"), [("en", ENGLISH), ("zh", CHINESE_TEXT)])
def test_a_list_in_both_languages(tmp_path, lang, text):
    out = write_list(people(lang), tmp_path / "list.csv")
    assert out.read_bytes().decode("utf-8") == text
    assert write_list(people(lang), tmp_path / "bom.csv", bom=True).read_bytes() == b"\xef\xbb\xbf" + text.encode()


def test_parquet_keeps_numbers(tmp_path):
    table = pq.read_table(write_list(people("zh"), tmp_path / "list.parquet"))
    assert table["流失概率"].to_pylist() == [0.1234, 0.5, None]
    assert table["客户编号"].to_pylist() == ["=1+1", "@me", "7"]


def test_an_erasure_finds_the_row_whatever_the_language_and_columns(tmp_path):
    customer = ErasedCustomer((("shop", "=1+1"),), ("c1",))
    for lang in ("en", "zh"):
        for suffix in ("csv", "parquet"):
            out = write_list(people(lang), tmp_path / f"list.{suffix}", bom=suffix == "csv")
            assert erase_rows(out, customer) == 1
            assert b"=1+1" not in out.read_bytes()


def test_columns_are_chosen_by_name_and_the_last_one_is_the_id():
    assert choose(None, ["one_id", "user_id"], []) == ["user_id", "one_id"]
    assert choose(["score", "one_id", "score"], [], ["score"]) == ["score", "one_id"]
    with pytest.raises(UsageError, match=r"did you mean churn_probability\?"):
        choose(["churn_probabilty"], [], ["churn_probability"])


def test_headings_are_told_apart():
    assert len({column.heading("en") for column in COLUMNS.values()}) > 30
    both = people(
        values={"next_order_date": ["2018-01-28"], "expected_date_of_next_order": [date(2018, 1, 27)], "one_id": ["c1"]}
    )
    assert both.headings[:2] == [
        "Expected next order (next_order_date)",
        "Expected next order (expected_date_of_next_order)",
    ]


TABLE = pa.table(
    {
        "user_id": ["a", "b", "c"],
        "user_source": ["shop"] * 3,
        "one_id": ["1", "2", "3"],
        "predicted_clv": [5.0, None, 9.0],
        "gender": ["female", None, "male"],
        "as_of": [datetime(2018, 1, 2)] * 3,
    }
)


def test_a_table_is_sorted_and_cut_and_tags_have_their_words():
    found = list_of_table(TABLE, "zh", {"gender": CHINESE["gender"]}, top=2)
    assert found.headings == ["客户编号", "预测价值", "性别", "数据截至", "OneID"]
    assert [found.cells(column) for column in found.columns[:3]] == [["c", "a"], ["9.00", "5.00"], ["男", "女"]]
    assert list_of_table(TABLE, "en", {}).values["user_id"] == ["c", "a", "b"]
    assert list_of_table(TABLE, "en", {}, ["gender"]).headings == ["Gender", "OneID"]


def test_the_first_rows_name_their_source_where_others_have_another():
    table = TABLE.set_column(1, "user_source", pa.array(["app", "web", "app"]))
    assert list_of_table(table, "en", {}, top=2).headings[:2] == ["Customer", "Source"]


def test_the_date_of_a_tag_has_its_words():
    column = column_of("churn_risk_as_of", CHINESE)
    assert (column.heading("en"), column.heading("zh")) == ("Churn risk as of", "流失风险截至")


def test_without_money_orders_sort():
    table = TABLE.set_column(3, "predicted_clv", pa.array([None] * 3, pa.float64()))
    table = table.append_column("predicted_number_of_orders", pa.array([1.0, 3.0, 2.0]))
    assert list_of_table(table, "en", {}).values["user_id"] == ["b", "c", "a"]


def test_each_propensity_is_a_column_and_the_first_one_sorts():
    propensities = pa.array([{"event=cart": 0.2, "brand=A": 0.1}, None, {"event=cart": 0.1, "brand=A": 0.345}])
    table = TABLE.drop_columns(["predicted_clv", "gender"]).append_column("propensities", propensities)
    found = list_of_table(table, "en", {})
    assert found.headings[:3] == ["Customer", "event=cart", "brand=A"]
    assert found.values["user_id"] == ["a", "c", "b"]
    assert found.cells(found.columns[2]) == ["10.0%", "34.5%", ""]
    assert list_of_table(table, "zh", {}, ["user_id", "brand=A"], top=1).values["user_id"] == ["c"]


@pytest.mark.parametrize(
    ("key", "value", "english", "chinese"),
    [
        ("best_contact_time", {"day": "wednesday", "slot": "evening", "hours": "18:00-24:00", "share": 0.1, "basis": "all"}, "Wednesday evening, 18:00-24:00", "周三晚上（18:00-24:00）"),
        ("best_contact_time", "wednesday_evening", "wednesday evening", "周三晚上"),
        ("ranked_channel_affinity", [{"channel": "email", "share": 0.71, "basis": "customer"}, {"channel": "sms", "share": 0.29, "basis": "customer"}], "e-mail 71% · SMS 29%", "邮件 71%；短信 29%"),
        ("no_score_reasons", {"churn": "no purchase in the last 56 days", "left": "a window of 178 days, which a history of 412 days would be enough for", "value": None}, "churn: no purchase in the last 56 days · having left: a window of 178 days, which a history of 412 days would be enough for", "流失：近 56 天没有购买；离开：判定离开需观察 178 天，至少要有 412 天的历史数据"),
        ("demand_type_source", "first_sessions", "first sessions", "最初几次访问"),
        ("next_stage", {"loyal": 0.999, "lost": 0.0001}, "loyal 100%", "忠诚客户 100%"),
    ],
    ids=["time", "time of the tag", "channels", "reasons", "source", "shares"],
)  # fmt: skip
def test_values_of_predictions_are_words(key, value, english, chinese):
    assert [column_of(key, {}).cell(value, lang) for lang in ("en", "zh")] == [english, chinese]


def test_every_prediction_has_headings_and_chinese_reasons():
    fields = {name for one in PREDICTIONS.values() for name in one.response.model_fields}
    fields = {name.removesuffix(CHINESE_COLUMN) for name in fields}  # a list has the one of its language
    assert fields | {"no_score_reason", "no_score_reasons"} <= {*COLUMNS, *CHINESE}
    assert set(PREDICTION_NAMES) == set(PREDICTIONS)
    for reason in (responses.UNKNOWN_CUSTOMER, responses.NEVER_BOUGHT, demand.NOTHING_SHOWN, propensity.NO_HISTORY):
        assert not no_score_words(reason, "zh").isascii()
