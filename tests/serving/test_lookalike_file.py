"""`qianmian score lookalike`: the file it writes is the answer of /v1/lookalike."""

from __future__ import annotations

from datetime import datetime

import pyarrow.csv as pa_csv
import pytest

from cli.main import run
from serving.endpoints import ENDPOINTS
from serving.scoring.lookalike import known_ids

NOW = datetime(2026, 1, 1)


@pytest.fixture
def files(tmp_path, buyers):
    """A seed of 40 buyers and a ghost, one customer to leave out, and the output."""
    (tmp_path / "seed.txt").write_text("\n".join([*buyers[:40], "ghost"]))
    (tmp_path / "exclude.csv").write_text(f"user_id\n{buyers[50]}\nspirit\n")
    return tmp_path


def lookalike(workspace, files, *arguments):
    return run(
        [
            *("score", "lookalike", "--seed", str(files / "seed.txt"), "--out", str(files / "audience.csv")),
            *("--workspace", str(workspace.root), *arguments),
        ]
    )


def test_the_file_holds_what_the_endpoint_answers(workspace, champions, buyers, files, capfd):
    assert lookalike(workspace, files, "--size", "25", "--exclude", str(files / "exclude.csv")) == 0
    said = capfd.readouterr().out
    assert "40 customers are known, from 41 ids" in said
    assert "ids that are no customer of the model: 2 (ghost, spirit)" in said
    assert "AUC 0." in said
    endpoint = ENDPOINTS["/lookalike"]
    body = {"seed_user_ids": [*buyers[:40], "ghost"], "size": 25, "exclude": [buyers[50], "spirit"]}
    answer = endpoint.respond(champions, endpoint.request.model_validate(body), NOW)
    table = pa_csv.read_csv(files / "audience.csv").to_pylist()
    assert [(row["one_id"], row["score"]) for row in table] == [
        (user["one_id"], user["score"]) for user in answer["users"]
    ]
    assert [row["rank"] for row in table] == list(range(1, 26))
    assert answer["unknown"] == ["ghost", "spirit"]


def test_the_audience_is_as_long_as_the_seed_by_default(workspace, files, capfd):
    assert lookalike(workspace, files, "--json") == 0
    assert pa_csv.read_csv(files / "audience.csv").num_rows == 40


def test_a_small_seed_is_refused(workspace, buyers, files, capfd):
    (files / "seed.txt").write_text("\n".join(buyers[:19]))
    assert lookalike(workspace, files, "--size", "5") == 2
    assert "19 known of 19 ids" in capfd.readouterr().err
    assert not (files / "audience.csv").exists()


def test_an_id_counts_in_the_source_that_is_named(champions, buyers):
    source = dict(
        zip(*(champions.customers.table[name].to_pylist() for name in ("user_id", "user_source")), strict=True)
    )[buyers[0]]
    found = known_ids(champions, [(buyers[0], source), (buyers[0], None), (buyers[0], "till")])
    assert len(found.rows) == 1
    assert found.unknown == (buyers[0],)
