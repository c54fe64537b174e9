"""OneID over lakes: what links, what never does, since when, and that adding rows gives what resolving everything gives."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import duckdb
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from features.compute.algebra import Feature
from features.compute.builder import Builder
from features.data.identity import GraphResolver, Ledger, resolve, resolve_and_compare
from features.data.identity.graph import KnownCustomers
from features.data.identity.tables import links_path
from features.data.lake import Lake
from features.definitions import FEATURES
from qianmian.config import load_settings
from qianmian.errors import DataError
from qianmian.schema import TABLES
from qianmian.settings import Settings
from qianmian.workspace import Workspace, write_json
from tests.examples import examples

DAY = [datetime(2024, 1, 1) + timedelta(days=number) for number in range(800)]
VIEWS = Feature("views_total", "events", "count", description="events")


def held(user, id_type, value, at=None, source="s"):
    return {"source": source, "source_user_id": user, "id_type": id_type, "id_value": value, "observed_at": at}


def event(user, at, source="s"):
    return {
        "source": source,
        "source_user_id": user,
        "event_id": f"e {user} {at} {source}",
        "event_type": "view",
        "ts": at,
    }


def periods(lake: Lake) -> dict[str, list[tuple[str, datetime | None]]]:
    rows = lake.connect().con.execute(
        "SELECT source_user_id, one_id, valid_from FROM customers ORDER BY source_user_id, valid_from NULLS FIRST"
    )
    found: dict[str, list[tuple[str, datetime | None]]] = {}
    for user, one_id, since in rows.fetchall():
        found.setdefault(user, []).append((one_id, since))
    return found


def groups(lake: Lake) -> set[frozenset[str]]:
    """Who is one customer, all times taken together."""
    together: dict[str, set[str]] = {}
    for user, rows in periods(lake).items():
        together.setdefault(rows[-1][0], set()).add(user)
    return {frozenset(users) for users in together.values()}


def actions(lake: Lake) -> list[str]:
    return sorted(entry.action for entry in Ledger(lake.workspace).entries())


def people(*names: str) -> set[frozenset[str]]:
    return {frozenset(name) for name in names}


# ---- what links ----------------------------------------------------------------------------------------------------


def test_one_value_is_one_customer_from_when_both_were_seen(lake_of):
    lake = lake_of({"identities": [held("a", "email", "x", DAY[1]), held("b", "email", "x", DAY[5])]})
    found = periods(lake)
    mine = found["a"][0][0]
    assert found["a"] == [(mine, DAY[1])]
    assert found["b"] == [(mine, DAY[5])]  # linked the moment it was first seen: no row of its own before
    assert actions(lake) == ["merge"]


def test_before_the_link_a_record_is_its_own_customer(lake_of):
    lake = lake_of(
        {
            "events": [event("b", DAY[2])],
            "identities": [held("a", "email", "x", DAY[1]), held("b", "email", "x", DAY[5])],
        }
    )
    found = periods(lake)
    assert [since for _, since in found["b"]] == [DAY[2], DAY[5]]
    assert found["b"][0][0] != found["b"][1][0] == found["a"][0][0]
    builder = Builder(lake, FEATURES)
    for moment, customers in ((DAY[4], 2), (DAY[5], 2), (DAY[5] + timedelta(seconds=1), 1)):
        assert builder.build(moment, [VIEWS]).table.num_rows == customers


def test_the_oldest_one_id_survives_whoever_brings_the_link(lake_of):
    old, new = (
        lake_of({"events": [event("b", DAY[0]), event("a", DAY[1])], "identities": rows})
        for rows in ([], [held("a", "card", "x", DAY[5]), held("b", "card", "x", DAY[3])])
    )
    assert periods(new)["a"][-1][0] == periods(new)["b"][-1][0] == periods(old)["b"][0][0]


def test_undated_sightings_link_always(lake_of):
    lake = lake_of({"identities": [held("a", "phone", "x"), held("b", "phone", "x")], "events": [event("a", DAY[3])]})
    found = periods(lake)
    assert found["a"] == found["b"]
    assert found["a"][0][1] is None


@pytest.mark.parametrize(("gap", "customers"), [(90, 1), (91, 2)])
def test_an_old_sighting_expires(lake_of, gap, customers):
    lake = lake_of({"identities": [held("a", "cookie", "x", DAY[0]), held("b", "cookie", "x", DAY[gap])]})
    assert len(groups(lake)) == customers


def test_a_value_seen_again_in_between_stays_fresh(lake_of):
    lake = lake_of(
        {
            "identities": [
                held("a", "cookie", "x", DAY[0]),
                held("a", "cookie", "x", DAY[60]),
                held("b", "cookie", "x", DAY[120]),
            ]
        }
    )
    assert groups(lake) == people("ab")


def test_a_clock_in_the_future_links_nobody_today(lake_of):
    future = datetime(2199, 1, 1)
    lake = lake_of(
        {"events": [event("b", DAY[0])], "identities": [held("a", "card", "x", DAY[1]), held("b", "card", "x", future)]}
    )
    assert [since for _, since in periods(lake)["a"]] == [DAY[1], future]
    assert len(Builder(lake, FEATURES).views(DAY[700]).customers.to_pyarrow()["one_id"].unique()) == 2


def test_a_value_of_too_many_customers_links_nobody(lake_of):
    rows = [held(user, "device", "x", DAY[1]) for user in "abcd"]
    assert groups(lake_of({"identities": rows[:3]})) == people("abc")
    lake = lake_of({"identities": rows})
    assert groups(lake) == people("a", "b", "c", "d")
    assert actions(lake) == ["shared"]


def test_records_of_one_customer_count_once(lake_of):
    same = [held(user, "email", "m", DAY[0]) for user in "abc"]
    lake = lake_of({"identities": [*same, *(held(user, "device", "x", DAY[1]) for user in "abcd")]})
    assert groups(lake) == people("abcd")  # a, b and c are one by e-mail, so that two customers hold the device


def test_a_hundred_thousand_records_of_one_cookie_are_refused(tmp_path):
    lake = Lake(Workspace(tmp_path / "workspace").create())
    with duckdb.connect() as connection:
        lake.commit(
            connection,
            {
                "identities": "SELECT 's' AS source, 'r' || range AS source_user_id, 'cookie' AS id_type, 'kiosk' AS id_value, "
                "TIMESTAMP '2024-01-01' + to_seconds(range) AS observed_at FROM range(100000)"
            },
        )
    resolve(lake, Settings())
    assert lake.state("customers").rows == 100_000
    (entry,) = Ledger(lake.workspace).entries()
    assert (entry.action, entry.left) == ("shared", ("s", "r0"))
    assert "100000 customers, more than 3" in str(entry.reason)


# ---- contradictions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strong", ["login", "unionid", "phone_verified"])
def test_different_values_of_a_strong_type_never_merge(lake_of, strong):
    lake = lake_of(
        {
            "identities": [
                held("a", strong, "1", DAY[0]),
                held("b", strong, "2", DAY[0]),
                held("a", "device", "x", DAY[1]),
                held("b", "device", "x", DAY[2]),
            ]
        }
    )
    assert groups(lake) == people("a", "b")
    (entry,) = Ledger(lake.workspace).entries()
    assert (entry.action, entry.id_type, entry.id_value) == ("conflict", "device", "x")
    assert strong in str(entry.reason)


def test_a_contradiction_met_indirectly_is_refused_too(lake_of):
    lake = lake_of(
        {
            "identities": [
                held("a", "login", "1", DAY[0]),
                held("b", "login", "2", DAY[0]),
                held("a", "device", "x", DAY[1]),
                held("c", "device", "x", DAY[2]),
                held("c", "cookie", "y", DAY[3]),
                held("b", "cookie", "y", DAY[4]),
            ]
        }
    )
    assert groups(lake) == people("ac", "b")  # device counts before cookie


def test_an_anonymous_record_joins_who_logs_in_and_stays(lake_of):
    lake = lake_of(
        {
            "events": [event("anonymous", DAY[1]), event("ann", DAY[0])],
            "identities": [
                held("anonymous", "cookie", "k", DAY[1]),
                held("ann", "login", "ann", DAY[0]),
                held("bob", "login", "bob", DAY[0]),
                held("ann", "cookie", "k", DAY[3]),
                held("bob", "cookie", "k", DAY[6]),
            ],
        }
    )
    assert groups(lake) == {frozenset({"anonymous", "ann"}), frozenset({"bob"})}
    builder = Builder(lake, FEATURES)

    def views(moment):
        table = builder.build(moment, [VIEWS]).table
        return {
            one: count
            for one, count in zip(table["one_id"].to_pylist(), table["views_total"].to_pylist(), strict=True)
            if count
        }

    ann = periods(lake)["ann"][0][0]
    assert len(views(DAY[2])) == 2
    assert views(DAY[3] + timedelta(seconds=1)) == {ann: 2.0}  # the session before the login came along
    assert views(DAY[9]) == {ann: 2.0}
    assert "conflict" in actions(lake)


def test_a_record_with_two_logins_is_of_the_first(lake_of):
    lake = lake_of(
        {
            "identities": [
                held("browser", "login", "ann", DAY[1]),
                held("browser", "login", "bob", DAY[2]),
                held("ann", "login", "ann", DAY[0]),
                held("bob", "login", "bob", DAY[0]),
            ]
        }
    )
    assert groups(lake) == {frozenset({"browser", "ann"}), frozenset({"bob"})}
    assert actions(lake) == ["conflict", "merge"]


def test_a_verified_number_links_with_the_same_number_unverified(lake_of):
    lake = lake_of({"identities": [held("a", "phone_verified", "7", DAY[0]), held("b", "phone", "7", DAY[1])]})
    assert groups(lake) == people("ab")


def test_a_circle_of_identifiers_is_one_customer(lake_of):
    rows = [("a", "x"), ("b", "x"), ("b", "y"), ("c", "y"), ("c", "z"), ("a", "z")]
    assert groups(lake_of({"identities": [held(user, "email", value, DAY[1]) for user, value in rows]})) == people(
        "abc"
    )


def test_a_type_nobody_declared_is_an_error_that_names_it(lake_of):
    with pytest.raises(DataError, match=r"undeclared id types.*got 'tattoo'.*identity\.id_types"):
        lake_of({"identities": [held("a", "tattoo", "anchor")]})


def test_a_type_can_be_declared_and_a_rule_changed(lake_of):
    lake = lake_of({"identities": [held("a", "cookie", "x", DAY[0]), held("b", "cookie", "x", DAY[200])]})
    assert groups(lake) == people("a", "b")
    lake.workspace.config_file.write_text(
        "identity: {id_types: [{type: cookie, expires_days: null}, {type: tattoo, priority: 5, strong: true}]}\n"
    )
    resolve(lake, load_settings(lake.workspace.config_file))
    assert groups(lake) == people("ab")


# ---- links somebody else found -------------------------------------------------------------------------------------


def write_links(lake: Lake, rows: list[tuple[str, str, float, str]]) -> None:
    links_path(lake.workspace).parent.mkdir(parents=True, exist_ok=True)
    values = ", ".join(f"('s', '{a}', 's', '{b}', {p}, NULL::TIMESTAMP, '{name}')" for a, b, p, name in rows)
    names = "left_source, left_source_user_id, right_source, right_source_user_id, probability, decided_at, link_id"
    duckdb.sql(
        f"COPY (SELECT * FROM (VALUES {values}) AS t({names})) TO '{links_path(lake.workspace)}' (FORMAT parquet)"
    )


def test_probabilistic_links_count_last(lake_of):
    lake = lake_of(
        {
            "identities": [
                held("a", "login", "1", DAY[0]),
                held("b", "login", "2", DAY[0]),
                held("c", "card", "9", DAY[0]),
                held("b", "card", "9", DAY[0]),
            ]
        }
    )
    write_links(lake, [("a", "c", 0.99, "l1"), ("c", "nobody", 0.99, "l2")])
    resolve(lake, Settings())
    assert groups(lake) == people("a", "bc")
    write_links(lake, [("a", "d", 0.99, "l1")])
    lake = lake_of({"identities": [held("a", "login", "1", DAY[0]), held("d", "card", "9", DAY[4])]})
    write_links(lake, [("a", "d", 0.99, "l1")])
    resolve(lake, Settings())
    assert groups(lake) == people("ad")
    (entry,) = Ledger(lake.workspace).entries()
    assert (entry.source, entry.id_type, entry.id_value) == ("probabilistic", "probabilistic", "l1")


# ---- the ledger ----------------------------------------------------------------------------------------------------


def test_every_merge_names_its_decision_and_resolving_again_adds_nothing(lake_of):
    lake = lake_of({"identities": [held(user, "email", "x", DAY[day]) for day, user in enumerate("abc")]})
    named = {
        row[0]
        for row in lake.connect().con.execute("SELECT ledger_id FROM customers WHERE ledger_id IS NOT NULL").fetchall()
    }
    entries = Ledger(lake.workspace).entries()
    assert named == {entry.ledger_id for entry in entries if entry.action == "merge"}
    before = [path.read_bytes() for path in Ledger(lake.workspace).files()]
    resolve(lake, Settings())
    assert [path.read_bytes() for path in Ledger(lake.workspace).files()] == before


def test_a_dry_run_says_what_would_change_and_changes_nothing(lake_of):
    lake = lake_of({"identities": [held("a", "device", "x", DAY[0]), held("b", "device", "x", DAY[1])]})
    lake.workspace.config_file.write_text("identity: {id_types: [{type: device, expires_days: 0.5}]}\n")
    digest = lake.digest
    found = resolve_and_compare(lake, load_settings(lake.workspace.config_file))
    assert (found.withdrawn, found.merged, found.customers_before, found.customers, found.renamed) == (1, 0, 1, 2, 1)
    assert lake.digest == digest
    assert actions(lake) == ["merge"]
    assert resolve_and_compare(lake, load_settings(lake.workspace.config_file), dry_run=False).withdrawn == 1
    assert groups(lake) == people("a", "b")
    assert actions(lake) == ["merge", "withdraw"]
    lake.workspace.config_file.unlink()
    resolve(lake, load_settings(lake.workspace.config_file))
    assert actions(lake) == ["merge", "merge", "withdraw"]


def test_unmerge_splits_for_all_moments_and_can_be_undone(lake_of):
    lake = lake_of(
        {
            "events": [event("a", DAY[0]), event("b", DAY[1])],
            "identities": [held(user, kind, "x", DAY[2]) for user in "ab" for kind in ("email", "device")],
        }
    )
    ledger = Ledger(lake.workspace)

    def customers(moment):
        return sorted(Builder(lake, FEATURES).build(moment, [VIEWS]).table["views_total"].to_pylist())

    assert customers(DAY[5]) == [2.0]
    (merge,) = ledger.entries("action = 'merge'")
    unmerge = ledger.unmerge(merge.left, merge.right, "two sisters", DAY[400], merge.ledger_id)
    resolve(lake, Settings())
    assert groups(lake) == people("a", "b")  # although the device would link them again
    assert customers(DAY[5]) == [1.0, 1.0]
    assert customers(DAY[500]) == [1.0, 1.0]
    assert [entry.action for entry in ledger.entries()] == ["merge", "unmerge", "withdraw"]
    ledger.remerge(unmerge, "one person after all", DAY[401])
    resolve(lake, Settings())
    assert customers(DAY[5]) == [2.0]
    assert [entry.action for entry in ledger.entries()] == ["merge", "unmerge", "withdraw", "remerge", "merge"]


def test_neither_ledger_nor_links_of_a_neighbour_are_read(tmp_path, write_lake):
    """DuckDB takes ``shop[ab]`` for ``shopa`` or ``shopb``, and the folder ``source=q`` for the column `source`."""
    rows = {"identities": [held(*of) for of in (("a", "email", "x"), ("b", "email", "x"), ("c", "login", "1"))]}
    mine, neighbour = (write_lake(tmp_path / "source=q" / name, rows) for name in ("shop[ab]", "shopa"))
    assert {entry.source for entry in Ledger(mine.workspace).entries()} == {"deterministic"}
    Ledger(mine.workspace).unmerge(("s", "a"), ("s", "b"), "two people", None, None)
    write_links(mine, [("b", "c", 0.99, "mine")])
    write_links(neighbour, [("a", "c", 0.99, "theirs")])
    for lake in (mine, neighbour):
        resolve(lake, Settings())
    assert groups(mine) == people("a", "bc")
    assert groups(neighbour) == people("abc")
    assert actions(neighbour) == ["merge", "merge"]


def test_what_a_person_decided_outlives_the_lake(lake_of, write_lake):
    rows = {"identities": [held(user, "email", "x", DAY[2]) for user in "ab"]}
    lake = lake_of(rows)
    Ledger(lake.workspace).unmerge(("s", "a"), ("s", "b"), "two people", None, None)
    import shutil

    shutil.rmtree(lake.workspace.lake)
    assert groups(write_lake(lake.workspace.root, rows)) == people("a", "b")


# ---- adding rows ---------------------------------------------------------------------------------------------------

USERS = "abcdefgh"
TYPES = ["login", "email", "device", "cookie"]
TIME = st.one_of(st.none(), st.sampled_from([DAY[0], DAY[40], DAY[80], DAY[140], DAY[300]]))
SIGHTING = st.builds(held, st.sampled_from(USERS), st.sampled_from(TYPES), st.sampled_from("xyz"), TIME)
SEEN = st.builds(event, st.sampled_from(USERS), st.sampled_from(DAY[:200:20]))
BATCH = st.tuples(st.lists(SIGHTING, max_size=7), st.lists(SEEN, max_size=3))


def views_over(connection: duckdb.DuckDBPyConnection, lake: Lake) -> None:
    """Empty canonical tables that rows can be put into."""
    lake.attach(connection, "empty_")
    for name in TABLES:
        connection.execute(f"CREATE TABLE {name} AS FROM empty_{name}")


def put(connection: duckdb.DuckDBPyConnection, sightings, events) -> None:
    for row in sightings:
        connection.execute(
            "INSERT INTO identities BY NAME SELECT ? AS source, ? AS source_user_id, ? AS id_type, ? AS id_value, ? AS observed_at "
            "EXCEPT FROM identities",
            list(row.values()),
        )
    for row in events:
        connection.execute(
            "INSERT INTO events BY NAME SELECT ? AS source, ? AS source_user_id, ? AS event_id, ? AS event_type, ? AS ts",
            list(row.values()),
        )


@settings(
    max_examples=examples(12),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(batches=st.lists(BATCH, min_size=2, max_size=3), linked=st.booleans(), apart=st.booleans())
def test_new_rows_give_what_resolving_everything_gives(
    tmp_path_factory: pytest.TempPathFactory, batches, linked, apart
):
    lake = Lake(Workspace(tmp_path_factory.mktemp("grows") / "workspace").create())
    if linked:
        write_links(lake, [("a", "c", 0.9, "l1"), ("b", "f", 0.9, "l2")])
    resolver = GraphResolver(lake.workspace, Settings())
    if apart:
        resolver.ledger.unmerge(("s", "a"), ("s", "b"), "two people", None, None)
    with duckdb.connect() as connection:
        views_over(connection, lake)
        connection.execute("CREATE TABLE before AS FROM empty_customers")
        for sightings, events in batches:
            put(connection, sightings, events)
            changed = ", ".join(f"('s', '{row['source_user_id']}')" for row in sightings)
            changed = (
                f"SELECT * FROM (VALUES {changed}) AS t(source, source_user_id)"
                if changed
                else "SELECT '' AS source, '' AS source_user_id LIMIT 0"
            )
            plan = resolver.plan(connection, KnownCustomers("before", changed))
            added = connection.execute(f"SELECT * FROM ({plan.customers}) ORDER BY ALL").fetchall()
            told = connection.execute("SELECT ledger_id, action FROM identity_found ORDER BY ALL").fetchall()
            ledger_ids = connection.execute(f"SELECT ledger_id, action FROM ({plan.entries}) ORDER BY ALL").fetchall()
            plan = resolver.plan(connection)
            assert added == connection.execute(f"SELECT * FROM ({plan.customers}) ORDER BY ALL").fetchall()
            assert set(told) <= set(connection.execute("SELECT ledger_id, action FROM identity_found").fetchall())
            assert (
                ledger_ids
                == connection.execute(f"SELECT ledger_id, action FROM ({plan.entries}) ORDER BY ALL").fetchall()
            )
            resolver.ledger.append(connection, str(plan.entries))
            connection.execute(f"CREATE OR REPLACE TABLE before AS {plan.customers}")


@settings(
    max_examples=examples(15),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rows=st.lists(SIGHTING, max_size=12), order=st.randoms(use_true_random=False))
def test_the_order_of_arrival_changes_nothing(tmp_path_factory: pytest.TempPathFactory, rows, order):
    shuffled = list(rows)
    order.shuffle(shuffled)
    answers = []
    for arrived in (rows, shuffled):
        lake = Lake(Workspace(Path(tmp_path_factory.mktemp("order")) / "workspace").create())
        with duckdb.connect() as connection:
            views_over(connection, lake)
            put(connection, arrived, [])
            plan = GraphResolver(lake.workspace, Settings()).plan(connection)
            answers.append(connection.execute(f"SELECT * FROM ({plan.customers}) ORDER BY ALL").fetchall())
    assert answers[0] == answers[1]


def test_a_damaged_note_of_the_last_resolving_only_costs_time(lake_of):
    lake = lake_of({"identities": [held(user, "email", "x", DAY[2]) for user in "ab"]})
    write_json(lake.workspace.root / "identity" / "resolved.json", {"rules": "other"})
    resolve(lake, Settings())
    (lake.workspace.root / "identity" / "resolved.json").write_text("{")
    resolve(lake, Settings())
    assert groups(lake) == people("ab")
