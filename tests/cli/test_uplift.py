"""`qianmian train uplift` to the registry, the tag, the file and the answer, for a campaign and for a table."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features.profiles.tags.published import read
from qianmian.config import load_settings
from qianmian.workspace import Workspace
from serving.champions import load_from_workspace
from serving.endpoints.uplift import ENDPOINT
from serving.requests import parse_request
from tests.features.conftest import write_lake

BEGIN, CONTACT = datetime(2024, 1, 1), datetime(2024, 3, 1)
DAYS = 76  # the campaign is on day 60
CAMPAIGN = ("train", "uplift", "--horizon-days", 14, "--workspace")


@pytest.fixture
def messages(tmp_path) -> Path:
    """400 customers: a message of `spring` moves those who order often; one of `nothing`, at the same time, nobody."""
    rng = np.random.default_rng(0)
    often, held_out = np.arange(400) % 2 == 0, {name: rng.random(400) < 0.5 for name in ("spring", "nothing")}
    probability = np.where(often & ~held_out["spring"], 0.8, 0.2)
    orders = rng.random(400) < probability
    lines, touches = [], []
    for user in range(400):
        days = [*range(user % 5, 60, 4 if often[user] else 15), *([65] if orders[user] else [])]
        lines += [
            {
                "source": "shop",
                "order_id": f"{user}-{day}",
                "line_no": 1,
                "source_user_id": f"u{user}",
                "item_id": "i",
                "ts": BEGIN + timedelta(days=day),
                "quantity": 1.0,
                "amount": 10.0,
                "status": "paid",
            }
            for day in days
        ]
        touches += [
            {
                "source": "shop",
                "touch_id": f"{name}-{user}",
                "campaign_id": name,
                "source_user_id": f"u{user}",
                "ts": CONTACT,
                "variant": "control" if arms[user] else "mail",
            }
            for name, arms in held_out.items()
        ]
    last = {**lines[0], "order_id": "last", "source_user_id": "u0", "ts": BEGIN + timedelta(days=DAYS)}
    return write_lake(tmp_path / "workspace", {"transactions": [*lines, last], "touches": touches}).workspace.root


@pytest.mark.slow
def test_a_campaign_is_registered_published_scored_and_answered_or_refused(qianmian, messages, tmp_path):
    done = qianmian(*CAMPAIGN, messages, "--campaign", "nothing")
    assert done.code == 4, done.err
    assert "no usable effect" in done.err
    workspace, out = Workspace(messages), tmp_path / "uplift.parquet"
    assert read(workspace, "uplift_decile") is None
    none = qianmian("score", "uplift", "--out", out, "--workspace", messages)
    assert none.code == 3
    assert "no campaign is declared" in none.err

    done = qianmian(*CAMPAIGN, messages, "--campaign", "spring")
    assert done.code == 0, done.err
    told = qianmian("score", "uplift", "--out", out, "--budget-share", 0.3, "--workspace", messages, "--json").json
    rows = pq.read_table(out).to_pylist()
    assert sum(row["contact"] for row in rows) == told["policy"]["contacted"] == 120
    uplift = {often: np.mean([row["uplift"] for row in rows if is_often(row) == often]) for often in (True, False)}
    assert uplift[True] > uplift[False] + 0.3
    tag = read(workspace, "uplift_decile")
    assert (tag.model_name, tag.model_version) == ("qianmian-uplift", "1")
    assert tag.values == {row["one_id"]: row["uplift_decile"] for row in rows}

    champions = load_from_workspace(workspace, load_settings(workspace.config_file), ["uplift"])
    body = {"user_ids": [row["user_id"] for row in rows], "budget_share": 0.3}
    answer = ENDPOINT.respond(champions, parse_request(ENDPOINT.request, orjson.dumps(body)), CONTACT)
    for name in ("uplift", "uplift_decile", "contact", "do_not_contact_reason"):
        assert [row[name] for row in answer["scores"]] == [row[name] for row in rows], name
    assert answer["policy"] == told["policy"]


def is_often(row) -> bool:
    return int(row["user_id"].removeprefix("u")) % 2 == 0


@pytest.mark.slow
def test_a_table_is_registered_and_its_rows_are_scored(qianmian, tmp_path):
    rng = np.random.default_rng(0)
    mail, member = rng.choice(["mail", "none"], 600), rng.choice(["yes", "no"], 600)
    visit = (rng.random(600) < 0.2 + 0.5 * ((mail == "mail") & (member == "yes"))).astype(int)
    data, out, workspace = tmp_path / "mailing.csv", tmp_path / "scores.parquet", tmp_path / "workspace"
    columns = {"customer": [f"C{row:03}" for row in range(600)], "member": member, "mail": mail, "visit": visit}
    pyarrow.csv.write_csv(pa.table(columns), data)
    columns = ("--data", data, "--treatment", "mail", "--outcome", "visit", "--id", "customer")
    done = qianmian("train", "uplift", *columns, "--name", "spring", "--workspace", workspace)
    assert done.code == 0, done.err
    score = ("score", "uplift", "--data", data, "--out", out, "--workspace", workspace)
    assert qianmian(*score, "--name", "spring", "--budget-share", 0.2).code == 0
    scored = pq.read_table(out)
    assert scored.column_names == ["user_id", "uplift", "contact", "model_version"]
    contact = np.array(scored["contact"].to_pylist())
    assert contact.sum() == 120
    assert set(member[contact]) == {"yes"}
    other = qianmian(*score)
    assert other.code == 3
    assert "no model is registered as qianmian-uplift-table" in other.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("score", "uplift", "--out", "o.csv", "--name", "spring"), "--name is an option of score uplift with a table"),
        (
            ("score", "uplift", "--out", "o.csv", "--data", "x.csv", "--lang", "zh"),
            "--lang is no option of score uplift",
        ),
        (("score", "uplift", "--out", "o.csv", "--budget-share", "2"), "no such budget"),
        (("train", "uplift", "--name", "spring"), "--name is an option of classify and of uplift --data"),
        (("train", "uplift", "--treatment", "mail"), "--treatment is an option of uplift with the table"),
        (("train", "uplift", "--data", "x.csv", "--treatment", "mail"), "got 'no --outcome'"),
        (("train", "uplift", "--data", "x.csv", "--campaign", "c"), "--campaign is no option of uplift --data"),
        (("train", "uplift", "--outcome", "money"), "there is no such outcome"),
        (("train", "churn", "--outcome", "amount"), "in --outcome; got 'churn'"),
    ],
)
def test_options_that_do_not_fit(qianmian, shop, arguments, message):
    done = qianmian(*arguments, "--workspace", shop)
    assert done.code == 2
    assert message in done.err
