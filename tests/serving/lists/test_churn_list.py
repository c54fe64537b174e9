"""The churn list and report of a synthetic shop: they agree with the scores, and with each other."""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser

import numpy as np
import pyarrow as pa
import pytest
from pydantic import BaseModel

from cli.list_options import Sort
from cli.main import run
from cli.score_churn import _order, churn_report
from features.erasure.customer import ErasedCustomer
from features.erasure.exports import read_exports
from features.erasure.files import erase_rows
from qianmian.errors import UsageError
from qianmian.schema import EVALUATION
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from serving.champions import Champions
from serving.predictions.base import Predicted, Prediction
from serving.scoring.churn import score_churn
from serving.scoring.lists.churn import DEFAULT_COLUMNS, churn_scores, jobs
from serving.scoring.lists.contact import CONTACT
from serving.scoring.lists.report.page import write_report

INTERVAL = [0.15, 0.12, 0.18, 350]
SUMMARY = {
    "metrics": {"auc": [0.853, 0.84, 0.866, 400], "brier": [0.094, 0.09, 0.1, 400]},
    "baselines": {"base rate": {"brier": [0.12, 0.11, 0.13, 400]}},
    "slices": {
        "low risk": {"predicted": INTERVAL, "observed": INTERVAL},
        "high risk": {"predicted": [0.7, 0.6, 0.8, 9], "observed": [0.75, 0.4, 0.9, 9]},
        "at 2024-05-01": {"predicted": INTERVAL, "observed": INTERVAL},
        "at 2024-06-01": {"predicted": INTERVAL, "observed": INTERVAL},
    },
}


@pytest.fixture(scope="module")
def scores(champions):
    return churn_scores(champions, {})


class Tables(HTMLParser):
    """The rows of the tables of a page as texts, the ids of the rows' customers, and what would need a network."""

    def __init__(self, text):
        super().__init__()
        self.tables, self.customers, self.fetched, self.elements = [], [], [], set()
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        self.elements.add(tag)
        self.fetched += [value for key, value in attrs if key in ("src", "href", "srcset", "data")]
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
            if "data-one-id" in found:
                self.customers.append(found["data-one-id"])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")

    def handle_data(self, data):
        if self.tables and self.tables[-1] and self.tables[-1][-1]:
            self.tables[-1][-1][-1] += data

    def table(self, first):
        """The table whose first heading is `first`, as dicts."""
        head, *rows = next(table for table in self.tables if table[0][0] == first)
        return [dict(zip(head, row, strict=True)) for row in rows]


def test_the_list_has_the_scores_sorted_by_value_at_risk_and_nobody_is_dropped(champions, scores):
    table = score_churn(champions, explain=False).table()
    people = scores.people_list("en")
    assert [column.key for column in people.columns][:3] == ["user_id", "user_source", "churn_probability"]
    assert sorted(people.values["one_id"]) == sorted(table["one_id"].to_pylist())
    scored = int(scores.scored.sum())
    at_risk = np.array(people.values["value_at_risk"], dtype=float)
    assert (np.diff(at_risk[:scored]) <= 0).all()
    assert np.isnan(at_risk[scored:]).all()
    probability = dict(zip(table["one_id"].to_pylist(), table["churn_probability"].to_pylist(), strict=True))
    assert people.values["churn_probability"] == [probability[one_id] for one_id in people.values["one_id"]]
    spent = champions.customers.features.column("amount_91d")
    assert np.allclose(scores.values, spent * scores.horizon_days / 91)
    by_risk = scores.order("risk")[:scored]
    assert (np.diff(scores.probabilities[by_risk]) <= 0).all()


def test_every_scored_customer_has_different_true_sentences(scores):
    rows = scores.order("risk")[:60]
    for lang in ("en", "zh"):
        for row, texts in zip(rows.tolist(), scores.reasons(rows, lang), strict=True):
            assert len(texts) == len(set(texts)) <= 3
            if lang == "en" and any("no order for" in text for text in texts):
                days = int(scores.champions.customers.features.column("days_since_last_order")[row])
                assert any(f"no order for {days} day" in text for text in texts)
    assert scores.reasons(np.flatnonzero(~scores.scored)[:1], "en") in ([[]], [])


def test_counts_reconcile(scores):
    counts = scores.contacts.counts
    assert sum(counts.values()) == len(scores)
    people = scores.people_list("en", ["contact", "contact_reason"])
    assert people.values["contact"].count("yes") == counts[CONTACT]
    assert all(people.values["contact_reason"])


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_the_report_agrees_with_the_list(scores, tmp_path, lang):
    page = Tables(write_report(scores, tmp_path / "churn.html", lang, "value_at_risk", 10).read_text())
    first = page.table({"en": "Customer", "zh": "客户"}[lang])
    contacted = scores.order("value_at_risk")
    contacted = contacted[scores.contacts.codes[contacted] == CONTACT][:10]
    assert page.customers[: len(contacted)] == [scores.table["one_id"][row].as_py() for row in contacted.tolist()]
    probabilities = [row[{"en": "Probability", "zh": "概率"}[lang]] for row in first]
    assert probabilities == [f"{scores.probabilities[row]:.1%}" for row in contacted.tolist()]
    reasons = page.table({"en": "Reason", "zh": "原因"}[lang])
    counts = [int(row[{"en": "Customers", "zh": "客户数"}[lang]].replace(",", "")) for row in reasons]
    assert counts[:-1] == list(scores.contacts.counts.values())
    assert sum(counts[:-1]) == counts[-1] == len(scores)
    bands = [row for table in page.tables if len(table) == 5 for row in table[1:]]
    assert [int(row[1].replace(",", "")) for row in bands][-1] == int(scores.scored.sum())
    assert not page.fetched
    assert {"svg", "script", "style"} <= page.elements


def test_the_report_says_how_sure_it_is(champions, scores, tmp_path):
    before = scores.champion
    assert "stored evaluation" in write_report(scores, tmp_path / "a.html", "en", "risk").read_text()
    facts = {**before.bundle.facts, EVALUATION: SUMMARY}
    evaluated = replace(before, bundle=replace(before.bundle, facts=facts))
    models = {**champions.models, "churn": evaluated}
    changed = replace(scores, champions=Champions(models, scores.champions.customers, champions.settings))
    text = write_report(changed, tmp_path / "b.html", "en", "risk").read_text()
    assert "in 85 of 100 such pairs" in text
    assert "(Brier score, lower is better) is 0.094; it would be 0.120" in text
    assert "9 (few customers)" in text
    assert "1 May 24" in text


def test_words_of_the_report_sort_by_what_they_mean(champions, scores, tmp_path):
    text = write_report(scores, tmp_path / "a report.html", "en", "risk", len(scores)).read_text()
    order = {"high": 2, "medium": 1, "low": 0}
    found = re.findall(r'<td class="(high|medium|low)" data-value="(\d)">', text)
    assert found
    assert all(order[band] == int(place) for band, place in found)
    dates = re.findall(r'<td class="whole" data-value="(\d{6})">(\d+ \w+ \d{4})</td>', text)
    assert dates
    assert all(datetime.strptime(day, "%d %B %Y").replace(tzinfo=UTC).toordinal() == int(place) for place, day in dates)
    assert len(re.findall(r'data-value="[0-6]">(?:new|active|loyal|at risk|asleep|lost)</td>', text)) >= len(dates)


def test_the_report_names_the_command_that_repeats_it(scores, tmp_path):
    text = unescape(write_report(scores, tmp_path / "a report.html", "zh", "risk", 7).read_text())
    moment = scores.as_of.isoformat()
    assert f"score churn --report 'a report.html' --lang zh --sort risk --as-of {moment} --top 7" in text


def with_ids(champions, ids):
    """The scores of the same customers, the first ones to contact with other user ids."""
    snapshot, scores = champions.customers, churn_scores(champions, {})
    user_ids = snapshot.table["user_id"].to_pylist()
    for row, user_id in zip(np.flatnonzero(scores.contacts.codes == CONTACT).tolist(), ids, strict=False):
        user_ids[row] = user_id
    place = snapshot.table.schema.get_field_index("user_id")
    table = snapshot.table.set_column(place, "user_id", pa.array(user_ids))
    return churn_scores(champions.with_snapshot(replace(snapshot, table=table)), {})


def test_ids_are_escaped_and_an_erasure_takes_the_whole_row(champions, tmp_path):
    scores = with_ids(champions, ['<script>alert("1")</script>', "two\nlines & more"])
    out = write_report(scores, tmp_path / "churn.html", "en", "risk", len(scores))
    text = out.read_text()
    assert text.count("<script>") == 1
    assert "<script>alert" not in text
    page = Tables(text)
    assert any(row["Customer"].startswith('<script>alert("1")</script>') for row in page.table("Customer"))
    place = scores.table["user_id"].to_pylist().index("two\nlines & more")
    one_id = scores.table["one_id"][place].as_py()
    removed = erase_rows(out, ErasedCustomer((("shop", "two\nlines & more"),), (one_id,)))
    assert removed == 1
    assert "lines &amp; more" not in out.read_text()
    assert len(Tables(out.read_text()).customers) == len(page.customers) - removed


class ValueFields(BaseModel):
    predicted_clv: float | None
    left_probability: float | None


def test_the_predicted_value_and_who_has_left_are_used_where_there_are_models(champions, scores, monkeypatch):
    def predict(customers):
        n = len(customers)
        left = [None if row % 2 else 0.95 for row in range(n)]
        return Predicted({"predicted_clv": [7.0, None] + [3.0] * (n - 2), "left_probability": left}, [None] * n)

    value = Prediction("value", "lifecycle", ValueFields, lambda champion: [], predict)
    monkeypatch.setattr("serving.scoring.lists.churn.PREDICTIONS", {"value": value})
    assert jobs() == ["churn", "lifecycle"]
    found = churn_scores(champions, {})
    assert found.value_basis == ("predicted value of the next 28 days", "未来 28 天的预测价值")
    assert found.values[[0, 2]].tolist() == [7.0, 3.0]
    assert np.isnan(found.values[1])
    # another horizon than that of churn: the money that is at risk is that of the time without an order
    longer = replace(
        champions.models["lifecycle"], bundle=replace(champions.models["lifecycle"].bundle, facts={"horizon_days": 56})
    )
    scaled = churn_scores(replace(champions, models={**champions.models, "lifecycle": longer}), {})
    assert scaled.value_basis[0] == "predicted value of the next 56 days, scaled to 28 days"
    assert scaled.values[[0, 2]].tolist() == [3.5, 1.5]
    assert found.contacts.counts["unlikely_to_return"] > 0
    assert np.isnan(found.people_list("en", ["value_at_risk"]).values["value_at_risk"][-1])
    # a model that knows later rows than the profiles is not used
    later = replace(champions.models["lifecycle"].bundle, as_of=scores.as_of + timedelta(days=1))
    models = {**champions.models, "lifecycle": replace(champions.models["lifecycle"], bundle=later)}
    found = churn_scores(Champions(models, champions.customers, champions.settings), {})
    assert found.value_basis == scores.value_basis


def test_no_money_is_no_value_at_risk(champions, scores, monkeypatch):
    def predict(customers):
        return Predicted({"predicted_clv": [None] * len(customers), "left_probability": [None] * len(customers)}, [])

    value = Prediction("value", "lifecycle", ValueFields, lambda champion: [], predict)
    monkeypatch.setattr("serving.scoring.lists.churn.PREDICTIONS", {"value": value})
    assert churn_scores(champions, {}).value_basis == scores.value_basis
    snapshot = champions.customers
    place = snapshot.table.schema.get_field_index("amount_91d")
    nothing = pa.array(np.zeros(len(scores)), snapshot.table.schema.field(place).type)
    table = snapshot.table.set_column(place, "amount_91d", nothing)
    bare = churn_scores(champions.with_snapshot(replace(snapshot, table=table)), {})
    assert bare.value_basis == ("", "")
    assert bare.default_sort == "risk"


def test_without_amounts_probability_sorts(champions, scores):
    bare = replace(scores, values=np.full(len(scores), np.nan), value_basis=("", ""))
    with pytest.raises(UsageError, match="no amounts"):
        _order(bare, Sort.VALUE_AT_RISK)
    assert (_order(bare, None), _order(scores, None), _order(scores, Sort.RISK)) == ("risk", "value_at_risk", "risk")
    assert bare.default_sort == "risk"
    assert "value_at_risk" not in bare.people_list("en").values
    assert (np.diff(np.array(bare.people_list("en").values["churn_probability"][: int(bare.scored.sum())])) <= 0).all()


@pytest.fixture
def shop(workspace, tmp_path):
    """A copy of the workspace that a command may change."""
    return Workspace(shutil.copytree(workspace.root, tmp_path / "a shop"))


def command(*arguments):
    return run([str(argument) for argument in ("score", *arguments)])


def test_the_command_writes_list_and_report_and_notes_them(workspace, tmp_path, capsys):
    out, report = tmp_path / "churn.csv", tmp_path / "churn.html"
    options = ("--workspace", workspace.root, "--out", out, "--lang", "zh", "--top", 5, "--bom")
    assert command("churn", *options, "--report", report, "--as-of", "2024-08-01") == 0, capsys.readouterr().err
    with out.open(encoding="utf-8-sig", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 5
    assert rows[0]["预测内容"] == "截至2024年8月28日不下单"
    assert {row["是否联系"] for row in rows} <= {"是", "否"}
    assert list(rows[0])[-1] == "OneID"
    assert {str(out), str(report)} <= {export.path for export in read_exports(workspace)}
    assert 'lang="zh-CN"' in report.read_text()
    assert command("churn", "--workspace", workspace.root, "--report", report, "--json") == 0


def test_a_file_for_machines_stays_the_same_beside_a_report(workspace, tmp_path):
    alone, beside = tmp_path / "alone.parquet", tmp_path / "beside.parquet"
    assert command("churn", "--workspace", workspace.root, "--out", alone) == 0
    assert command("churn", "--workspace", workspace.root, "--out", beside, "--report", tmp_path / "r.html") == 0
    assert alone.read_bytes() == beside.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["churn"], "--out FILE, --report FILE.html"),
        (["churn", "--report", "x.pdf"], ".html"),
        (["churn", "--out", "x.csv", "--columns", "user_id,churn_probabilty"], "did you mean churn_probability?"),
        (["churn", "--out", "x.csv", "--columns", "user_id,,"], "a column has no name"),
        (["churn", "--report", "x.html", "--columns", "user_id"], "name its file in --out"),
        (["churn", "--out", "x.csv", "--top", "0"], "greater than or equal to 1"),
        (["churn", "--out", "x.csv", "--lang", "fr"], "fr"),
        (["churn", "--out", "x.parquet", "--bom"], "only CSV has a byte order mark"),
        (["churn", "--out", "x.csv", "--sort", "name"], "name"),
        (["churn", "--out", "x.csv", "--lang", "en", "--engine", "spark"], "omit --engine spark"),
        (["churn", "--report", "x.html", "--engine", "spark"], "omit --engine spark"),
        (["churn", "--out", "x.csv", "--lang", "en", "--workers", "2"], "one process"),
        (["churn", "--report", "x.html", "--workers", "2"], "a report is made by one process"),
        (["predictions", "--out", "x.csv", "--top", "3", "--engine", "spark"], "omit --engine spark"),
        (["tags", "--out", "x.csv", "--columns", "lifecycle_stag"], "did you mean lifecycle_stage?"),
        (["tags", "--out", "x.parquet", "--bom"], "only CSV"),
        (["lookalike", "--out", "x.parquet", "--seed", "x", "--bom"], "only CSV"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_a_list_does_not_take_is_exit_2(workspace, tmp_path, capfd, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert command(*arguments, "--workspace", workspace.root) == 2
    assert message in " ".join(capfd.readouterr().err.split())
    assert not list(tmp_path.glob("x.*"))


@pytest.mark.slow
def test_a_day_on_which_nobody_is_active_is_exit_3(shop, tmp_path, capfd):
    out = tmp_path / "x.html"
    assert command("churn", "--workspace", shop.root, "--report", out, "--as-of", "2025-07-01") == 3
    assert "no customer has a churn score" in capfd.readouterr().err
    assert not out.exists()


def test_the_demo_has_no_report_where_nobody_has_a_score(workspace, champions, tmp_path, monkeypatch):
    monkeypatch.setattr("serving.champions.load_from_workspace", lambda *_: champions)
    nobody = replace(churn_scores(champions, {}), probabilities=np.full(champions.customers.table.num_rows, np.nan))
    monkeypatch.setattr("serving.scoring.lists.churn.churn_scores", lambda *_, **__: nobody)
    assert churn_report(workspace, Settings(), tmp_path / "churn.html") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("what", ["tags", "predictions"])
def test_other_scores_are_lists_too(workspace, tmp_path, what, capsys):
    out = tmp_path / "list.csv"
    arguments = ("--workspace", workspace.root, "--out", out, "--lang", "zh", "--top", 4)
    assert command(what, *arguments) == 0, capsys.readouterr().err
    with out.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == 4
    assert "生命周期阶段" in rows[0]


def test_predictions_of_another_date_have_its_tags(workspace, tmp_path, capsys):
    out = tmp_path / "list.csv"
    arguments = ("--workspace", workspace.root, "--out", out, "--as-of", "2024-08-01")
    assert command("predictions", *arguments, "--lang", "en", "--top", 4) == 0, capsys.readouterr().err
    with out.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert {row["As of"] for row in rows} == {"1 August 2024"}
    assert all(row["Consent"] for row in rows)


def test_lookalikes_are_a_list_sorted_by_score_with_tags(workspace, champions, tmp_path, capsys):
    seed, out = tmp_path / "seed.txt", tmp_path / "list.csv"
    seed.write_text("\n".join(champions.customers.table["user_id"].to_pylist()[:60]))
    columns = "user_id,score,lifecycle_stage,favourite_category"
    options = ("--workspace", workspace.root, "--seed", seed, "--out", out, "--columns", columns, "--top", 7)
    assert command("lookalike", *options) == 0, capsys.readouterr().err
    with out.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert list(rows[0]) == ["Customer", "Similarity", "Stage", "Favourite category", "OneID"]
    scores = [float(row["Similarity"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    assert len(rows) == 7


def test_all_default_columns_have_headings():
    from serving.scoring.lists.columns import COLUMNS

    assert set(DEFAULT_COLUMNS) <= set(COLUMNS)
