"""Identifiers that cannot do what their type promises: strong values of many customers, numbers without a country."""

from __future__ import annotations

from collections.abc import Iterator

from features.data.ingest.checks.base import CheckInput, IngestWarning
from features.data.lake import literal


def strong_values_of_many(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn about values of strong types that more records hold than the type allows customers."""
    new = found.new("identities")
    if new is None:
        return
    for kind in found.settings.identity.id_types:
        if not kind.strong or kind.max_customers is None:
            continue
        values = found.rows(
            f"SELECT id_value, count(DISTINCT (source, source_user_id)) FROM ({found.after('identities')}) "
            f"WHERE id_type = {literal(kind.type)} AND id_value IN (SELECT id_value FROM ({new})) "
            f"GROUP BY 1 HAVING count(DISTINCT (source, source_user_id)) > {kind.max_customers} ORDER BY 2 DESC, 1"
        )
        if values:
            most = int(values[0][1])
            yield IngestWarning(
                "identities",
                "strong_values_of_many",
                f"{len(values):,} value(s) of {kind.type} are held by more than {kind.max_customers} records (up to "
                f"{most:,}); such a value is a placeholder, or a person with many records",
                f"if it is no placeholder, raise `max_customers` of {kind.type} under identity.id_types in "
                "qianmian.yaml (`qianmian identity resolve --dry-run` shows the change)",
                sum(int(row[1]) for row in values),
            )


def phones_without_country(found: CheckInput) -> Iterator[IngestWarning]:
    """Warn about telephone numbers without a calling code if no default country is set."""
    staged = found.staged.get("identities")
    if staged is None or found.settings.identity.phone_country is not None:
        return
    count = staged.findings.national_phones
    if count:
        yield IngestWarning(
            "identities",
            "phones_without_country",
            f"{count:,} telephone numbers have no calling code, so they do not match the same number with one",
            'set `identity: {phone_country: "86"}` (your country) in qianmian.yaml, before the first ingest',
            count,
        )
