"""Shops whose data cannot train everything (cases 22 to 26): each verb says what is missing, and never fails otherwise."""

from __future__ import annotations

import csv
import shutil
import warnings
from pathlib import Path

import pytest

from cli.main import run

CASES = Path(__file__).parents[1] / "data" / "cases"


@pytest.fixture(scope="module")
def workspaces(tmp_path_factory):
    """Return a function: the workspace of a case, with its files ingested once."""
    made: dict[str, Path] = {}

    def of(case: str) -> Path:
        if case not in made:
            made[case] = tmp_path_factory.mktemp("odd") / case
            assert run(["ingest", "files", "--config", str(CASES / case / "sources.yaml"), "--workspace", str(made[case]), "--json"]) == 0  # fmt: skip
        return made[case]

    return of


@pytest.fixture
def verb(qianmian, workspaces):
    """Run a verb on a case; NumPy's warnings are errors, and a traceback is one always."""

    def call(case: str, *arguments: object):
        with warnings.catch_warnings():
            warnings.simplefilter("error", RuntimeWarning)
            done = qianmian(*arguments, "--workspace", workspaces(case))
        assert "Traceback" not in done.out + done.err
        assert "bug in Qianmian" not in done.out + done.err
        return done

    return call


def test_churn_of_a_shop_where_nobody_churns(verb):
    done = verb("22-nobody-churns", "train", "churn")
    assert done.code == 3
    assert "nobody churned: all 40 active customers bought again within 28 days" in done.err
    assert "shorter --horizon-days" in done.err


def test_churn_of_a_shop_where_everybody_buys_once(verb):
    done = verb("23-everybody-buys-once", "train", "churn")
    assert done.code == 3
    assert "everybody churned: none of the 56 active customers bought again within 28 days" in done.err
    assert "no customer has ever ordered twice" in done.err
    assert "--horizon-days does not help" in done.err


def test_churn_of_a_shop_where_everybody_comes_back_later(verb, workspaces, tmp_path, qianmian):
    """The second order comes after 100 days: a longer horizon helps."""
    rows = list(csv.DictReader((CASES / "23-everybody-buys-once" / "orders.csv").open()))
    again = [{**row, "order": f"again{row['order']}", "cust": f"c{int(row['cust'][1:]) - 100}"} for row in rows[100:]]
    shutil.copy(CASES / "23-everybody-buys-once" / "sources.yaml", tmp_path)
    with (tmp_path / "orders.csv").open("w", newline="") as handle:
        writer = csv.DictWriter(handle, rows[0])
        writer.writeheader()
        writer.writerows([*rows[:100], *again])
    place = tmp_path / "workspace"
    assert qianmian("ingest", "files", "--config", tmp_path / "sources.yaml", "--workspace", place).code == 0
    done = qianmian("train", "churn", "--active-days", "60", "--horizon-days", "20", "--as-of", "2024-06-20", "--workspace", place)  # fmt: skip
    assert done.code == 3
    assert "everybody churned" in done.err
    assert "choose a longer --horizon-days" in done.err


def test_who_left_a_shop_where_everybody_or_nobody_comes_back(verb):
    done = verb("22-nobody-churns", "train", "left", "--horizon-days", "56")
    assert done.code == 3
    assert "there are too few customers to tell who left" in done.err
    done = verb("23-everybody-buys-once", "train", "left")
    assert done.code == 3
    assert "left" in done.err


def test_all_goes_on_with_the_rest(verb):
    done = verb("23-everybody-buys-once", "train", "all")
    assert done.code == 4
    assert "churn: skipped: everybody churned" in done.out
    # a new customer is lost a month later, which the counts of stage transitions say as well
    assert "lifecycle: refused by the gate" in done.out


@pytest.mark.parametrize(
    ("case", "days"),
    [("24-all-customers-are-new", "7 days"), ("25-three-orders", "3 days")],
)
def test_a_short_history_is_said_with_what_is_needed(verb, case, days):
    assert verb(case, "features").code == 0
    done = verb(case, "train", "all")
    assert done.code == 3
    skipped = {line.split(": ")[0]: line for line in done.out.splitlines() if ": skipped: " in line}
    assert set(skipped) == {
        "recommend",
        "churn",
        "left",
        "lifecycle",
        "lookalike",
        "content",
        "value",
        "contact",
        "demand",
        "propensity",
        "clusters",
        "uplift",
    }
    for job in ("churn", "lifecycle"):
        assert f"got '{days}'; allowed: at least 112 days for a horizon of 28" in skipped[job]
    assert f"got '{days}'; allowed: at least 224 days for a window of 84" in skipped["left"]
    assert days in skipped["recommend"]
    assert "112" in skipped["recommend"]
    for what in ("churn", "predictions"):
        assert verb(case, "score", what, "--out", "never.csv").code == 3


def test_a_young_shop_gets_its_most_popular_items(verb, tmp_path):
    out = tmp_path / "lists.csv"
    done = verb("24-all-customers-are-new", "score", "recommend", "--num-results", "3", "--out", out)
    assert done.code == 0
    assert "every list contains the most popular items" in done.err
    assert "the history has 7 days" in done.err
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 60 * 3
    lines = list(csv.DictReader((CASES / "24-all-customers-are-new" / "orders.csv").open()))
    customers = {
        item: len({row["cust"] for row in lines if row["sku"] == item}) for item in {row["sku"] for row in lines}
    }
    assert {customers[row["item_id"]] for row in rows if row["rank"] == "1"} == {max(customers.values())}
    assert {row["source"] for row in rows} == {"popular"}
    assert {row["model_version"] for row in rows} == {"popularity"}


def test_three_orders_have_popular_items_and_no_model(verb, tmp_path):
    """Every item that somebody bought can be popular, because nothing is learnt; what is missing is said."""
    done = verb("25-three-orders", "score", "recommend", "--out", tmp_path / "lists.csv")
    assert done.code == 0
    assert "at least 4 days" in " ".join((done.out + done.err).split())
    rows = list(csv.DictReader((tmp_path / "lists.csv").open()))
    assert {row["model_version"] for row in rows} == {"popularity"}


def test_other_scenes_need_a_model(verb, tmp_path):
    done = verb(
        "24-all-customers-are-new", "score", "recommend", "--scene", "discover", "--out", tmp_path / "lists.csv"
    )
    assert done.code == 3
    assert "the history has 7 days" in done.err


def test_ingest_warns_of_a_wrong_clock(qianmian, tmp_path):
    done = qianmian("ingest", "files", "--config", CASES / "26-one-wrong-clock" / "sources.yaml", "--workspace", tmp_path / "w")  # fmt: skip
    assert done.code == 0
    assert "the last 27 months hold 1 row (2026-11-01); all others end 2024-07-27" in " ".join(
        (done.out + done.err).split()
    )


def test_one_wrong_clock_does_not_move_the_end_of_the_data(verb, tmp_path):
    out = tmp_path / "profiles.csv"
    done = verb("26-one-wrong-clock", "features", "--out", out)
    assert done.code == 0
    assert "the last 27 months hold 1 row (2026-11-01); all others end 2024-07-27" in done.err
    assert "as of 2024-07-28" in done.out
    rows = list(csv.DictReader(out.open()))
    assert len(rows) == 60
    assert max(float(row["days_since_last_order"]) for row in rows) <= 8, "nobody is lost"
    churn = verb("26-one-wrong-clock", "train", "churn")
    assert "nobody churned: all 60 active customers" in churn.err
    assert "2024-06-30 to 2024-07-28" in churn.err
