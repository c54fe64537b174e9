"""Registry of the evaluation tasks of `train recommend`: one module and one line here for each scene and cold start."""

from __future__ import annotations

from qianmian.registry import Registry
from training.tasks import cold_items, cold_users, complement, discover, home, replenish, similar, upgrade
from training.tasks.base import Task

TASKS: Registry[Task] = Registry(
    "task",
    {
        task.name: task
        for task in (
            home.TASK,
            discover.TASK,
            replenish.TASK,
            complement.TASK,
            upgrade.TASK,
            similar.TASK,
            cold_users.TASK,
            cold_items.TASK,
        )
    },
)
