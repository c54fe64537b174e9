"""Identifiers that cannot do what their type promises: strong values of many customers, numbers without a country."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, TableFinding, per_table
from features.data.lake import literal


@per_table("identities")
def strong_values_of_many(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn about values of strong types that more records hold than the type allows customers."""
    for kind in found.settings.identity.id_types:
        if not kind.strong or kind.max_customers is None:
            continue
        values = found.rows(
            f"SELECT id_value, count(DISTINCT (source, source_user_id)) FROM ({found.after(table)}) "
            f"WHERE id_type = {literal(kind.type)} AND id_value IN (SELECT id_value FROM ({found.new(table)})) "
            f"GROUP BY 1 HAVING count(DISTINCT (source, source_user_id)) > {kind.max_customers} ORDER BY 2 DESC, 1"
        )
        if values:
            most = int(values[0][1])
            yield TableFinding(
                f"{len(values):,} value(s) of {kind.type} are held by more than {kind.max_customers} records (up to "
                f"{most:,}); such a value is a placeholder, or a person with many records",
                f"if it is no placeholder, raise `max_customers` of {kind.type} under identity.id_types in "
                "qianmian.yaml (`qianmian identity resolve --dry-run` shows the change)",
                sum(int(row[1]) for row in values),
            )


@per_table("identities")
def phones_without_country(found: CheckInput, table: str) -> Iterator[TableFinding]:
    """Warn about telephone numbers without a calling code if no default country is set."""
    count = found.staged[table].findings.national_phones
    if count and found.settings.identity.phone_country is None:
        yield TableFinding(
            f"{count:,} telephone numbers have no calling code, so they do not match the same number with one",
            'set `identity: {phone_country: "86"}` (your country) in qianmian.yaml, before the first ingest',
            count,
        )
