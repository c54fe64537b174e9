"""`refunds` of sources.yaml: whether a refund is the row of its sale or a row beside it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest

from features.compute.builder import Builder
from features.data.ingest import IngestReport
from features.data.lake import Lake
from features.definitions import FEATURES
from features.training_data import interaction_rows
from qianmian.errors import ConfigError
from tests.features.data.exports import Export, warned

COLUMNS = "{order_id: order, source_user_id: cust, item_id: sku, ts: date, quantity: qty, amount: paid, status: state}"


def rows(again: int, new: int) -> list[str]:
    """30 customers buy a mug each; `again` of them buy another one that is refunded, and so do `new` other customers."""
    sold = [f"a{n},c{n},mug,2024-01-01 10:00,1,5,paid" for n in range(30)]
    refunded = [f"b{n},c{n},mug,2024-02-01 10:00,1,5,refunded" for n in range(again)]
    return [*sold, *refunded, *(f"n{n},d{n},mug,2024-02-01 10:00,1,5,refunded" for n in range(new))]


def ingest(export: Export, lines: list[str], keys: str = "") -> IngestReport:
    return export.ingest("\n".join(("order,cust,sku,date,qty,paid,state", *lines)) + "\n", COLUMNS, keys=keys)


def mugs_kept(export: Export) -> int:
    found = interaction_rows(Builder(Lake(export.workspace), FEATURES), datetime(2024, 3, 1))
    return int(found.num_rows)


@pytest.mark.parametrize(
    ("keys", "kept"),
    [
        ("    refunds: in_place\n", 30),  # the second mugs were refunded, the first ones were not
        ("    refunds: separate\n", 5),  # the refunds name no order: they take back the first mugs of 25 customers
        ("", 5),  # every refund has an earlier sale, as credit notes have
    ],
)
def test_what_is_declared_decides_what_is_taken_back(tmp_path: Path, keys: str, kept: int) -> None:
    export = Export(tmp_path)
    ingest(export, rows(25, 0), keys)
    assert mugs_kept(export) == kept


def test_a_declaration_holds_for_the_rows_in_the_lake(tmp_path: Path) -> None:
    export = Export(tmp_path)
    first = ingest(export, rows(25, 0))
    second = ingest(export, rows(25, 0), "    refunds: in_place\n")
    assert second.tables["transactions"].duplicates == 55
    assert mugs_kept(export) == 30
    assert first.digest != second.digest, "what was computed from the other reading is computed again"
    assert ingest(export, rows(25, 0)).digest == first.digest, "the line was removed"
    assert mugs_kept(export) == 5


@pytest.mark.parametrize(
    ("again", "new", "kind"),
    [(25, 0, None), (0, 25, None), (15, 10, "separate"), (12, 13, "in_place"), (10, 5, None)],
)
def test_refunds_that_may_be_either_are_named(tmp_path: Path, again: int, new: int, kind: str | None) -> None:
    # no customer buys a mug twice and keeps it, so orders that are marked as refunded would have no earlier sale
    messages = warned(ingest(Export(tmp_path), rows(again, new)), "unclear_refunds")
    assert bool(messages) == (kind is not None)
    if kind:
        share = again / (again + new)
        (message,) = messages
        assert message.startswith(f"{again + new} refunds have no sale in their own order, and {share:.0%} of them")
        assert f"read as `{kind}`" in message
        assert warned(ingest(Export(tmp_path), rows(again, new), "    refunds: separate\n"), "unclear_refunds") == []


def test_refunds_of_another_table_and_another_word_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="only tables.transactions has this key"):
        Export(tmp_path).ingest("sku\nmug\n", "{item_id: sku}", "items", keys="    refunds: in_place\n")
    with pytest.raises(ConfigError, match="in_place"):
        ingest(Export(tmp_path), rows(1, 1), "    refunds: beside\n")
