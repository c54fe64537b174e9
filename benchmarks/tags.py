"""Do tags keep what they say about the time after them? On Complete Journey and on the synthetic shop.

Tags are rebuilt at past moments from the rows before them (`features.profiles.governance.moments`) and compared with
what the customers then did: Complete Journey at four moments of 2017, the synthetic shop (1,000 customers, a year, seed
0) at those that `qianmian tags validate` chooses. Rows of all moments are pooled, and intervals are clustered by
customer. A wait that did not end by the end of the data is censored, not left out. Musts:

- the tags below are known for ≥ 60 % of the customers with ≥ 20 lines (of each moment);
- `days_to_next_order`: rank correlation with the wait ≥ .55, both pooled and cut at the same day; mean absolute error ≤
  that of the own mean gap; the 80 % interval contains 75 to 85 % of the next orders (Kaplan–Meier);
- `replenishment`: the share that orders within 7 days is higher for `due` than for `not_yet` and `missed`, and their
  intervals do not overlap;
- `lifecycle_stage`: no two neighbours of loyal, active, at_risk, asleep, lost in the wrong order beyond noise, in the
  shares that order within 28 and 84 days and in the churn probability of a model that was trained before the moment;
  the intervals of the first and the last at least .2 apart;
- favourite category and brand, hour, weekday and channel: the lower end of the interval of the lift is above 1.

The price tags of Complete Journey and their musts are those of `tags_price.py`. Neither data set records a channel, and
the synthetic shop draws weekdays at random; these are not measured there.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import common
import tags_price
from common import Check, Must
from tags_lifecycle import HORIZON, churn_probabilities, columns_at, lifecycle, next_order, replenishment

MOMENTS = (datetime(2017, 12, 5), datetime(2017, 10, 3), datetime(2017, 9, 5), datetime(2017, 7, 4))
SHOP = ("--customers", "1000", "--days", "365", "--seed", "0")
MIN_LINES = 20
KNOWN_TAGS = (
    "days_to_next_order",
    "replenishment",
    "lifecycle_stage",
    "price_band",
    "trading",
    "favourite_category",
    "category_affinity",
    "favourite_brand",
    "brand_affinity",
    "active_hours",
    "favourite_weekday",
)
PREFERENCES = ("favourite_category", "favourite_brand", "active_hours", "favourite_weekday", "preferred_channel")
NOT_IN_SHOP = ("favourite_weekday",)  # drawn at random
KNOWN, LIFT = "share of customers with 20 lines who have the tag", "low end of the lift"
MUSTS = {KNOWN: Must("metric", least=0.6), LIFT: Must("metric", least=1.0)}


def measure(
    workspace: Path, moments: Sequence[datetime] | None, skip: Sequence[str]
) -> tuple[dict[str, Any], list[Check]]:
    """Figures and checks of one workspace; moments None for those that the command chooses."""
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from features.profiles.governance.moments import choose_moments, needed_names, tags_at
    from features.profiles.governance.validate import number_customers
    from features.profiles.tags.tagging import declared_tags
    from qianmian.config import load_settings
    from qianmian.workspace import Workspace

    located = Workspace(workspace)
    settings = load_settings(located.config_file)
    lake = Lake(located)
    builder, end = make_builder(lake, settings), lake.default_as_of
    moments = moments or choose_moments(lake.states()["transactions"].begin, end, HORIZON, len(MOMENTS))
    everything = declared_tags(settings)
    declared = [tag for tag in everything if tag.claim is not None or tag.name in KNOWN_TAGS]
    needed = needed_names(everything, [tag.name for tag in declared])
    tags = [tag for tag in everything if tag.name in needed]
    rebuilt = [tags_at(builder, moment, end, tags, settings) for moment in moments]
    clusters = number_customers(rebuilt)
    having = list(zip(rebuilt, clusters, strict=True))
    print(f"moments: {', '.join(f'{moment:%Y-%m-%d}' for moment in moments)}; data up to {end:%Y-%m-%d}")
    results: dict[str, Any] = {}
    checks: list[Check] = []
    for part in (
        known_shares(builder, rebuilt),
        next_order(builder, declared, having),
        replenishment(declared, rebuilt, clusters),
        lifecycle(declared, rebuilt, clusters, churn_probabilities(located, settings, rebuilt)),
        preferences(declared, having, skip),
    ):
        for name, metrics in part[0].items():
            results.setdefault(name, {}).update(metrics)
        checks += part[1]
    return results, checks


def known_shares(builder: Any, rebuilt: Sequence[Any]) -> tuple[dict[str, Any], list[Check]]:
    """Share of the customers with 20 lines for whom each tag is known, the lowest of the moments."""
    from features.profiles.governance.verdicts import known_values

    many = [columns_at(builder, moment, ["lines_total"])["lines_total"] >= MIN_LINES for moment in rebuilt]
    found: dict[str, Any] = {}
    checks = []
    for name in KNOWN_TAGS:
        if not any(name in moment.tags for moment in rebuilt) and name == "trading":
            print("trading: not declared or absent")  # it may be dropped
            continue
        shares = [
            float(known_values(moment.tags[name][rows]).mean()) if name in moment.tags else 0.0
            for moment, rows in zip(rebuilt, many, strict=True)
        ]
        found[name] = {"known": common.value(min(shares), n=int(sum(rows.sum() for rows in many)))}
        print(f"{name}: known for {', '.join(f'{share:.1%}' for share in shares)}")
        checks += common.check(MUSTS, {KNOWN: min(shares)}, name)
    return found, checks


# ---- named values ----------------------------------------------------------------------------------------------------


def preferences(tags: Sequence[Any], having: Sequence[Any], skip: Sequence[str]) -> tuple[dict[str, Any], list[Check]]:
    """Lift of the named value in the rows of the next 28 days."""
    from features.profiles.governance.verdicts import preference_shares

    results: dict[str, Any] = {}
    checks = []
    for name in PREFERENCES:
        tag = next(tag for tag in tags if tag.name == name)
        seen = [(moment, cluster) for moment, cluster in having if name in moment.tags]
        if not seen:
            print(f"{name}: not in these data")
            continue
        lift = preference_shares(name, tag.claim, seen, HORIZON).lift()
        print(
            f"{name}: {lift.own:.3f} of the own rows in {HORIZON} days, {lift.everybody:.3f} of everybody's; lift "
            f"{lift.lift:.3f} ({lift.low:.3f} to {lift.high:.3f}), {lift.customers:,} customers, {lift.rows:,} rows"
        )
        results[name] = {"lift": common.value(lift.lift, lift.low, lift.high, lift.rows)}
        if name not in skip:
            checks += common.check(MUSTS, {LIFT: lift.low}, name)
    return results, checks


def main() -> None:
    """Run the benchmark."""
    parser = common.parser(__doc__.splitlines()[0])
    parser.add_argument(
        "--workspace", type=Path, default=None, help="workspace with Complete Journey, instead of a new one"
    )
    arguments = parser.parse_args()
    print(common.machine())
    results: dict[str, Any] = {}
    checks: list[Check] = []
    with tempfile.TemporaryDirectory() as temporary:
        shop = Path(temporary) / "shop"
        journey = arguments.workspace or Path(temporary) / "journey"
        command = [sys.executable, "-m", "cli.main", "ingest"]
        if arguments.workspace is None:
            common.timed([*command, "completejourney", "--workspace", str(journey)])
        common.timed([*command, "synthetic", *SHOP, "--workspace", str(shop)])
        for data, workspace, moments, skip in (
            ("completejourney", journey, MOMENTS, ()),
            ("synthetic", shop, None, NOT_IN_SHOP),
        ):
            print(f"\n{data}")
            results[data], found = measure(workspace, moments, skip)
            checks += [replace(one, name=f"{data}, {one.name}") for one in found]
        print("\nprice tags of completejourney")
        prices = tags_price.price_figures(journey, progress=print)
        checks += tags_price.price_checks(prices)
        results["completejourney"]["prices"] = {
            f"{moment} {name}": common.value(number) for moment, part in prices.items() for name, number in part.items()
        }
    common.finish(results, checks, arguments.json)


if __name__ == "__main__":
    main()
