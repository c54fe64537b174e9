"""Segments on which lookalikes are evaluated, and the evaluation of `training.jobs.lookalike`."""
