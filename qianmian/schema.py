"""The canonical tables: their columns, dtypes, units and vocabularies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

DType = Literal["string", "int64", "float64", "bool", "timestamp", "date", "json"]

# fmt: off
EVENT_TYPES = (
    "view", "cart", "favourite", "search", "share", "register", "login", "lead", "service",
    "message_open", "message_click", "coupon_redeem", "purchase",
)
# fmt: on
CONSENT, AVAILABILITY = "consent", "availability"
REQUEST_TYPES = (*EVENT_TYPES, CONSENT, AVAILABILITY)  # of accepted events; the last two are no rows of `events`
CONSENT_CHANNELS = ("email", "sms", "push")
CONSENTS = tuple(f"consent_{channel}" for channel in CONSENT_CHANNELS)  # columns of profiles
LOGINS = ("login", "register")  # types of events that may name a visitor
ANONYMOUS_ID = "anonymous_id"  # of a login: the user id of the visitor; and the id type by which it links the two
ORDER_STATUSES = ("paid", "refunded", "cancelled")
LIFECYCLE_STAGES = ("prospect", "new", "active", "loyal", "at_risk", "asleep", "lost")
BUYER_STAGES = ("prospect", "first_time", "repeat", "loyal")
INACTIVITY_REASONS = ("no_offer", "irrelevant_pushes", "no_interest")
DEMAND_TYPES = ("price_driven", "quality_driven", "content_driven", "balanced")
TAG_CATEGORIES = ("basic", "behaviour", "transaction", "interest", "lifecycle")
RISK_BANDS = ("low", "medium", "high")
WEEKDAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
# slot → its first hour and the hour after it, in the time zone of the workspace
CONTACT_SLOTS = {"night": (0, 6), "morning": (6, 11), "midday": (11, 14), "afternoon": (14, 18), "evening": (18, 24)}


@dataclass(frozen=True)
class Column:
    """One column of a canonical table.

    Attributes
    ----------
    dtype : DType
        Logical type; timestamps are UTC without zone.
    required : bool
        The source must have the column, and every accepted row must have a value.
    allowed : tuple of str
        Allowed values; empty if any value is allowed.
    maximum : float or None
        Larger absolute values are flagged (`flag_absurd`), never dropped.
    derived : bool
        Computed at ingest from the rows; a source cannot map it, and it does not tell two versions of a row apart.
    dates_row : bool
        The moment from which the row holds: it decides which of two rows with one key is newer, and is no content.
    """

    name: str
    dtype: DType
    description: str
    required: bool = False
    unit: str = ""
    allowed: tuple[str, ...] = ()
    maximum: float | None = None
    derived: bool = False
    dates_row: bool = False


@dataclass(frozen=True)
class Table:
    """One canonical table: its columns, and the key that identifies a row."""

    name: str
    key: tuple[str, ...]
    columns: tuple[Column, ...]
    keeps_extra_columns: bool = False  # unknown columns are kept as attributes

    def column(self, name: str) -> Column | None:
        """The column of that name; None if the table has no such column."""
        return next((column for column in self.columns if column.name == name), None)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)


def _c(name: str, dtype: DType, description: str, **more: object) -> Column:
    return Column(name, dtype, description, **more)  # type: ignore[arg-type]


_SOURCE = _c("source", "string", "the system the row comes from")
_USER = _c("source_user_id", "string", "the customer's id in that system")
_VALID_FROM = _c("valid_from", "timestamp", "the row holds from then on; null if unknown", unit="UTC", dates_row=True)

# fmt: off
TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table("profiles", ("source", "source_user_id"), (
            _SOURCE,
            _c("source_user_id", "string", "the customer's id in that system", required=True),
            _c("gender", "string", "as the source writes it"),
            _c("birth_date", "date", "date of birth"),
            _c("age_band", "string", "age as a band, e.g. 25-34"),
            _c("region", "string", "state or province"),
            _c("city", "string", "city"),
            _c("income_band", "string", "income as a band"),
            _c("registered_at", "timestamp", "when the customer registered", unit="UTC"),
            _c("member_tier", "string", "loyalty tier"),
            _c("points_balance", "float64", "loyalty points held", unit="points"),
            _c("points_expire_at", "timestamp", "when those points lapse", unit="UTC"),
            _c("consent_email", "bool", "may be contacted by e-mail"),
            _c("consent_sms", "bool", "may be contacted by text message"),
            _c("consent_push", "bool", "may be contacted by push message"),
            _VALID_FROM,
        ), keeps_extra_columns=True),
        Table("identities", ("source", "source_user_id", "id_type", "id_value", "observed_at"), (
            _SOURCE,
            _c("source_user_id", "string", "the customer's id in that system", required=True),
            _c("id_type", "string", "declared type: phone, email, device, cookie, openid, card …", required=True),
            _c("id_value", "string", "the identifier; a salted keyed hash for personal ones", required=True),
            _c("observed_at", "timestamp", "when it was seen", unit="UTC"),
        )),
        Table("events", ("source", "event_id"), (
            _c("event_id", "string", "unique within the source; derived from the row when absent"),
            _SOURCE, _USER,
            _c("session_id", "string", "the session the event belongs to"),
            _c("event_type", "string", "type of the event", required=True, allowed=EVENT_TYPES),
            _c("ts", "timestamp", "time of the event", unit="UTC", required=True),
            _c("item_id", "string", "the item concerned"),
            _c("category", "string", "category of the item, if the source records it with the event"),
            _c("content_id", "string", "the content concerned"),
            _c("page", "string", "page or screen"),
            _c("referrer", "string", "page or site that led to the session"),
            _c("campaign_id", "string", "the campaign concerned"),
            _c("duration_seconds", "float64", "time spent", unit="s", maximum=86_400.0),
            _c("channel", "string", "app, web, store …"),
            _c("device", "string", "type of device"),
            _c("value", "float64", "money value of the event", unit="currency"),
            _c("properties", "json", "all other attributes"),
            _c("date_only", "bool", "ts is a date without a clock time", derived=True),
        )),
        Table("transactions", ("source", "order_id", "line_no"), (
            _c("order_id", "string", "the order", required=True),
            _c("line_no", "int64", "line within the order; numbered in file order when absent"),
            _SOURCE, _USER,
            _c("ts", "timestamp", "time of the purchase", unit="UTC"),
            _c("item_id", "string", "the item bought"),
            _c("quantity", "float64", "units bought; positive also in a refund", unit="units", maximum=10_000.0),
            _c("amount", "float64", "what the customer paid for the line", unit="currency", maximum=1_000_000.0),
            _c("discount", "float64", "discount by the retailer on the line", unit="currency"),
            _c("coupon_discount", "float64", "discount from coupons on the line", unit="currency"),
            _c("store_id", "string", "the store"),
            _c("channel", "string", "app, web, store …"),
            _c("status", "string", "paid, refunded or cancelled", allowed=ORDER_STATUSES),
            _c("date_only", "bool", "ts is a date without a clock time", derived=True),
        )),
        Table("items", ("item_id",), (
            _c("item_id", "string", "the item", required=True),
            _c("category", "string", "category levels joined by /, broadest first"),
            _c("brand", "string", "brand or maker"),
            _c("price", "float64", "list price", unit="currency", maximum=1_000_000.0),
            _c("available", "bool", "the item can be sold now"),
            _c("tags", "string", "free tags joined by |"),
            _c("merchandise", "bool", "the item is chosen by customers; false: bags, deposits, shipping"),
            _VALID_FROM,
            _c("source", "string", "the system whose catalogue describes the item", derived=True),
        ), keeps_extra_columns=True),
        Table("contents", ("content_id",), (
            _c("content_id", "string", "the content", required=True),
            _c("type", "string", "article, banner, message …"),
            _c("topics", "string", "topics joined by |"),
            _c("item_ids", "string", "items shown, joined by |"),
            _c("channel", "string", "where the content can be shown"),
            _c("language", "string", "language tag"),
            _VALID_FROM,
        )),
        Table("campaigns", ("campaign_id",), (
            _c("campaign_id", "string", "the campaign", required=True),
            _c("kind", "string", "type of the campaign"),
            _c("start", "timestamp", "first moment", unit="UTC"),
            _c("end", "timestamp", "last moment", unit="UTC"),
            _c("channel", "string", "channel of delivery"),
            _VALID_FROM,
        )),
        Table("promotions", ("source", "item_id", "category", "kind", "start", "end", "plan_id", "known_at"), (
            _SOURCE,
            _c("item_id", "string", "the item promoted; empty where a whole category is"),
            _c("category", "string", "the category promoted, with all below it"),
            _c("kind", "string", "type of the promotion: mailer, display, coupon …"),
            _c("start", "timestamp", "first moment", unit="UTC", required=True),
            _c("end", "timestamp", "first moment after it; empty while no end is planned", unit="UTC"),
            _c("known_at", "timestamp", "when the plan was known; not read before", unit="UTC", required=True),
            _c("reach", "float64", "share of the stores or customers it reaches; 1 if empty", unit="0..1"),
            _c("plan_id", "string", "the plan; of an item in it, the rows known last replace those known before"),
            _c("withdrawn", "bool", "the plan no longer holds, since known_at"),
        )),
        Table("touches", ("source", "touch_id"), (
            _c("touch_id", "string", "one contact with one customer", required=True),
            _c("campaign_id", "string", "the campaign", required=True),
            _SOURCE,
            _c("source_user_id", "string", "the customer's id in that system", required=True),
            _c("ts", "timestamp", "time of the contact", unit="UTC", required=True),
            _c("variant", "string", "arm of an experiment"),
            _c("propensity", "float64", "probability with which this variant was chosen", unit="0..1"),
            _c("delivered", "bool", "the message was delivered"),
            _c("opened", "bool", "the message was opened"),
            _c("clicked", "bool", "the message was clicked"),
        )),
    )
}
# fmt: on

# Names in the MLflow registry: training writes them, serving reads them.
EVALUATION = "evaluation"  # fact of a bundle: `training.report.EvalReport.summary` of its model
REGISTERED_PREFIX = "qianmian-"
CHAMPION, PREVIOUS, CHALLENGER = "champion", "previous", "challenger"
EVENT_TAG = "qianmian.event."  # + ISO time: tag of a registered model, one per promotion or rollback
INTENT_TAG = "qianmian.intent"  # tag of a registered model while its champion is being changed
# tags of a version: the verdict of the gate (`passed` or `refused`), and what was decided, each with its reasons
GATE_TAG, DECISION_TAG = "gate", "decision"


def registered_name(job: str) -> str:
    """Name of the registered MLflow model of a job; a full name is returned unchanged.

    Examples
    --------
    >>> registered_name("churn"), registered_name("qianmian-churn")
    ('qianmian-churn', 'qianmian-churn')
    """
    return job if job.startswith(REGISTERED_PREFIX) else REGISTERED_PREFIX + job
