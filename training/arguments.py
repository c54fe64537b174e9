"""What a training was given, as its run records it: with the same data, the same arguments give the same model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any

from qianmian.settings import Settings

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


@dataclass(frozen=True)
class TrainingArguments:
    """What a training was given: with the same lake, they give the same model (`training.provenance` records them).

    Attributes
    ----------
    job : str
        Name in `JOBS`.
    as_of : datetime
        Cutoff, naive UTC.
    settings : Settings
    horizon_days, active_days : int or None
        Those of the command line; None for those of the settings.
    tune : bool
        Whether parameters were searched.
    inherited : mapping of str to any
        What the job took from earlier trainings (`TrainingContext.inherited`).
    """

    job: str
    as_of: datetime
    settings: Settings
    horizon_days: int | None
    active_days: int | None
    tune: bool
    inherited: Mapping[str, Any]


@dataclass(frozen=True)
class TableArguments:
    """What a training on a table was given beside the file, whose digest is the fact ``data_digest`` of the bundle.

    Attributes
    ----------
    job : str
        Name of the registered model without its prefix.
    seed : int
    options : mapping of str to any
        Fields of the task without the file, as plain values.
    """

    job: str
    seed: int
    options: Mapping[str, Any]

    @classmethod
    def of_task(cls, task: DataclassInstance, job: str, seed: int) -> TableArguments:
        """Those of a task, such as `training.classify.run.SnapshotTask`, which has the field `data`."""
        options = {one.name: getattr(task, one.name) for one in fields(task) if one.name != "data"}
        return cls(job, seed, {**options, "excluded": list(options["excluded"])})
