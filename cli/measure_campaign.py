"""`qianmian measure --campaign`: what is read from the lake."""

from __future__ import annotations

from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from cli.console import Output
from cli.times import as_of_or_default, note_empty_days
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from features.compute.builder import Builder
    from qianmian.settings import Settings
    from training.measurement.campaign import Exposures
    from training.measurement.experiment import Experiment

DEFAULT_OUTCOMES = ("orders", "amount")


def open_lake(output: Output, workspace: Path | None, as_of: str | None) -> tuple[Builder, Settings, datetime]:
    """The lake of the workspace as a builder, its settings and the cutoff."""
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from qianmian.config import load_settings

    located = Workspace.locate(workspace).require()
    lake, settings = Lake(located), load_settings(located.config_file)
    moment = as_of_or_default(lake, as_of)
    note_empty_days(output, lake, moment)
    return make_builder(lake, settings), settings, moment


def read_exposures(
    builder: Builder,
    campaign: str,
    moment: datetime,
    window_days: int,
    control: str | None,
    weights: dict[str, float] | None,
) -> tuple[Exposures, str]:
    """The customers of a campaign, and its control."""
    from training.measurement.campaign import find_exposures
    from training.measurement.experiment import choose_control
    from training.measurement.table import require_weights

    exposures = find_exposures(builder, campaign, moment, window_days)
    counts = Counter(exposures.variant.tolist())
    require_weights(weights, counts)
    return exposures, choose_control(counts, control)


def tags_before(
    output: Output, builder: Builder, settings: Settings, exposures: Exposures, names: list[str]
) -> dict[str, NDArray[np.str_]]:
    """The value of each tag as of the first touch, so that no campaign has changed it; one value a customer."""
    if not names:
        return {}
    import numpy as np

    from features.profiles.analytics import tag_column
    from features.profiles.analytics.tagged import UNTAGGED
    from features.profiles.building import snapshot_at

    moment = exposures.campaign.first_contact
    output.step(f"computing the tags as of {moment:%Y-%m-%d %H:%M}")
    snapshot = snapshot_at(builder, moment, settings)
    found = {}
    for name in names:
        table = tag_column(name, snapshot.one_ids, snapshot.tags).to_pydict()
        values = dict(zip(table["one_id"], table["tag"], strict=True))
        found[name] = np.array([values.get(one_id, UNTAGGED) for one_id in exposures.one_ids.tolist()], dtype=np.str_)
    return found


def outcomes_of(
    builder: Builder,
    exposures: Exposures,
    outcomes: list[str] | None,
    moment: datetime,
    control: str,
    weights: dict[str, float] | None,
    tags: dict[str, NDArray[np.str_]],
) -> Experiment:
    """The experiment of a campaign with the named outcomes; by default the orders, and their amounts if recorded."""
    from qianmian.model_settings import UPLIFT_OUTCOMES
    from qianmian.propensity_targets import require_target
    from training.measurement.campaign import campaign_experiment

    state = builder.states.get("transactions")
    usual = [name for name in DEFAULT_OUTCOMES if name != "amount" or (state and "amount" in state.filled)]
    named = [name if name in UPLIFT_OUTCOMES else str(require_target(name, "--outcome")) for name in outcomes or usual]
    return campaign_experiment(builder, exposures, named, moment, control, weights, tags)
