"""Ids that differ only in spelling, within one table and between the tables that use and that describe them.

Ids are stored as they are written. `00412` and `412`, `SKU1` and `sku1 `, `7` and `7.0` are therefore different items,
and the check says so with the expression that makes them equal.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass

from features.data.ingest.checks.base import CheckInput, IngestWarning
from features.data.lake import literal, quote
from features.data.sources.cells import INVISIBLE

MAX_SHOWN = 2
MIN_MATCHED_SHARE = 0.5  # fewer known ids than this, and more under another spelling, is a mistake in the mapping
MIN_IDS = 3  # with fewer ids, a table without a common id may be a coincidence


@dataclass(frozen=True)
class Spelling:
    """One way in which equal ids are written differently.

    Attributes
    ----------
    what : str
        How the ids differ, for the message.
    equal : str
        SQL of an id `i` without this difference.
    fix : str
        Expression for `sources.yaml`; `COLUMN` stands for the mapped expression.
    may : str
        Cheap SQL condition of the ids that `equal` may change. Of two ids that are equal without the difference, it
        changes one at least.
    """

    what: str
    equal: str
    fix: str
    may: str


BLANKS = Spelling(
    "blanks or invisible characters",
    f"regexp_replace(i, {literal(INVISIBLE)}, '', 'g')",
    f"regexp_replace(COLUMN, {literal(INVISIBLE)}, '', 'g')",
    f"regexp_matches(i, {literal(INVISIBLE)})",
)
SPELLINGS = (
    BLANKS,
    Spelling("the case of letters", "upper(i)", "upper(COLUMN)", "upper(i) <> i"),
    Spelling(
        "a trailing .0",
        r"regexp_replace(i, '^(\d+)\.0+$', '\1')",
        r"regexp_replace(COLUMN, '\.0+$', '')",
        "contains(i, '.0')",
    ),
    Spelling("leading zeros", "coalesce(nullif(ltrim(i, '0'), ''), '0')", "ltrim(COLUMN, '0')", "starts_with(i, '0')"),
    Spelling(
        "decomposed or full-width characters", "coalesce(n, i)", "", "n IS NOT NULL"
    ),  # the fix depends on the characters
)


@dataclass(frozen=True)
class IdColumn:
    """A column of ids in one table, and how its ids are called.

    `within` are the columns that two spellings of one id share: two orders `00020` and `20` are one only if customer
    and day are the same.
    """

    table: str
    column: str
    plural: str
    within: tuple[str, ...] = ()


CUSTOMER_TABLES = ("transactions", "events", "profiles", "identities", "touches")
ID_COLUMNS = (
    *(IdColumn(table, "source_user_id", "customers") for table in CUSTOMER_TABLES),
    IdColumn("transactions", "order_id", "orders", ("source_user_id", "day")),
    IdColumn("transactions", "item_id", "items"),
    IdColumn("events", "item_id", "items"),
    IdColumn("items", "item_id", "items"),
    IdColumn("promotions", "item_id", "items"),
    IdColumn("events", "content_id", "contents"),
    IdColumn("contents", "content_id", "contents"),
)
# (table that uses the ids, table that describes them); customers are compared in both directions
PAIRS = (
    ("transactions", "items", "item_id"),
    ("events", "items", "item_id"),
    ("promotions", "items", "item_id"),
    ("events", "contents", "content_id"),
    ("profiles", "transactions", "source_user_id"),
    ("identities", "transactions", "source_user_id"),
    ("events", "transactions", "source_user_id"),
    ("touches", "transactions", "source_user_id"),
)


def ids_spelled_differently(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn of ids of one table that are equal but for their spelling.

    Of ids that are equal without one difference, only one is compared without the next difference: full-width blanks
    are blanks, and are not counted again as full-width characters.
    """
    for place in ID_COLUMNS:
        if place.table not in found.merged or place.column not in found.staged[place.table].mapped:
            continue
        all_ids = ids = _orders_of_one_day(found) if place.within else distinct_ids(found, place.table, place.column)
        within = "".join(f", {column}" for column in place.within)
        changed = found.rows(f"SELECT {', '.join(f'bool_or({spelling.may})' for spelling in SPELLINGS)} FROM {ids}")[0]
        for spelling in (spelling for spelling, may in zip(SPELLINGS, changed, strict=True) if may):
            groups = (
                f"SELECT count(*) AS spelled, list(i ORDER BY i)[1:4] AS example FROM {ids} "
                f"GROUP BY {spelling.equal}{within}"
            )
            row = found.rows(
                f"SELECT count(*), sum(spelled), list(example ORDER BY example)[1:{MAX_SHOWN}] FROM ({groups}) "
                "WHERE spelled > 1"
            )[0]
            if row[0]:
                yield IngestWarning(
                    place.table,
                    "ids_spelled_differently",
                    f"{row[1]:,} {place.plural} would be {row[0]:,} without {spelling.what}: "
                    + "; ".join(", ".join(map(ascii, example)) for example in row[2]),
                    f"if they are the same, write `{place.column}: {_fix(found, place, spelling, all_ids)}`"
                    + (" and ingest all files into a new workspace" if place.within else ""),
                    int(row[1]),
                )
                plain = f"SELECT DISTINCT ON ({spelling.equal}{within}) i, n{within} FROM {ids}"
                ids = f"({plain} ORDER BY i <> {spelling.equal}, i)"


def ids_without_description(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn if the ids of one table are not those of the table that describes them."""
    for user, describer, column in PAIRS:
        if user not in found.merged and describer not in found.merged:
            continue
        used, described = distinct_ids(found, user, column), distinct_ids(found, describer, column)
        total, known, listed = found.rows(
            f"SELECT count(*), count(*) FILTER (i IN (SELECT i FROM {described})), (SELECT count(*) FROM {described}) "
            f"FROM {used}"
        )[0]
        if not total or not listed or known >= MIN_MATCHED_SHARE * total:
            continue
        matches = {
            spelling: int(
                found.rows(
                    f"SELECT count(*) FROM {used} WHERE {spelling.equal} IN (SELECT {spelling.equal} FROM {described})"
                )[0][0]
            )
            for spelling in SPELLINGS
        }
        spelling = max(matches, key=lambda name: matches[name])
        most = matches[spelling]
        plural = next(place.plural for place in ID_COLUMNS if place.column == column)
        counted = f"none of the {total:,}" if not known else f"only {known:,} of the {total:,}"
        if most > max(known, MIN_MATCHED_SHARE * total):
            sides = [
                f"`{column}: {_fix(found, IdColumn(table, column, plural), spelling, ids)}` in {table}"
                for table, ids, others in ((user, used, described), (describer, described, used))
                if _changed(found, spelling, ids, others)
            ]
            yield IngestWarning(
                user,
                "ids_without_description",
                f"{counted} {plural} of {user} {'is' if not known else 'are'} in {describer}, "
                f"but {'all' if most == total else f'{most:,}'} are without {spelling.what}",
                f"write the ids alike in both tables: {' and '.join(sides)}",
                int(total - known),
            )
        elif not known and min(total, listed) >= MIN_IDS:
            yield IngestWarning(
                user,
                "ids_without_description",
                f"none of the {total:,} {plural} of {user} is among the {listed:,} of {describer}",
                f"check that `{column}` is mapped to the same numbers in both tables",
                int(total),
            )


def _changed(found: CheckInput, spelling: Spelling, ids: str, others: str) -> bool:
    """Whether `ids` of one table become some of the `others` only without the difference, which is on their side."""
    matched = f"{spelling.equal} IN (SELECT {spelling.equal} FROM {others})"
    return bool(found.rows(f"SELECT 1 FROM {ids} WHERE {spelling.may} AND {spelling.equal} <> i AND {matched} LIMIT 1"))


def distinct_ids(found: CheckInput, table: str, column: str) -> str:
    """Temp table of the distinct ids `i` of one table after the ingest, with their NFKC form `n` where it differs.

    `rows` is the number of rows of each id. Customers are those of this source only, items those of all sources.
    """
    name = f"ids_{table}_{column}"
    if name in found.prepared:
        return name
    mine = f"AND source = {literal(found.source.name)}" if column == "source_user_id" else ""
    found.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT {quote(column)} AS i, NULL::VARCHAR AS n, count(*) AS rows "
        f"FROM ({found.after(table)}) WHERE {quote(column)} IS NOT NULL {mine} GROUP BY i"
    )
    _add_normalized(found, name)
    found.prepared.add(name)
    return name


def _orders_of_one_day(found: CheckInput) -> str:
    """Temp table of the orders of customers who have several on one day: `i`, `n`, customer and day."""
    name = "orders_of_one_day"
    orders = (
        "SELECT order_id AS i, source_user_id, ts::DATE AS day, hash(source_user_id, ts::DATE) AS of_day "
        f"FROM ({found.after('transactions')}) WHERE source_user_id IS NOT NULL "
        f"AND source = {literal(found.source.name)}"
    )
    found.connection.execute(
        f"CREATE OR REPLACE TEMP TABLE {name} AS SELECT DISTINCT i, NULL::VARCHAR AS n, source_user_id, day "
        f"FROM ({orders}) WHERE of_day IN "
        f"(SELECT of_day FROM ({orders}) GROUP BY of_day HAVING min(hash(i)) <> max(hash(i)))"
    )
    _add_normalized(found, name)
    return name


def _add_normalized(found: CheckInput, name: str) -> None:
    """Fill in `n`, the NFKC form of the ids that differ from it."""
    foreign = found.rows(f"SELECT i FROM {name} WHERE strlen(i) <> length(i)")
    normalized = [(i, form) for (i,) in foreign if (form := unicodedata.normalize("NFKC", i)) != i]
    if normalized:
        found.connection.execute("CREATE OR REPLACE TEMP TABLE normalized (i VARCHAR, n VARCHAR)")
        found.connection.executemany("INSERT INTO normalized VALUES (?, ?)", normalized)
        found.connection.execute(f"UPDATE {name} SET n = normalized.n FROM normalized WHERE normalized.i = {name}.i")


def _fix(found: CheckInput, place: IdColumn, spelling: Spelling, ids: str) -> str:
    """The right side of the mapping that writes the ids of a column without the difference."""
    staged = found.staged.get(place.table)  # None: only an earlier ingest read the table
    mapped = staged.expressions.get(place.column, place.column) if staged else "column"
    if spelling.fix:
        return spelling.fix.replace("COLUMN", mapped)
    forms = found.rows(f"SELECT i, n FROM {ids} WHERE n IS NOT NULL")
    plain = {letter: unicodedata.normalize("NFKC", letter) for text, _ in forms for letter in text}
    changed = {letter: form for letter, form in sorted(plain.items()) if form != letter}
    one_to_one = {letter: form for letter, form in changed.items() if len(form) == 1}
    expression = mapped
    if one_to_one:
        wide, narrow = literal("".join(one_to_one)), literal("".join(one_to_one.values()))
        expression = f"translate({expression}, {wide}, {narrow})"
    for letter in changed.keys() - one_to_one.keys():
        expression = f"replace({expression}, {literal(letter)}, {literal(changed[letter])})"
    composes = any("".join(plain[letter] for letter in text) != form for text, form in forms)
    return f"nfc_normalize({expression})" if composes else expression
