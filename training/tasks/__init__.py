"""Registry of the evaluation tasks of `train recommend`: the task of every scene that names one, and the cold starts.

The task of a scene is `TASK` in the module of this package that has the task's name.
"""

from __future__ import annotations

from importlib import import_module

from models.recommend.scene import SCENES
from qianmian.registry import Registry
from training.tasks import cold_items, cold_users
from training.tasks.base import Task


def _task_of_scene(name: str) -> Task:
    task: Task = import_module(f"{__name__}.{name}").TASK
    return task


TASKS: Registry[Task] = Registry(
    "task",
    {
        task.name: task
        for task in (
            *(_task_of_scene(scene.task) for scene in SCENES.values() if scene.task is not None),
            cold_users.TASK,
            cold_items.TASK,
        )
    },
)
