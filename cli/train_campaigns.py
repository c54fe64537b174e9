"""`qianmian train uplift --campaign`: which campaigns are learnt from, and what the contact is to change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from qianmian.errors import UsageError

if TYPE_CHECKING:
    from qianmian.settings import Settings

CampaignOption = Annotated[
    list[str] | None,
    typer.Option(
        "--campaign",
        metavar="ID",
        help="uplift: the campaign to learn from, by its id, or kind=KIND for all of a kind; repeatable. "
        "Default: uplift.campaigns of the settings.",
        show_default=False,
    ),
]


def with_campaigns(settings: Settings, campaigns: list[str] | None, outcome: str | None) -> Settings:
    """The settings with the campaigns and the outcome of the command line.

    Raises
    ------
    UsageError
        The outcome is none.
    """
    from qianmian.model_settings import UPLIFT_OUTCOMES
    from qianmian.propensity_targets import FORMS, require_target

    changes: dict[str, object] = {}
    if campaigns:
        changes["campaigns"] = tuple(campaigns)
    if outcome is not None:
        if outcome not in UPLIFT_OUTCOMES and "=" not in outcome:
            allowed = f"{', '.join(UPLIFT_OUTCOMES)}, {FORMS}"
            raise UsageError("there is no such outcome", where="--outcome", got=outcome, allowed=allowed)
        changes["outcome"] = outcome if outcome in UPLIFT_OUTCOMES else str(require_target(outcome, "--outcome"))
    return settings.model_copy(update={"uplift": settings.uplift.model_copy(update=changes)})
