"""The profiles that a command reads: those that are served, or those of another date."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cli.console import Output
from cli.times import as_of_or_default, note_missing_timezone
from qianmian.workspace import Workspace

if TYPE_CHECKING:
    from features.profiles.snapshot import Snapshot


def load_profiles(output: Output, located: Workspace, as_of: str | None) -> Snapshot:
    """Load the served profiles, or build those of another date without publishing them."""
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from features.profiles.building import snapshot_at
    from features.profiles.snapshot import current_snapshot_name, load_current
    from qianmian.config import load_settings

    if as_of is None and current_snapshot_name(located) is not None:
        return load_current(located)
    settings = load_settings(located.config_file)
    builder = make_builder(Lake(located), settings)
    moment = as_of_or_default(builder.lake, as_of)
    note_missing_timezone(output, builder.lake, settings)
    with output.working():
        output.step(f"building profiles as of {moment:%Y-%m-%d %H:%M}")
        return snapshot_at(builder, moment, settings)
