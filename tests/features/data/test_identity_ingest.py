"""Customers follow the rows in the same commit, and many small ingests give what one large one gives."""

from __future__ import annotations

from collections.abc import Sequence

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.data.identity import GraphResolver, Ledger, resolve
from features.data.ingest import ingest
from features.data.lake import Lake, literal
from features.data.sources.base import RawTable, Source
from qianmian.config import load_settings
from qianmian.settings import Settings
from qianmian.workspace import Workspace
from tests.examples import examples

NAMES = ("source_user_id", "id_type", "id_value", "observed_at")


class Sightings(Source):
    """Rows of `identities`, and an event for each record."""

    name = "shop"

    def __init__(self, rows: Sequence[tuple[str, str, str, str | None]]) -> None:
        self.rows = rows

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        values = ", ".join(
            "(" + ", ".join("NULL::VARCHAR" if value is None else literal(value) for value in row) + ")"
            for row in self.rows
        )
        connection.execute(
            f"CREATE OR REPLACE TEMP TABLE made AS SELECT * FROM (VALUES {values}) AS t({', '.join(NAMES)})"
        )
        seen = {"source_user_id": "source_user_id", "ts": "'2024-05-01'", "event_type": "'view'"}
        people = "SELECT DISTINCT source_user_id FROM made ORDER BY 1"
        return [
            RawTable("identities", "SELECT * FROM made", {name: name for name in NAMES}, ("made.csv",)),
            RawTable("events", people, seen, ("made.csv",)),
        ]


def customers(workspace: Workspace) -> list[tuple[object, ...]]:
    return Lake(workspace).connect().con.execute("SELECT * FROM customers ORDER BY ALL").fetchall()


def active_decisions(workspace: Workspace) -> set[tuple[str, str]]:
    rows = duckdb.sql(
        f"SELECT ledger_id, action FROM ({Ledger(workspace).active_decisions()}) WHERE action <> 'withdraw'"
    ).fetchall()
    return {(str(name), str(action)) for name, action in rows}


ROW = st.tuples(
    st.sampled_from("abcdef"),
    st.sampled_from(["login", "email", "cookie"]),
    st.sampled_from("xy"),
    st.sampled_from(["2024-01-01", "2024-02-01", "2024-07-01", None]),
)


@settings(
    max_examples=examples(6),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(st.lists(ROW, min_size=1, max_size=5), min_size=2, max_size=2))
def test_many_small_ingests_are_one_large_one(tmp_path_factory: pytest.TempPathFactory, monkeypatch_session, batches):
    small, large = (Workspace(tmp_path_factory.mktemp("w")) for _ in range(2))
    for rows in batches:
        ingest(small, Sightings(rows), Settings())
    ingest(large, Sightings([row for rows in batches for row in rows]), Settings())
    assert customers(small) == customers(large)
    assert active_decisions(small) == active_decisions(large)
    digest = Lake(small).digest
    resolve(Lake(small), Settings())
    assert Lake(small).digest == digest


@pytest.fixture(scope="module")
def monkeypatch_session():
    """One key for all workspaces, so that hashes (which break ties) are the same."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QIANMIAN_PII_KEY", "a key for this test only")
        yield


def test_an_ingest_resolves_only_who_is_connected_with_it(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "w")
    scopes = []
    spread = GraphResolver._spread

    def noted(resolver, connection):
        answer = spread(resolver, connection)
        scopes.append(
            sorted(row[0] for row in connection.execute("SELECT source_user_id FROM identity_scope").fetchall())
        )
        return answer

    monkeypatch.setattr(GraphResolver, "_spread", noted)
    day = "2024-01-01"
    ingest(
        workspace,
        Sightings([("a", "email", "x", day), ("b", "email", "x", day), ("c", "email", "y", day)]),
        load_settings(workspace.config_file),
    )
    ingest(workspace, Sightings([("d", "email", "x", day)]), load_settings(workspace.config_file))
    assert scopes == [["a", "b", "d"]]
    assert len(customers(workspace)) == 4
    (workspace.root / "qianmian.yaml").write_text("identity: {id_types: [{type: email, max_customers: 2}]}\n")
    ingest(workspace, Sightings([("e", "email", "z", day)]), load_settings(workspace.config_file))
    assert len(scopes) == 1  # other rules: everybody is resolved again
    assert {action for _, action in active_decisions(workspace)} == {"shared"}


def test_a_failed_commit_leaves_customers_and_the_next_ingest_mends_it(tmp_path, monkeypatch):
    workspace = Workspace(tmp_path / "w")
    day = "2024-01-01"
    ingest(workspace, Sightings([("a", "email", "x", day)]), Settings())
    before = customers(workspace)

    def broken(*_: object) -> None:
        raise OSError("the disk went away")

    monkeypatch.setattr("features.data.lake.write_json", broken)
    with pytest.raises(OSError, match="went away"):
        ingest(workspace, Sightings([("b", "email", "x", day)]), Settings())
    monkeypatch.undo()
    assert customers(workspace) == before
    ingest(workspace, Sightings([("c", "email", "z", day)]), Settings())
    assert active_decisions(workspace) == set()  # the ledger had been told of a merge that never came to be
    ingest(workspace, Sightings([("b", "email", "x", day)]), Settings())
    assert len(active_decisions(workspace)) == 1
