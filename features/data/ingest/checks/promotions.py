"""Whether promotions were known before they began, and name categories that items have."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table

MAX_LATE_SHARE = 0.5  # of the rows; more of them say that `known_at` is another time, such as that of the export


@per_table("promotions")
def promotions_known_late(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of promotions that were known only after they ended: no moment could read them as a plan."""
    [(late, rows)] = found.rows(f'SELECT count(*) FILTER (known_at > "end"), count(*) FROM ({found.new(table)})')
    if late > MAX_LATE_SHARE * rows:
        yield TableFinding(
            f"{late:,} of {rows:,} promotions were known only after their end, so no plan can be read at a past moment",
            "map `known_at` to the time at which the plan was made; where the system does not record it, to the start",
            late,
        )


@per_table("promotions")
def promotions_of_unknown_categories(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of promoted categories that no item has, at any level."""
    named = f"SELECT category, count(*) AS rows FROM ({found.new(table)}) WHERE category IS NOT NULL GROUP BY 1"
    known = f"SELECT DISTINCT category FROM ({found.after('items')}) WHERE category IS NOT NULL"
    of_item = "i.category = p.category OR starts_with(i.category, p.category || '/')"
    categories, rows, example, listed = found.rows(
        f"SELECT count(*), sum(rows), min(category), (SELECT count(*) FROM ({known})) FROM ({named}) AS p "
        f"WHERE NOT EXISTS (SELECT 1 FROM ({known}) AS i WHERE {of_item})"
    )[0]
    if categories and listed:
        yield TableFinding(
            f"no item has the category of {rows:,} promotions ({categories:,} categories, for example {example})",
            "write the category as the table items does, from its broadest level on: `GROCERY/DAIRY`",
            int(rows),
        )


@per_table("promotions")
def promotions_without_length(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn of promotions that end at the moment at which they begin, as those of one day do where `end` is a date."""
    [(rows, example)] = found.rows(f'SELECT count(*), min(start) FROM ({found.new(table)}) WHERE "end" = start')
    if rows:
        end = found.staged[table].expressions.get("end", "column")
        yield TableFinding(
            f"{rows:,} promotions end at the moment at which they begin, for example {example}, and so last no time",
            f"if `end` is a date, its day belongs to the promotion: write `end: {end}::TIMESTAMP + INTERVAL 1 DAY`",
            int(rows),
        )
