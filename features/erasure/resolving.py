"""Who a user id is: all user ids of the customer, in all sources, and all that identifies them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import duckdb

from features.data.identity.one_id import ONE_ID_SQL
from features.data.lake import Lake, literal, quote
from features.data.pii_key import load_key
from features.data.privacy import HASH_PATTERN
from features.data.progress_bar import hide_progress_bar
from features.data.sources.event_log import UNREADABLE_ERRORS
from features.erasure.customer import ErasedCustomer, User
from features.erasure.matching import longer_ids
from features.erasure.tombstones import read_tombstones, tombstone
from features.event_log import EventLog, LoggedEvent, Tail, open_log
from features.event_log.rows import decode
from qianmian.errors import DataError, UsageError
from qianmian.schema import ANONYMOUS_ID
from qianmian.workspace import Workspace

PAGE_EVENTS = 10_000
_LATEST = (
    "SELECT source, source_user_id, arg_max(one_id, coalesce(valid_from, TIMESTAMP '0001-01-01')) AS one_id "
    "FROM customers GROUP BY ALL"
)


def find_erased(
    workspace: Workspace, user_id: str, source: str | None, event_log: str | None, unknown: bool = False
) -> ErasedCustomer:
    """The customer that a user id belongs to.

    Parameters
    ----------
    source : str, optional
        Needed where several sources use the id for different customers, or where none does.
    event_log : str, optional
        Path or URL of the log of accepted events; the lake does not have its last events.
    unknown : bool
        Return an id that no row names as a customer of its own instead of refusing it.

    Raises
    ------
    DataError
        The user id is unknown.
    UsageError
        The source must be named.
    """
    with duckdb.connect() as connection:
        hide_progress_bar(connection)
        connection.execute("SET TimeZone='UTC'")
        Lake(workspace).attach(connection)
        users = _records(connection, user_id, source)
        in_lake = bool(users)
        if not in_lake:
            users = [(_only_source(connection, source), user_id)]
        in_log, visitors = _logged(event_log, users)
        if not unknown and not in_lake and not in_log:
            if (tombstones := read_tombstones(workspace)) and tombstone(load_key(workspace), *users[0]) in tombstones:
                raise DataError(
                    "this user id was erased before, and no row has it",
                    where=str(workspace.root),
                    hint="there is nothing to do; the receipt is in erasures/receipts/",
                )
            raise DataError(
                "no customer has this user id",
                where=str(workspace.root),
                hint="nothing was changed; check the id and --source, or add --unknown to erase what was rejected "
                "under this id, and to refuse its rows from now on",
            )
        for visitor in visitors:  # one whom the lake has merged with somebody else stays
            if visitor not in users and _records(connection, visitor[1], visitor[0]) in ([], [visitor]):
                users.append(visitor)
        connection.execute("CREATE TEMP TABLE erased_users (source VARCHAR, source_user_id VARCHAR)")
        connection.executemany("INSERT INTO erased_users VALUES (?, ?)", users)
        found = ErasedCustomer(tuple(sorted(users)), tuple(_one_ids(connection)), tuple(_identifiers(connection)))
        return replace(found, longer_ids=longer_ids(connection, found))


def _records(connection: duckdb.DuckDBPyConnection, user_id: str, source: str | None) -> list[User]:
    """All records of the customer of a user id, or of a one_id; none if the lake does not know it."""
    named = "source_user_id = $1" + (" AND source = $2" if source is not None else "")
    values = [user_id] if source is None else [user_id, source]
    owners = connection.execute(
        f"SELECT DISTINCT one_id, source FROM ({_LATEST}) WHERE {named} ORDER BY 2", values
    ).fetchall()
    if not owners and source is None:
        owners = connection.execute(
            f"SELECT DISTINCT one_id, '' FROM ({_LATEST}) WHERE one_id = $1", [user_id]
        ).fetchall()
    if len({one_id for one_id, _ in owners}) > 1:
        raise UsageError(
            "the user id occurs in more than one source",
            where="--source",
            allowed=", ".join(name for _, name in owners),
            hint="name the source of the customer",
        )
    if not owners:
        return []
    found = connection.execute(f"SELECT source, source_user_id FROM ({_LATEST}) WHERE one_id = $1", [owners[0][0]])
    return [(str(name), str(user)) for name, user in found.fetchall()]


def _only_source(connection: duckdb.DuckDBPyConnection, source: str | None) -> str:
    if source is not None:
        return source
    sources = [str(row[0]) for row in connection.execute("SELECT DISTINCT source FROM customers ORDER BY 1").fetchall()]
    if len(sources) != 1:
        raise UsageError(
            "no customer has this user id, and its source is not named",
            where="--source",
            allowed=", ".join(sources) or None,
            hint="check the id, or name its source",
        )
    return sources[0]


def _one_ids(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """The ids that the records have or had, in earlier builds too, and that no other customer has."""
    own = "SELECT one_id FROM customers SEMI JOIN erased_users USING (source, source_user_id)"
    first = f"SELECT {ONE_ID_SQL} FROM erased_users"  # of each record before it was merged
    others = f"SELECT one_id FROM ({_LATEST}) ANTI JOIN erased_users USING (source, source_user_id)"
    rows = connection.execute(f"(({own}) UNION ({first})) EXCEPT ({others}) ORDER BY 1").fetchall()
    return [str(row[0]) for row in rows]


def _identifiers(connection: duckdb.DuckDBPyConnection) -> list[str]:
    """Values of identifiers, and hashes in profiles, that no other customer has."""
    queries = ["SELECT source, source_user_id, id_value AS value FROM identities"]
    for table in ("profiles", "profile_history"):
        rows = connection.execute(f"DESCRIBE {table}").fetchall()
        names = [quote(str(row[0])) for row in rows if str(row[1]) == "VARCHAR"]
        hashed = "SELECT source, source_user_id, {0} FROM {1} WHERE regexp_matches({0}, {2})"
        queries += [hashed.format(name, table, literal(HASH_PATTERN)) for name in names]
    held = " UNION ALL ".join(queries)
    found = connection.execute(
        f"WITH held AS ({held}) SELECT value FROM held SEMI JOIN erased_users USING (source, source_user_id) "
        "EXCEPT SELECT value FROM held ANTI JOIN erased_users USING (source, source_user_id) ORDER BY 1"
    ).fetchall()
    return [str(row[0]) for row in found if row[0]]


def _logged(event_log: str | None, users: Sequence[User]) -> tuple[bool, list[User]]:
    """Whether the event log has events of the users, and the visitors who have logged in as one of them only."""
    if event_log is None or ("://" not in event_log and not Path(event_log).exists()):
        return False, []
    with closing(open_log(event_log)) as log:
        events = log.get(users)
        visitors = {visitor for _, visitor in _logins(events)}
        if visitors:
            # a visitor from whose id somebody else logs in too belongs to nobody
            visitors -= {visitor for user, visitor in _all_logins(log) if user not in users}
        return bool(events), sorted(visitors)


def _all_logins(log: EventLog) -> Iterator[tuple[User, User]]:
    header = log.header()
    tail = Tail(log, header.first_seq - 1, header.log_id)
    while events := tail.read(PAGE_EVENTS):
        yield from _logins(events)


def _logins(events: Sequence[LoggedEvent]) -> Iterator[tuple[User, User]]:
    """Each account that has logged in with the id of a visitor, and that visitor."""
    for _, event in events:
        if ANONYMOUS_ID.encode() in event.body:
            try:
                visitor = decode(event).values.get(ANONYMOUS_ID)
            except UNREADABLE_ERRORS:
                continue
            if isinstance(visitor, str):
                yield (event.source, event.source_user_id), (event.source, visitor)
