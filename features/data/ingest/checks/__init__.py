"""Checks of the ingested rows: each finds one circumstance that would make profiles wrong although all rows are valid.

A new check is one file, or one function in a file of its topic, and one line in `CHECKS`. A check reads the rows before
the commit; it returns warnings, or raises `DataError` where the rows must not enter the lake.
"""

from __future__ import annotations

from features.data.ingest.checks.base import Check, CheckInput, IngestWarning
from features.data.ingest.checks.dominating import guest_ids, item_in_most_orders, shared_accounts
from features.data.ingest.checks.identifiers import phones_without_country, strong_values_of_many
from features.data.ingest.checks.input_files import odd_input
from features.data.ingest.checks.items import items_of_another_source, vanished_items
from features.data.ingest.checks.order_lines import further_lines, renumbered_lines
from features.data.ingest.checks.order_numbers import order_numbers
from features.data.ingest.checks.order_totals import order_totals
from features.data.ingest.checks.promotions import (
    promotions_known_late,
    promotions_of_unknown_categories,
    promotions_without_length,
)
from features.data.ingest.checks.refunds import unclear_refunds
from features.data.ingest.checks.spelling import ids_spelled_differently, ids_without_description
from features.data.ingest.checks.time_zone import missing_time_zone
from features.data.ingest.checks.times import (
    changed_clocks,
    dates_without_clock_times,
    times_of_1970,
    unread_time_formats,
)
from features.data.ingest.checks.units import quantities_in_other_units
from features.data.ingest.checks.unused_status import unused_status
from features.data.ingest.checks.values import (
    decimal_comma,
    null_words,
    placeholder_ids,
    several_currencies,
    unread_words,
    wrapped_ids,
)
from features.data.ingest.checks.wrong_clock import rows_far_from_the_others
from qianmian.registry import Registry

CHECKS: Registry[Check] = Registry(
    "check",
    {
        "odd_input": odd_input,
        "missing_time_zone": missing_time_zone,
        "unread_time_formats": unread_time_formats,
        "changed_clocks": changed_clocks,
        "dates_without_clock_times": dates_without_clock_times,
        "times_of_1970": times_of_1970,
        "further_lines": further_lines,
        "renumbered_lines": renumbered_lines,
        "order_numbers": order_numbers,
        "order_totals": order_totals,
        "unused_status": unused_status,
        "unclear_refunds": unclear_refunds,
        "items_of_another_source": items_of_another_source,
        "vanished_items": vanished_items,
        "placeholder_ids": placeholder_ids,
        "wrapped_ids": wrapped_ids,
        "null_words": null_words,
        "unread_words": unread_words,
        "decimal_comma": decimal_comma,
        "several_currencies": several_currencies,
        "strong_values_of_many": strong_values_of_many,
        "phones_without_country": phones_without_country,
        "ids_spelled_differently": ids_spelled_differently,
        "ids_without_description": ids_without_description,
        "shared_accounts": shared_accounts,
        "guest_ids": guest_ids,
        "item_in_most_orders": item_in_most_orders,
        "quantities_in_other_units": quantities_in_other_units,
        "promotions_known_late": promotions_known_late,
        "promotions_of_unknown_categories": promotions_of_unknown_categories,
        "promotions_without_length": promotions_without_length,
        "rows_far_from_the_others": rows_far_from_the_others,
    },
)


def run_checks(found: CheckInput) -> tuple[IngestWarning, ...]:
    """Run all checks and return their warnings, in the order of the registry."""
    return tuple(warning for name in CHECKS for warning in CHECKS[name](found))


__all__ = ["CHECKS", "CheckInput", "IngestWarning", "run_checks"]
