"""Recommenders, classifiers and lookalike: fit, predict, save and load. This layer imports `features` and `qianmian`."""
