"""`qianmian train propensity --target`: which targets a workspace declares."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.console import Output
from qianmian.errors import UsageError, did_you_mean
from qianmian.workspace import Workspace

PROPENSITY = "propensity"
TargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="KIND=NAME",
        help="propensity: also declare item=ID, category=NAME, brand=NAME or event=TYPE, in targets.yaml; repeatable.",
        show_default=False,
    ),
]
RemoveTargetOption = Annotated[
    list[str] | None,
    typer.Option(
        "--remove-target",
        metavar="KIND=NAME",
        help="propensity: remove a target from targets.yaml.",
        show_default=False,
    ),
]


def change_targets(output: Output, located: Workspace, added: list[str], removed: list[str]) -> None:
    """Add targets to `targets.yaml` of the workspace, and remove others.

    Raises
    ------
    UsageError
        A target is not valid, names nothing in the lake, or one that is removed is not in the file.
    """
    from features.data.lake import Lake
    from features.definitions.building import make_builder
    from features.propensity import require_in_lake
    from qianmian.config import load_settings
    from qianmian.propensity_targets import parse_targets, read_targets, require_target, write_targets

    listed = [str(require_target(one)) for one in read_targets(located.config_file)]
    for text in removed:
        name = str(require_target(text, "--remove-target"))
        if name not in listed:
            raise UsageError(
                f"the target is not in targets.yaml{did_you_mean(name, listed)}",
                where="--remove-target",
                got=name,
                allowed=", ".join(listed) or "none yet",
            )
        listed.remove(name)
    targets = [require_target(text) for text in added]
    if targets:
        settings = load_settings(located.config_file)
        builder = make_builder(Lake(located), settings)
        for target in targets:
            require_in_lake(builder, target)
        declared = [*settings.propensity.targets, *map(str, targets)]
        try:
            parse_targets(declared)
        except ValueError as error:
            raise UsageError(str(error), where="--target") from None
    listed = list(dict.fromkeys([*listed, *map(str, targets)]))
    write_targets(located.config_file, listed)
    output.step(f"targets: {', '.join(listed) or 'none'}")
